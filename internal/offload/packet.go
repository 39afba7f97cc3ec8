package offload

import (
	"encoding/binary"
	"errors"

	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	protoTCP = 6
	protoUDP = 17

	extHopByHop    = 0  // RFC 8200 section 4.3
	extDestination = 60 // RFC 8200 section 4.6

	ipv4Len = 20 // without options
	ipv6Len = 40
	tcpLen  = 20 // without options
	udpLen  = 8

	tcpCsumOffset = 16
	udpCsumOffset = 6

	// maxHeader bounds Ethernet, IP and L4 header together. Two tags, 60
	// octets of IPv4 and 60 of TCP need 142; the rest is for IPv6 options.
	maxHeader = 512
	maxTags   = 2
	maxExt    = 4 // extension headers walked; RFC 8200 section 4.1 orders fewer
)

// TCP flags as in the 14th octet of the header (RFC 9293 section 3.1).
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	tcpPSH
	tcpACK
	_ // URG
	_ // ECE
	tcpCWR
)

// Packet says where the parts of a whole, unfragmented TCP or UDP packet lie.
// Offsets count from the start of the frame; all are within it.
type packet struct {
	l3, l4, pay int // IP header, L4 header, payload
	end         int // one behind the payload, which may be less than the frame: padding
	proto       uint8
	v6          bool
	plain       bool // no IPv4 options or IPv6 extension headers
}

// parse fills p from the frame b and reports whether b holds a packet as
// described at the type, with headers of at most maxHeader octets.
func (p *packet) parse(b []byte) bool {
	if len(b) < frame.HeaderLen {
		return false
	}
	p.l3 = frame.HeaderLen
	for i := 0; ; i++ {
		switch frame.EtherType(binary.BigEndian.Uint16(b[p.l3-2:])) {
		case frame.EtherTypeIPv4:
			return p.parseIPv4(b) && p.parseL4(b)
		case frame.EtherTypeIPv6:
			return p.parseIPv6(b) && p.parseL4(b)
		case frame.EtherTypeCTag, frame.EtherTypeSTag:
			p.l3 += frame.TagLen
			if i == maxTags || len(b) < p.l3 {
				return false
			}
		default:
			return false
		}
	}
}

func (p *packet) parseIPv4(b []byte) bool {
	if len(b) < p.l3+ipv4Len {
		return false
	}
	ip := b[p.l3:]
	hdr := int(ip[0]&15) * 4
	total := int(binary.BigEndian.Uint16(ip[2:]))
	const fragment = 0x3fff // MF and offset
	if ip[0]>>4 != 4 || hdr < ipv4Len || total < hdr || total > len(ip) ||
		binary.BigEndian.Uint16(ip[6:])&fragment != 0 {
		return false
	}
	p.v6, p.plain, p.proto = false, hdr == ipv4Len, ip[9]
	p.l4, p.end = p.l3+hdr, p.l3+total
	return true
}

func (p *packet) parseIPv6(b []byte) bool {
	if len(b) < p.l3+ipv6Len {
		return false
	}
	ip := b[p.l3:]
	// A payload length of 0 is a jumbogram (RFC 2675), or nothing.
	payload := int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || payload == 0 || payload > len(ip)-ipv6Len {
		return false
	}
	p.v6, p.plain, p.proto = true, true, ip[6]
	p.l4, p.end = p.l3+ipv6Len, p.l3+ipv6Len+payload
	for range maxExt {
		if p.proto != extHopByHop && p.proto != extDestination {
			return true
		}
		if p.l4+8 > p.end {
			return false
		}
		p.plain, p.proto = false, b[p.l4]
		p.l4 += 8 + 8*int(b[p.l4+1])
	}
	return true
}

func (p *packet) parseL4(b []byte) bool {
	switch p.proto {
	case protoTCP:
		if p.l4+tcpLen > p.end {
			return false
		}
		hdr := int(b[p.l4+12]>>4) * 4
		p.pay = p.l4 + hdr
		return hdr >= tcpLen && p.pay <= p.end && p.pay <= maxHeader
	case protoUDP:
		p.pay = p.l4 + udpLen
		return p.pay <= p.end && p.pay <= maxHeader
	}
	return false
}

// addrs is source and destination address.
func (p *packet) addrs(b []byte) []byte {
	if p.v6 {
		return b[p.l3+8 : p.l3+40]
	}
	return b[p.l3+12 : p.l3+20]
}

// csumOffset is where the checksum field is from l4.
func (p *packet) csumOffset() int {
	if p.proto == protoTCP {
		return tcpCsumOffset
	}
	return udpCsumOffset
}

// gsoType is the GSO type that packets of this kind are segments of.
func (p *packet) gsoType() frame.GSOType {
	switch {
	case p.proto == protoUDP:
		return frame.GSOUDP
	case p.v6:
		return frame.GSOTCPv6
	default:
		return frame.GSOTCPv4
	}
}

// feature is what a port must have to be given GSO frames of this kind.
func (p *packet) feature() frame.Offloads {
	switch {
	case p.proto == protoTCP && p.v6:
		return frame.OffloadTSO6 | frame.OffloadChecksum
	case p.proto == protoTCP:
		return frame.OffloadTSO4 | frame.OffloadChecksum
	case p.v6:
		return frame.OffloadUSO6 | frame.OffloadChecksum
	default:
		return frame.OffloadUSO4 | frame.OffloadChecksum
	}
}

