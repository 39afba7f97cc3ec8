package tunnel

import (
	"encoding/binary"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	ipv4Len = 20 // without options
	ipv6Len = 40

	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132

	fragmentBits = 0x3fff // of IPv4: MF and offset
	dontFragment = 0x40   // in octet 6 of IPv4
)

// flow returns a hash that is the same for all frames of one flow, and the TOS
// of the outer header: the inner one, ECN included (RFC 6040 clause 4.1, normal
// mode), 0 when there is no IP. macs are the addresses of the frame, b what
// follows them. Fragments have no ports, so all of a packet go one way.
//
// Hot path: no allocation. Every read is behind a check of b's length.
func flow(macs, b []byte) (hash uint32, tos uint8) {
	t, p := frame.EtherType(binary.BigEndian.Uint16(b)), b[2:]
	var h uint64
	switch {
	case t == frame.EtherTypeIPv4 && len(p) >= ipv4Len && p[0]>>4 == 4:
		tos = p[1]
		h = mix(binary.LittleEndian.Uint64(p[12:]), uint64(p[9]))
		if l4 := int(p[0]&15) * 4; hasPorts(p[9]) && len(p) >= l4+4 && binary.BigEndian.Uint16(p[6:])&fragmentBits == 0 {
			h = mix(h, uint64(binary.LittleEndian.Uint32(p[l4:])))
		}
	case t == frame.EtherTypeIPv6 && len(p) >= ipv6Len && p[0]>>4 == 6:
		tos = p[0]<<4 | p[1]>>4
		h = mix(binary.LittleEndian.Uint64(p[8:]), binary.LittleEndian.Uint64(p[16:]))
		h = mix(h, mix(binary.LittleEndian.Uint64(p[24:]), binary.LittleEndian.Uint64(p[32:])))
		if hasPorts(p[6]) && len(p) >= ipv6Len+4 {
			h = mix(h, uint64(binary.LittleEndian.Uint32(p[ipv6Len:])))
		} else { // version and class apart: the flow label
			h = mix(h, uint64(binary.BigEndian.Uint32(p)&0xfffff))
		}
	default:
		h = mix(binary.LittleEndian.Uint64(macs), uint64(binary.LittleEndian.Uint32(macs[8:]))<<16|uint64(t))
	}
	return uint32(h >> 32), tos
}

func hasPorts(proto uint8) bool { return proto == protoTCP || proto == protoUDP || proto == protoSCTP }

func mix(a, b uint64) uint64 {
	a = (a ^ b*spread) * spread
	return a ^ a>>29
}

// ECN codepoints (RFC 3168 clause 5).
const (
	ecnMask = 3
	ecnECT1 = 1
	ecnECT0 = 2
	ecnCE   = 3
)

// decapECN gives the inner packet of frame b the ECN that RFC 6040 figure 4
// makes of its own and the outer header's, in place. It reports false when the
// packet must be dropped: congestion that its ends could not be told of.
//
//	            outer Not-ECT   ECT(0)    ECT(1)    CE
//	inner Not-ECT     Not-ECT   Not-ECT   Not-ECT   drop
//	inner ECT(0)      ECT(0)    ECT(0)    ECT(1)    CE
//	inner ECT(1)      ECT(1)    ECT(1)    ECT(1)    CE
//	inner CE          CE        CE        CE        CE
//
// Hot path: no allocation.
func decapECN(b []byte, outer uint8) bool {
	outer &= ecnMask
	if outer != ecnCE && outer != ecnECT1 {
		return true
	}
	p := b[frame.HeaderLen:]
	v4 := false
	var inner uint8
	switch t := frame.EtherType(binary.BigEndian.Uint16(b[12:])); {
	case t == frame.EtherTypeIPv4 && len(p) >= ipv4Len:
		v4, inner = true, p[1]&ecnMask
	case t == frame.EtherTypeIPv6 && len(p) >= ipv6Len:
		inner = p[1] >> 4 & ecnMask
	default:
		return true
	}
	switch {
	case inner == 0:
		return outer != ecnCE
	case inner == ecnCE || inner == outer:
		return true
	}
	if !v4 {
		p[1] = p[1]&^(ecnMask<<4) | outer<<4
		return true
	}
	was := binary.BigEndian.Uint16(p)
	p[1] = p[1]&^ecnMask | outer
	// RFC 1624 equation 3.
	sum := uint32(^binary.BigEndian.Uint16(p[10:])) + uint32(^was) + uint32(binary.BigEndian.Uint16(p))
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	return true
}

