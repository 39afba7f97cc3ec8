package trace

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Print is what a packet is known by at several places when nobody has marked
// it: a hash of what no bridge, tunnel or router changes.
type Print uint64

// printLen octets behind the headers go into a Print.
const printLen = 16

var printSeed = maphash.MakeSeed()

// Fingerprint reads an unmarked frame. Of the Sight, TTL and the addresses of a
// packet that isn't IP are zero. It reports false for what has no Ethernet
// header.
func Fingerprint(b []byte) (p Print, s Sight, ok bool) {
	h, ok := frame.Parse(b)
	if !ok {
		return 0, s, false
	}
	s.Src, s.Dst, s.Tag = h.Src, h.Dst, h.Tag
	p, ok = printPacket(b[h.Len:], h.EtherType, &s)
	return p, s, ok
}

// FingerprintIP is Fingerprint for a packet without an Ethernet header.
func FingerprintIP(b []byte) (p Print, s Sight, ok bool) {
	t := frame.EtherTypeIPv4
	if len(b) > 0 && b[0]>>4 == 6 {
		t = frame.EtherTypeIPv6
	}
	p, ok = printPacket(b, t, &s)
	return p, s, ok
}

func printPacket(b []byte, t frame.EtherType, s *Sight) (Print, bool) {
	var hash maphash.Hash
	hash.SetSeed(printSeed)
	m := Matcher{v6: t == frame.EtherTypeIPv6}
	var p packet
	if t != frame.EtherTypeIPv4 && t != frame.EtherTypeIPv6 || !m.parse(b, &p) {
		_, _ = hash.Write(b[:min(len(b), 4*printLen)]) // never fails
		return Print(hash.Sum64()), true
	}
	n := m.addrLen()
	s.TTL = p.ttl
	s.From, _ = netip.AddrFromSlice(p.addrs[:n])
	s.To, _ = netip.AddrFromSlice(p.addrs[n:])
	_, _ = hash.Write(p.addrs)
	var fixed [7]byte
	binary.BigEndian.PutUint32(fixed[:], p.id)
	fixed[4] = p.proto
	length := b[2:4]
	if m.v6 {
		length = b[4:6]
	}
	copy(fixed[5:], length)
	_, _ = hash.Write(fixed[:])
	// The checksum of layer 4 may be filled in on the way.
	switch l4 := p.l4; {
	case p.proto == protoTCP && len(l4) >= tcpLen:
		_, _ = hash.Write(l4[:16])
		_, _ = hash.Write(l4[18:min(len(l4), 18+printLen)])
	case p.proto == protoUDP && len(l4) >= udpLen:
		_, _ = hash.Write(l4[:6])
		_, _ = hash.Write(l4[8:min(len(l4), 8+printLen)])
	case len(l4) >= echoLen:
		_, _ = hash.Write(l4[:2])
		_, _ = hash.Write(l4[4:min(len(l4), 4+printLen)])
	}
	return Print(hash.Sum64()), true
}
