package tunnel

import (
	"encoding/binary"
	"hash/maphash"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	// complaintHead is how much of a packet is kept to be quoted: what fits an
	// ICMPv6 error of the least MTU (RFC 4443 clause 2.4 c).
	complaintHead = 1280 - ipv6Len - 8
	// quoteIPv4 keeps an ICMP error within 576 octets (RFC 1812 clause 4.3.2.3).
	quoteIPv4 = 576 - ipv4Len - 8
	// complaintsPerTick bounds the errors between two ticks to the stations of one
	// share, and shares is how many there are: who sends much that doesn't fit
	// silences few beside himself.
	complaintsPerTick = 20
	shares            = 64
	// complaintMark is how much of a packet tells it from others: IP and transport
	// headers.
	complaintMark = 64
	icmpTTL       = 64
)

// complaint is a packet that didn't fit, for its sender to hear of.
type complaint struct {
	peer *Peer
	net  *network
	mtu  int
	n    int
	head [frame.HeaderLen + complaintHead]byte // untagged
}

// share is what some stations may hear between two ticks.
type share struct {
	tick atomic.Uint32                    // that the rest is of
	used atomic.Int32                     // of told
	told [complaintsPerTick]atomic.Uint64 // the packets, by their marks
}

// take reports whether the sender of a packet is to hear of it in this tick: once,
// however many peers it was for. Two loops at once may tell once more.
//
// Hot path: no allocation.
func (s *share) take(tick uint32, mark uint64) bool {
	if was := s.tick.Load(); was != tick && s.tick.CompareAndSwap(was, tick) {
		s.used.Store(0)
	}
	used := s.used.Load()
	if used >= complaintsPerTick {
		return false
	}
	for i := range used {
		if s.told[i].Load() == mark {
			return false
		}
	}
	if used = s.used.Add(1); used > complaintsPerTick {
		return false
	}
	s.told[used-1].Store(mark)
	return true
}

// station is a hash of a network's station; its share is by its remainder.
func (t *Tunnel) station(v frame.VID, mac []byte) uint64 {
	return maphash.Bytes(t.seed, mac) ^ uint64(v)*spread
}

// tooBig notes that frame f, whose octets go on at after behind the addresses, is
// longer than limit allows on the way to p. Beyond what a tick allows it only
// costs the sender time.
//
// Hot path: no allocation.
func (t *Tunnel) tooBig(p *Peer, n *network, f *frame.Frame, after, limit int) {
	macs, b := f.Data[:12], f.Data[after:]
	if !answerable(macs, b) {
		return
	}
	who := t.station(n.VID, macs[6:])
	what := maphash.Bytes(t.seed, b[:min(len(b), complaintMark)]) ^ maphash.Bytes(t.seed, macs[:6])*3 ^ who*5
	if !t.shares[who%shares].take(t.ticked.Load(), what) {
		return
	}
	select {
	case i := <-t.spare:
		t.complaints[i].quote(p, n, f, after, limit)
		t.complained <- i
	default:
	}
}

// answerable reports whether an ICMP error is due about what a frame carries (RFC
// 1122 clause 3.2.2, RFC 4443 clause 2.4 e): a packet from one station to one
// that no router may cut, which is no such error itself. macs are the frame's
// addresses, b what follows them.
//
// Hot path: no allocation. Every read is behind a check of b's length.
func answerable(macs, b []byte) bool {
	if (macs[0]|macs[6])&1 != 0 {
		return false
	}
	switch t, p := frame.EtherType(binary.BigEndian.Uint16(b)), b[2:]; {
	case t == frame.EtherTypeIPv4 && len(p) >= ipv4Len:
		hdr := int(p[0]&15) * 4
		return p[6]&dontFragment != 0 && binary.BigEndian.Uint16(p[6:])&0x1fff == 0 && hdr >= ipv4Len && len(p) >= hdr+8 &&
			!unspeakable(netip.AddrFrom4([4]byte(p[12:]))) && !unspeakable(netip.AddrFrom4([4]byte(p[16:]))) &&
			(p[9] != protoICMP || !icmpv4Error(p[hdr]))
	case t == frame.EtherTypeIPv6 && len(p) >= ipv6Len+8:
		return !unspeakable(netip.AddrFrom16([16]byte(p[8:]))) && !unspeakable(netip.AddrFrom16([16]byte(p[24:]))) &&
			(p[6] != protoICMPv6 || p[ipv6Len] >= 128)
	}
	return false
}

