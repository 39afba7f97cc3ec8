package vswitch

import (
	"encoding/binary"
	"slices"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// maxL3 is the longest L3 packet that any network can carry: the greatest MTU
// that a Linux device can have, and the greatest IPv4 total length.
const maxL3 = 65535

// filter says why a frame of network n must not come in by p, or ReasonNone. A
// port that the loop guard has cut is checked before its frames are.
//
// Hot path: no allocation.
func (p *port) filter(n *network, f *frame.Frame, h *frame.Header) frame.Reason {
	if g := &f.GSO; g.Type != frame.GSONone && (int(g.HdrLen) < h.Len || int(g.HdrLen) > len(f.Data) || g.Size == 0) {
		return frame.TooShort
	}
	if len(f.Data)-h.Len > maxL3 || f.L3Len(h.Len) > maxL3 {
		return frame.TooLong
	}
	if h.Src.IsGroup() || h.Src.IsZero() {
		return frame.BadSource
	}
	if h.Dst.IsReserved() && n.reserved&(1<<h.Dst[5]) == 0 {
		return frame.ReservedGroup
	}
	if !p.pin.IsZero() && h.Src != p.pin {
		return frame.SpoofedSource
	}
	if (p.sourced || !p.pin.IsZero()) && !p.honest(h.EtherType, f.Data[h.Len:]) {
		return frame.SpoofedSource
	}
	return frame.ReasonNone
}

// maxNesting bounds the tags and SNAP headers that honest looks through, and
// the IPv6 extension headers. No station needs more, and what hides deeper is
// refused.
const maxNesting = 8

// EtherTypes and IP protocol numbers that only the source check looks at.
const (
	protoHopByHop = 0
	protoRouting  = 43
	protoFragment = 44
	protoICMPv6   = 58
	protoDstOpts  = 60

	icmpMLDReport   = 131
	icmpRouterSol   = 133
	icmpNeighSol    = 135
	icmpNeighAdv    = 136
	icmpMLDv2Report = 143
)

// honest reports whether the addresses that a frame claims as its own are among
// the port's. b is what follows EtherType t. Tags of any kind and LLC/SNAP are
// looked through first, since receivers do so too and a check that stops at
// them can be walked around (CERT VU#855201).
//
// Hot path: no allocation. Every read is behind a check of b's length.
func (p *port) honest(t frame.EtherType, b []byte) bool {
	for range maxNesting {
		switch {
		case t == frame.EtherTypeCTag || t == frame.EtherTypeSTag:
			if len(b) < frame.TagLen {
				return false
			}
			t, b = frame.EtherType(binary.BigEndian.Uint16(b[2:])), b[frame.TagLen:]
		case t < 0x0600:
			// IEEE 802.2 LLC: only SNAP with an EtherType carries IP or ARP.
			if len(b) < 8 || b[0] != 0xaa || b[1] != 0xaa {
				return true
			}
			t, b = frame.EtherType(binary.BigEndian.Uint16(b[6:])), b[8:]
			if t < 0x0600 {
				return true
			}
		case t == frame.EtherTypeARP:
			return p.honestARP(b)
		case t == frame.EtherTypeIPv4:
			return !p.sourced || len(b) >= 20 && slices.Contains(p.v4, binary.BigEndian.Uint32(b[12:]))
		case t == frame.EtherTypeIPv6:
			return !p.sourced || p.honestIPv6(b)
		default:
			return true
		}
	}
	return false
}

// honestARP checks the sender's addresses (RFC 826). A probe, whose sender's IP
// address is zero, claims none (RFC 5227 section 2.1.1).
func (p *port) honestARP(b []byte) bool {
	if len(b) < 28 || binary.BigEndian.Uint16(b[2:]) != uint16(frame.EtherTypeIPv4) || b[4] != 6 || b[5] != 4 {
		return false
	}
	if !p.pin.IsZero() && frame.MAC(b[8:14]) != p.pin {
		return false
	}
	ip := binary.BigEndian.Uint32(b[14:])
	return !p.sourced || ip == 0 || slices.Contains(p.v4, ip)
}

// honestIPv6 checks the source, and the target of those neighbour discovery
// messages that claim it: advertisements, and solicitations of a station that
// has no address yet (RFC 4861 sections 4.3 and 4.4, RFC 4862 section 5.4).
func (p *port) honestIPv6(b []byte) bool {
	if len(b) < 40 {
		return false
	}
	src := [16]byte(b[8:24])
	unset := src == [16]byte{}
	if !unset && !slices.Contains(p.v6, src) {
		return false
	}
	next, b := b[6], b[40:]
	for range maxNesting {
		switch next {
		case protoHopByHop, protoRouting, protoDstOpts:
			if len(b) < 8 {
				return false
			}
			n := 8 + int(b[1])*8
			if len(b) < n {
				return false
			}
			next, b = b[0], b[n:]
		case protoFragment:
			if len(b) < 8 {
				return false
			}
			if binary.BigEndian.Uint16(b[2:])&0xfff8 != 0 {
				return !unset // a later fragment: its first one was checked
			}
			next, b = b[0], b[8:]
		case protoICMPv6:
			return p.honestND(unset, b)
		default:
			return !unset
		}
	}
	return false
}

func (p *port) honestND(unset bool, b []byte) bool {
	if len(b) < 4 {
		return false
	}
	switch b[0] {
	case icmpNeighSol:
		return !unset || len(b) >= 24 && slices.Contains(p.v6, [16]byte(b[8:24]))
	case icmpNeighAdv:
		return !unset && len(b) >= 24 && slices.Contains(p.v6, [16]byte(b[8:24]))
	case icmpRouterSol, icmpMLDReport, icmpMLDv2Report:
		return true
	}
	return !unset
}