// segmentOf is what says where the parts of an inner TCP or UDP packet are.
type segmentOf struct {
	l4, pay, end int // from the start of the frame
	proto        uint8
	v6           bool
}

// locate finds the whole, unfragmented TCP or UDP packet in the untagged frame b.
// Claims is where it ends by its IP header, which may be beyond b; ok is whether
// the packet and its headers are all there.
func (s *segmentOf) locate(b []byte) (claims int, ok bool) {
	p := b[frame.HeaderLen:]
	switch t := frame.EtherType(binary.BigEndian.Uint16(b[12:])); {
	case t == frame.EtherTypeIPv4 && len(p) >= ipv4Len && p[0]>>4 == 4:
		hdr := int(p[0]&15) * 4
		s.l4, s.proto = frame.HeaderLen+hdr, p[9]
		claims = frame.HeaderLen + int(binary.BigEndian.Uint16(p[2:]))
		if hdr < ipv4Len || binary.BigEndian.Uint16(p[6:])&fragmentBits != 0 {
			return claims, false
		}
	case t == frame.EtherTypeIPv6 && len(p) >= ipv6Len && p[0]>>4 == 6:
		s.l4, s.proto, s.v6 = frame.HeaderLen+ipv6Len, p[6], true
		claims = s.l4 + int(binary.BigEndian.Uint16(p[4:]))
	default:
		return 0, false
	}
	s.end = claims
	if s.end > len(b) {
		return claims, false
	}
	switch s.proto {
	case protoTCP:
		if s.end < s.l4+20 {
			return claims, false
		}
		s.pay = s.l4 + int(b[s.l4+12]>>4)*4
	case protoUDP:
		s.pay = s.l4 + 8
	default:
		return claims, false
	}
	return claims, s.pay >= s.l4+s.field()+2 && s.pay <= s.end
}

func (s *segmentOf) field() int {
	if s.proto == protoTCP {
		return 16
	}
	return 6
}

// restore finds the offload metadata that inner frame b had when a virtual
// underlay took it as it was: a checksum that holds only the pseudo-header sum,
// and segments of size octets that nobody cut, where size is 0 when unknown and
// mtu the longest packet of the network. Frames from a real wire have none.
//
// A checksum that is right as it stands is never called partial, whatever it is
// equal to.
//
// Hot path: no allocation.
func restore(b []byte, size, mtu int) frame.GSO {
	var g frame.GSO
	var s segmentOf
	if _, ok := s.locate(b); !ok {
		return g
	}
	addrs := b[frame.HeaderLen+12 : frame.HeaderLen+20]
	if s.v6 {
		addrs = b[frame.HeaderLen+8 : frame.HeaderLen+40]
	}
	pseudo := offload.Pseudo(addrs, s.proto, s.end-s.l4)
	if binary.BigEndian.Uint16(b[s.l4+s.field():]) != offload.Fold(pseudo) ||
		offload.Fold(offload.Sum(b[s.l4:s.end], pseudo)) == 0xffff {
		return g
	}
	g = frame.GSO{NeedsCsum: true, CsumStart: uint16(s.l4), CsumOffset: uint16(s.field())}
	headers := s.pay - frame.HeaderLen
	if size == 0 && s.proto == protoTCP && s.end-frame.HeaderLen > mtu {
		size = mtu - headers
	}
	if size <= 0 || s.end-s.pay <= size {
		return g
	}
	g.HdrLen, g.Size = uint16(s.pay), uint16(size)
	switch {
	case s.proto == protoUDP:
		g.Type = frame.GSOUDP
	case s.v6:
		g.Type = frame.GSOTCPv6
	default:
		g.Type = frame.GSOTCPv4
	}
	g.ECN = s.proto == protoTCP && b[s.l4+13]&0x80 != 0
	f := frame.Frame{Data: b, GSO: g}
	if offload.Check(&f) != nil {
		return frame.GSO{} // nothing that a kernel would have left uncut
	}
	return f.GSO
}