// setLengths writes the IP and UDP lengths for a payload of n octets into the
// header h, and the IPv4 header checksum.
func (p *packet) setLengths(h []byte, n int) {
	ip := h[p.l3:p.l4]
	if p.v6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(p.pay-p.l3-ipv6Len+n))
	} else {
		binary.BigEndian.PutUint16(ip[2:], uint16(p.pay-p.l3+n))
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], ^Fold(Sum(ip, 0)))
	}
	if p.proto == protoUDP {
		binary.BigEndian.PutUint16(h[p.l4+4:], uint16(udpLen+n))
	}
}

// pseudo is the sum over the pseudo-header for a payload of n octets.
func (p *packet) pseudo(b []byte, n int) uint64 {
	return Pseudo(p.addrs(b), p.proto, p.pay-p.l4+n)
}

// setPartial writes the partial checksum for a payload of n octets into the
// header h.
func (p *packet) setPartial(h []byte, n int) {
	binary.BigEndian.PutUint16(h[p.l4+p.csumOffset():], Fold(p.pseudo(h, n)))
}

// gso is the metadata of a frame cut or coalesced to segments of size octets.
func (p *packet) gso(size int) frame.GSO {
	return frame.GSO{
		Type: p.gsoType(), NeedsCsum: true, HdrLen: uint16(p.pay), Size: uint16(size),
		CsumStart: uint16(p.l4), CsumOffset: uint16(p.csumOffset()),
	}
}

// partialHere reports whether g says that the checksum of p, and no other, is
// partial.
func (p *packet) partialHere(g *frame.GSO) bool {
	return g.NeedsCsum && int(g.CsumStart) == p.l4 && int(g.CsumOffset) == p.csumOffset()
}

var (
	errCsumRange  = errors.New("check offload: checksum field outside the headers")
	errGSOPacket  = errors.New("check offload: GSO frame holds no whole TCP or UDP packet")
	errGSOType    = errors.New("check offload: GSO type is not that of the packet")
	errGSOCsum    = errors.New("check offload: GSO frame without a partial checksum of its own")
	errGSOSize    = errors.New("check offload: GSO frame without payload or segment size")
	errGSOCount   = errors.New("check offload: GSO frame of too many segments")
	errGSOControl = errors.New("check offload: GSO frame with SYN or RST")
	errFrags      = errors.New("check offload: frame is not in one piece")
)

// Most segments of one GSO frame. The kernel lets UDP have 128
// (UDP_MAX_SEGMENTS). TCP gets what 64 KiB of the smallest segment that the
// kernel sends (TCP_MIN_SND_MSS, 48 octets with options) come to, and some; a
// greater count would only multiply the work of cutting.
const (
	maxSegmentsUDP = 128
	maxSegmentsTCP = 2048
)

// Check holds the metadata of a received frame against its octets and fails
// when they disagree; such a frame must not be forwarded. A GSO frame must be a
// whole, unfragmented TCP segment or UDP datagram over IPv4 or IPv6 behind at
// most two tags, with a partial checksum where that protocol has it. Its HdrLen
// is replaced by the true one, because the kernel's is only a hint. A plain
// frame with a partial checksum must hold the checksum field.
//
// Hot path: no allocation.
func Check(f *frame.Frame) error {
	g := &f.GSO
	if g.Type != frame.GSONone {
		var p packet
		return p.check(f)
	}
	if g.NeedsCsum {
		field := int(g.CsumStart) + int(g.CsumOffset)
		if int(g.CsumStart) < frame.HeaderLen || field+2 > min(len(f.Data), maxHeader) {
			return errCsumRange
		}
	}
	return nil
}

// check parses the GSO frame f into p and fails when it cannot be cut.
func (p *packet) check(f *frame.Frame) error {
	g := &f.GSO
	if len(f.Frags) != 0 {
		return errFrags
	}
	if !p.parse(f.Data) {
		return errGSOPacket
	}
	if g.Type != p.gsoType() {
		return errGSOType
	}
	if !p.partialHere(g) {
		return errGSOCsum
	}
	n := p.end - p.pay
	if n == 0 || g.Size == 0 {
		return errGSOSize
	}
	most := maxSegmentsUDP
	if p.proto == protoTCP {
		most = maxSegmentsTCP
		if n > int(g.Size) && f.Data[p.l4+13]&(tcpSYN|tcpRST) != 0 {
			return errGSOControl
		}
	}
	if n > most*int(g.Size) {
		return errGSOCount
	}
	g.HdrLen = uint16(p.pay)
	return nil
}

// Super returns the metadata with which a kernel hands over b uncut, to be cut
// to segments of size octets of payload. It fails where no kernel would, as
// Check does.
func Super(b []byte, size int) (frame.GSO, error) {
	var p packet
	if !p.parse(b) {
		return frame.GSO{}, errGSOPacket
	}
	f := frame.Frame{Data: b, GSO: p.gso(size)}
	err := p.check(&f)
	return f.GSO, err
}