// quote makes c be about frame f.
//
// Hot path: no allocation.
func (c *complaint) quote(p *Peer, n *network, f *frame.Frame, after, limit int) {
	c.peer, c.net, c.mtu = p, n, limit
	c.n = copy(c.head[:], f.Data[:12])
	c.n += copy(c.head[c.n:], f.Data[after:])
	for _, part := range f.Frags {
		c.n += copy(c.head[c.n:], part)
	}
}

// answerTooBig makes the error that the sender of c's packet, which is answerable,
// is to hear, as an Ethernet frame from the station that it wrote to; nil when it
// can't be made. It comes from the network's own address, or else from the
// packet's destination, as the kernel's VXLAN does.
func answerTooBig(c *complaint) []byte {
	b := c.head[:c.n]
	var packet []byte
	if frame.EtherType(binary.BigEndian.Uint16(b[12:])) == frame.EtherTypeIPv4 {
		packet = fragNeeded(b[frame.HeaderLen:], c.net.own[0], c.mtu)
	} else {
		packet = packetTooBig(b[frame.HeaderLen:], c.net.own[1], c.mtu)
	}
	if packet == nil {
		return nil
	}
	out := make([]byte, 0, frame.HeaderLen+len(packet))
	out = append(out, b[6:12]...)
	out = append(out, b[:6]...)
	out = append(out, b[12:14]...)
	return append(out, packet...)
}

// fragNeeded is the answer to IPv4 packet p.
func fragNeeded(p []byte, own netip.Addr, mtu int) []byte {
	src, dst := netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
	if !own.IsValid() {
		own = dst
	}
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(mtu)) // RFC 1191 clause 4
	body = append(body, p[:min(len(p), quoteIPv4)]...)
	m := icmp.Message{Type: ipv4.ICMPTypeDestinationUnreachable, Code: 4, Body: &icmp.RawBody{Data: body}}
	payload, err := m.Marshal(nil)
	if err != nil {
		return nil
	}
	h := ipv4.Header{
		Version: 4, Len: ipv4Len, TOS: 0xc0, TotalLen: ipv4Len + len(payload), TTL: icmpTTL,
		Protocol: protoICMP, Src: own.AsSlice(), Dst: src.AsSlice(),
	}
	b, err := h.Marshal()
	if err != nil {
		return nil
	}
	binary.BigEndian.PutUint16(b[10:], ^offload.Fold(offload.Sum(b, 0)))
	return append(b, payload...)
}

// packetTooBig is the answer to IPv6 packet p.
func packetTooBig(p []byte, own netip.Addr, mtu int) []byte {
	src, dst := netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
	if !own.IsValid() {
		own = dst
	}
	m := icmp.Message{Type: ipv6.ICMPTypePacketTooBig, Body: &icmp.PacketTooBig{MTU: mtu, Data: p[:min(len(p), complaintHead)]}}
	payload, err := m.Marshal(icmp.IPv6PseudoHeader(net.IP(own.AsSlice()), net.IP(src.AsSlice())))
	if err != nil {
		return nil
	}
	h := make([]byte, ipv6Len, ipv6Len+len(payload))
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	h[6], h[7] = protoICMPv6, icmpTTL
	copy(h[8:], own.AsSlice())
	copy(h[24:], src.AsSlice())
	return append(h, payload...)
}

// unspeakable reports whether no error is sent from or to a.
func unspeakable(a netip.Addr) bool {
	return a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// icmpv4Error reports whether an ICMP type is an error, which is never answered.
func icmpv4Error(t uint8) bool { return t == 3 || t == 4 || t == 5 || t == 11 || t == 12 }
