package switchtest

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// IP protocol numbers.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// layout is where the headers of an IP frame begin. It is written for reading,
// as the slow rival of the parsers in the product.
type layout struct {
	v6              bool
	l3, l4, payload int
	end             int // of the IP packet, before padding
	proto           byte
}

var errCut = errors.New("frame ends inside its headers")

func parse(b []byte) (l layout, err error) {
	at := 12
	for {
		if at+2 > len(b) {
			return l, errCut
		}
		t := frame.EtherType(binary.BigEndian.Uint16(b[at:]))
		if t != frame.EtherTypeCTag && t != frame.EtherTypeSTag {
			l.l3 = at + 2
			return parseIP(b, l, t)
		}
		at += frame.TagLen
	}
}

func parseIP(b []byte, l layout, t frame.EtherType) (layout, error) {
	ip := b[l.l3:]
	switch {
	case t == frame.EtherTypeIPv4 && len(ip) >= 20:
		l.l4 = l.l3 + int(ip[0]&15)*4
		l.end = l.l3 + int(binary.BigEndian.Uint16(ip[2:]))
		l.proto = ip[9]
	case t == frame.EtherTypeIPv6 && len(ip) >= 40:
		l.v6 = true
		l.l4 = l.l3 + 40
		l.end = l.l4 + int(binary.BigEndian.Uint16(ip[4:]))
		l.proto = ip[6]
	case t == frame.EtherTypeIPv4 || t == frame.EtherTypeIPv6:
		return l, errCut
	default:
		return l, fmt.Errorf("EtherType 0x%04x is not IP", uint16(t))
	}
	if l.end > len(b) || l.l4 > l.end || l.l4 < l.l3+20 {
		return l, fmt.Errorf("IP packet at %d has its payload at %d and its end at %d of %d octets", l.l3, l.l4, l.end, len(b))
	}
	l.payload = l.l4
	switch l.proto {
	case protoUDP:
		l.payload += 8
	case protoTCP:
		if l.l4+20 > l.end {
			return l, errCut
		}
		l.payload += int(b[l.l4+12]>>4) * 4
	}
	if l.payload > l.end {
		return l, errCut
	}
	return l, nil
}

// csum is where the L4 checksum stands behind l4, or -1.
func (l layout) csum() int {
	switch l.proto {
	case protoUDP:
		return 6
	case protoTCP:
		return 16
	case protoICMP, protoICMPv6:
		return 2
	}
	return -1
}

// pseudo is the unfolded sum of the pseudo-header (RFC 9293 clause 3.1, RFC
// 8200 clause 8.1); ICMP over IPv4 has none.
func (l layout) pseudo(b []byte) uint32 {
	if l.proto == protoICMP {
		return 0
	}
	addrs := b[l.l3+12 : l.l3+20]
	if l.v6 {
		addrs = b[l.l3+8 : l.l3+40]
	}
	return sum(addrs) + uint32(l.proto) + uint32(l.end-l.l4)
}

// verify checks the IPv4 header checksum, and the L4 checksum according to g.
func (l layout) verify(b []byte, g frame.GSO) error {
	if !l.v6 && fold(sum(b[l.l3:l.l4])) != 0xffff {
		return fmt.Errorf("IPv4 header checksum 0x%04x is wrong", binary.BigEndian.Uint16(b[l.l3+10:]))
	}
	at := l.csum()
	if at < 0 {
		return nil
	}
	got := binary.BigEndian.Uint16(b[l.l4+at:])
	if g.NeedsCsum {
		if int(g.CsumStart) != l.l4 || int(g.CsumOffset) != at {
			return fmt.Errorf("checksum said to be at %d+%d, is at %d+%d", g.CsumStart, g.CsumOffset, l.l4, at)
		}
		if want := fold(l.pseudo(b)); got != want {
			return fmt.Errorf("partial checksum: got 0x%04x, want the pseudo-header's sum 0x%04x", got, want)
		}
		return nil
	}
	if l.proto == protoUDP && got == 0 && !l.v6 {
		return nil // RFC 768: not computed
	}
	if fold(l.pseudo(b)+sum(b[l.l4:l.end])) != 0xffff {
		return fmt.Errorf("L4 checksum 0x%04x is wrong", got)
	}
	return nil
}

// sum adds big-endian 16-bit words (RFC 1071); 64 KiB of them fit 32 bits.
func sum(b []byte) uint32 {
	var s uint32
	for i, o := range b {
		if i%2 == 0 {
			s += uint32(o) << 8
		} else {
			s += uint32(o)
		}
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}
