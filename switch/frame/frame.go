package frame

import "encoding/binary"

// Sizes in octets.
const (
	// HeaderLen is destination, source and EtherType (IEEE 802.3 clause 3.1.1).
	HeaderLen = 14
	// MaxLen bounds one received frame: a 64 KiB GSO packet, its Ethernet
	// header and two tags. Drivers offer the kernel at least this much room, so
	// that a read never truncates.
	MaxLen = 65536 + HeaderLen + 2*TagLen
)

// Offloads is the set of offload features that a port can carry on egress.
// It is fixed when the port is opened.
type Offloads uint8

// Offload features, named as the kernel names them.
const (
	OffloadChecksum Offloads = 1 << iota // partial checksums (NEEDS_CSUM)
	OffloadTSO4                          // TCP over IPv4 GSO frames
	OffloadTSO6                          // TCP over IPv6 GSO frames
	OffloadUSO4                          // UDP over IPv4 GSO frames
	OffloadUSO6                          // UDP over IPv6 GSO frames
	OffloadECN                           // TCP GSO frames with CWR set
)

// Has reports whether every feature of f is in o.
func (o Offloads) Has(f Offloads) bool { return o&f == f }

// GSOType says what a GSO frame is cut into. The numbers are those of
// VIRTIO_NET_HDR_GSO_* (virtio 1.2 clause 5.1.6).
type GSOType uint8

// GSO types.
const (
	GSONone  GSOType = 0
	GSOTCPv4 GSOType = 1
	GSOTCPv6 GSOType = 4
	GSOUDP   GSOType = 5 // UDP_L4: equal datagrams, v4 or v6 by EtherType
)

// GSO is the offload metadata of one frame. Offsets count from the first octet
// of Frame.Data as it is stored, tags included. The zero GSO means a plain
// frame with complete checksums.
type GSO struct {
	Type       GSOType
	ECN        bool   // TCP with CWR on the first segment only
	NeedsCsum  bool   // the checksum at CsumStart+CsumOffset holds only the pseudo-header sum
	Valid      bool   // the sender's kernel has verified the checksum
	HdrLen     uint16 // Ethernet to L4 header inclusive
	Size       uint16 // L4 payload octets a segment
	CsumStart  uint16 // where summing begins: the L4 header
	CsumOffset uint16 // from CsumStart to the checksum field
}

// Frame is one Ethernet frame, or one GSO frame that stands for several.
//
// On ingress a driver fills Data and GSO. On egress the switch adds what is to
// change on the way out: Pop leaves out the outer tag stored at Data[12:16],
// Push inserts a tag behind the source address. Drivers do both by gather I/O;
// nobody writes into Data.
type Frame struct {
	Data  []byte
	Frags [][]byte // payload behind Data, on egress only
	GSO   GSO
	Push  Tag
	Pop   bool

	// In and VID are set by a receiver that hears frames of several ports: the
	// port that this one came in by, and the network it belongs to, which a tag
	// would say otherwise. Other drivers leave them zero.
	In  PortID
	VID VID

	// Mute is set by a receiver whose frame teaches nobody where its source is,
	// and Own by one whose frame this host has made in a station's name: it
	// teaches nothing either, and no port has received it.
	Mute, Own bool

	// Copies is how many forwarded copies this frame stands for: 1, more when
	// several were coalesced, 0 for every segment but the first of a cut frame.
	Copies uint16
	// Refused is set by a driver when it could not send the frame, and Why where
	// the driver knows better than Transmit's error tells. The switch sets both on
	// a copy that did not leave as a whole.
	Refused bool
	Why     Reason
}

// Teaches reports whether the frame shows where its source is.
func (f *Frame) Teaches() bool { return !f.Mute && !f.Own }

// Len is the frame's length on the wire after Pop and Push, without FCS.
func (f *Frame) Len() int {
	n := len(f.Data)
	for _, p := range f.Frags {
		n += len(p)
	}
	if f.Pop {
		n -= TagLen
	}
	if f.Push.Present() {
		n += TagLen
	}
	return n
}

// Shift is by how many octets the offsets of GSO move when Pop and Push are
// carried out: -4, 0 or 4.
func (f *Frame) Shift() int {
	n := 0
	if f.Pop {
		n -= TagLen
	}
	if f.Push.Present() {
		n += TagLen
	}
	return n
}

// L3Len is the length of what the Ethernet header carries, the number an MTU
// limits: for a GSO frame that of its largest segment. hdr is the length of the
// Ethernet header and outer tag as stored in Data.
func (f *Frame) L3Len(hdr int) int {
	if f.GSO.Type != GSONone {
		return int(f.GSO.HdrLen) - hdr + int(f.GSO.Size)
	}
	n := len(f.Data) - hdr
	for _, p := range f.Frags {
		n += len(p)
	}
	return n
}

// Header is the parsed start of a frame.
type Header struct {
	Dst, Src  MAC
	Tag       Tag       // the outer C-tag; zero when untagged
	EtherType EtherType // behind the outer tag
	Len       int       // octets up to the payload: 14 or 18
}

// Parse reads the Ethernet header and, if there is one, the outer C-tag of b.
// It reports false when b is too short to hold them. An S-tag (802.1ad) is
// payload to this bridge and is left alone.
func Parse(b []byte) (h Header, ok bool) {
	if len(b) < HeaderLen {
		return h, false
	}
	h.Dst = MAC(b[0:6])
	h.Src = MAC(b[6:12])
	h.EtherType = EtherType(binary.BigEndian.Uint16(b[12:14]))
	h.Len = HeaderLen
	if h.EtherType != EtherTypeCTag {
		return h, true
	}
	if len(b) < HeaderLen+TagLen {
		return h, false
	}
	h.Tag = Tag{TPID: EtherTypeCTag, TCI: binary.BigEndian.Uint16(b[14:16])}
	h.EtherType = EtherType(binary.BigEndian.Uint16(b[16:18]))
	h.Len = HeaderLen + TagLen
	return h, true
}
