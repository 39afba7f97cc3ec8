package watch

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Direction is which way a packet goes, with the numbers of packet(7).
type Direction uint8

// Directions.
const (
	ToHost      Direction = unix.PACKET_HOST      // received, for the interface's own address
	ToBroadcast Direction = unix.PACKET_BROADCAST // received, for all
	ToMulticast Direction = unix.PACKET_MULTICAST // received, for a group
	ToOther     Direction = unix.PACKET_OTHERHOST // received, for another station, as a bridge's ports do
	Outgoing    Direction = unix.PACKET_OUTGOING  // sent by the interface
)

var directions = [...]string{"to_host", "to_broadcast", "to_multicast", "to_other", "outgoing"}

// String is the direction's name.
func (d Direction) String() string {
	if int(d) < len(directions) {
		return directions[d]
	}
	return "unknown"
}

// Checksum is what the kernel knows of the checksum of TCP or UDP.
type Checksum uint8

// Checksum states.
const (
	ChecksumUnknown Checksum = iota // to be judged by its octets
	ChecksumValid                   // the kernel or the NIC has verified it
	ChecksumMissing                 // not computed yet: what stands there is no error
)

var checksums = [...]string{"unknown", "valid", "missing"}

// String is the state's name.
func (c Checksum) String() string {
	if int(c) < len(checksums) {
		return checksums[c]
	}
	return "unknown"
}

// Packet is one packet as an interface received or sent it.
type Packet struct {
	// Data is the packet with its tag put back, cut at the snap length. It lies
	// in the Socket's memory.
	Data      []byte
	Length    int   // octets of the whole packet, tag included
	Time      int64 // when the kernel saw it, ns since 1970 (CLOCK_REALTIME); 0 = unknown
	Ifindex   int
	Direction Direction
	Checksum  Checksum
	Tagged    bool            // a VLAN tag was put back
	Ethernet  bool            // Data begins with an Ethernet header, else with that of EtherType
	EtherType frame.EtherType // behind the tag, or of the packet on an interface without Ethernet
}

const (
	tagLen = frame.TagLen
	// controlLen is room for a timestamp and PACKET_AUXDATA, 72 octets, and for
	// what a later kernel may add.
	controlLen = 128
)

// assemble makes a Packet of n octets read into room behind tagLen octets of
// headroom. It believes neither n nor the lengths inside control.
func assemble(room []byte, n int, from *unix.RawSockaddrLinklayer, control []byte) Packet {
	n = max(0, min(n, len(room)-tagLen))
	p := Packet{
		Data: room[tagLen : tagLen+n], Length: n, Ifindex: int(from.Ifindex), Direction: Direction(from.Pkttype),
		Ethernet:  from.Hatype == unix.ARPHRD_ETHER || from.Hatype == unix.ARPHRD_LOOPBACK,
		EtherType: frame.EtherType(from.Protocol<<8 | from.Protocol>>8), // in network order
	}
	aux, ok := p.parseControl(control)
	if !ok {
		return p
	}
	p.Length = max(n, int(aux.Len))
	switch {
	case aux.Status&unix.TP_STATUS_CSUMNOTREADY != 0:
		p.Checksum = ChecksumMissing
	case aux.Status&unix.TP_STATUS_CSUM_VALID != 0:
		p.Checksum = ChecksumValid
	}
	if aux.Status&unix.TP_STATUS_VLAN_VALID == 0 || !p.Ethernet || n < 2*len(frame.MAC{}) {
		return p
	}
	tpid := uint16(frame.EtherTypeCTag)
	if aux.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = aux.Vlan_tpid
	}
	copy(room, room[tagLen:tagLen+12])
	binary.BigEndian.PutUint16(room[12:], tpid)
	binary.BigEndian.PutUint16(room[14:], aux.Vlan_tci)
	p.Data, p.Tagged = room[:tagLen+n], true
	p.Length += tagLen
	return p
}

// parseControl reads timestamp and auxiliary data; ok = the latter is there.
func (p *Packet) parseControl(b []byte) (aux unix.TpacketAuxdata, ok bool) {
	const align = int(unsafe.Sizeof(uintptr(0))) // of a control message
	for len(b) >= unix.SizeofCmsghdr {
		var h unix.Cmsghdr
		copy(octets(&h), b)
		if h.Len < unix.SizeofCmsghdr || uint64(h.Len) > uint64(len(b)) {
			return aux, ok
		}
		body := b[unix.SizeofCmsghdr:h.Len]
		var ts unix.Timespec
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_TIMESTAMPNS && len(body) >= int(unsafe.Sizeof(ts)):
			copy(octets(&ts), body)
			p.Time = ts.Nano()
		case h.Level == unix.SOL_PACKET && h.Type == unix.PACKET_AUXDATA && len(body) >= int(unsafe.Sizeof(aux)):
			copy(octets(&aux), body)
			ok = true
		}
		b = b[min((int(h.Len)+align-1)&^(align-1), len(b)):]
	}
	return aux, ok
}

// octets is v's memory, for the kernel's structures of plain integers.
func octets[T unix.Cmsghdr | unix.Timespec | unix.TpacketAuxdata](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
