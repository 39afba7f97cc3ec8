package offload

import (
	"bytes"
	"encoding/binary"

	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	// slots is how many flows are coalesced side by side. Four clients at once
	// are common; looking through eight slots costs nothing measurable.
	slots = 8
	// maxMerge is how many frames make one: what every kernel with UDP_SEGMENT
	// takes (UDP_MAX_SEGMENTS was 64 before it became 128).
	maxMerge = 64
	// maxL3 is the longest IP packet whose length field tells the truth.
	maxL3 = 65535
	// minFrame is the shortest Ethernet frame without FCS (IEEE 802.3 clause
	// 3.2.7); what is behind the IP packet of such a frame is padding.
	minFrame = 60
)

// How the identification moves from one datagram of a group to the next.
const (
	idUnknown = iota
	idRises
	idStays
)

// group is a run of frames of one flow that will leave as one. Its first frame
// stands in out from the beginning, so that a group of one needs nothing more.
type group struct {
	key         uint64
	p           packet // of the first frame
	first, last uint16 // in in; Egress.next links them
	out         uint16 // where it will leave
	n           uint16
	size, total int    // payload octets of the first frame, of all
	seq         uint32 // sequence number wanted next
	id          uint16 // of the last frame
	idMove      uint8
	sound       bool // the first frame's checksum is known to be good
}

// flowKey condenses what tells flows apart. Equal keys of different flows
// cost a chance to coalesce, nothing else.
func flowKey(b []byte, p *packet) uint64 {
	const spread = 0x9e3779b97f4a7c15 // 2^64 / golden ratio
	k := uint64(binary.LittleEndian.Uint32(b[p.l4:]))<<8 | uint64(p.proto)
	for a := p.addrs(b); len(a) >= 8; a = a[8:] {
		k = (k ^ binary.LittleEndian.Uint64(a)) * spread
		k ^= k >> 29
	}
	return k
}

// join adds plain frame i of in to its flow's group, or passes it on behind
// whatever is open of its flow and opens a group with it. It reports false when
// out is full.
//
// Hot path: no allocation.
func (e *Egress) join(in []frame.Frame, i int, can frame.Offloads, out *frame.Batch) bool {
	f := &in[i]
	var p packet
	if len(f.Frags) != 0 || !p.parse(f.Data) {
		// Its flow cannot be told: fragments have no ports. It overtakes nobody.
		for e.live > 0 {
			e.seal(in, e.live-1, out)
		}
		return pass(f, out)
	}
	key := flowKey(f.Data, &p)
	at := e.find(key)
	fit := can.Has(p.feature()) && p.mergeable(f.Data)
	if at >= 0 && fit {
		g := &e.groups[at]
		if first := &in[g.first]; first.Pop == f.Pop && first.Push == f.Push && g.takes(first.Data, f.Data, &p) {
			switch {
			case !p.sound(f):
				fit = false
			case g.sound || g.p.sound(first):
				e.add(in, at, i, &p, out)
				return true
			}
		}
	}
	if full(out) {
		return false
	}
	if at >= 0 {
		e.seal(in, at, out)
	}
	if fit && !endsRun(f.Data, &p) {
		e.open(in, i, key, &p, out)
	}
	return pass(f, out)
}

// find returns the open group with key, or -1.
func (e *Egress) find(key uint64) int {
	for i := range e.groups[:e.live] {
		if e.groups[i].key == key {
			return i
		}
	}
	return -1
}

// closeFlow seals the group of the flow that packet p of b belongs to.
func (e *Egress) closeFlow(in []frame.Frame, b []byte, p *packet, out *frame.Batch) {
	if at := e.find(flowKey(b, p)); at >= 0 {
		e.seal(in, at, out)
	}
}

// open starts a group with frame i, which the caller passes on next.
func (e *Egress) open(in []frame.Frame, i int, key uint64, p *packet, out *frame.Batch) {
	if e.live == slots {
		e.evict = (e.evict + 1) % slots
		e.seal(in, e.evict, out)
	}
	g := &e.groups[e.live]
	*g = newGroup(in[i].Data, p)
	g.key, g.first, g.last, g.out = key, uint16(i), uint16(i), uint16(len(out.Frames))
	e.live++
}

// newGroup is a group of frame b alone, whose packet is p.
func newGroup(b []byte, p *packet) group {
	n := p.end - p.pay
	g := group{p: *p, n: 1, size: n, total: n, id: binary.BigEndian.Uint16(b[p.l3+4:])}
	if p.proto == protoTCP {
		g.seq = binary.BigEndian.Uint32(b[p.l4+4:]) + uint32(n)
	}
	return g
}

// add appends frame i to the group at, and seals the group if nothing can follow.
func (e *Egress) add(in []frame.Frame, at, i int, p *packet, out *frame.Batch) {
	g := &e.groups[at]
	b := in[i].Data
	e.next[g.last] = uint16(i)
	g.last = uint16(i)
	e.held[g.out].last = g.last
	if !g.grow(b, p) {
		e.seal(in, at, out)
	}
}

// grow counts frame b, whose packet is p, as g's last one, and reports whether
// another may follow.
func (g *group) grow(b []byte, p *packet) bool {
	n := p.end - p.pay
	if !p.v6 {
		id := binary.BigEndian.Uint16(b[p.l3+4:])
		g.idMove = idRises
		if id == g.id {
			g.idMove = idStays
		}
		g.id = id
	}
	g.n++
	g.total += n
	g.seq += uint32(n)
	g.sound = true
	return n == g.size && g.n < maxMerge && !endsRun(b, p)
}

// mergeable reports whether frame b, whose packet is p, can be part of a group
// at all.
func (p *packet) mergeable(b []byte) bool {
	if !p.plain || p.end == p.pay {
		return false
	}
	if tags := p.l3 - frame.HeaderLen; p.end != len(b) && len(b) > minFrame+tags {
		return false // a trailer, which coalescing would lose
	}
	if !p.v6 {
		ip := b[p.l3:p.l4]
		if ip[6]&0x80 != 0 || binary.BigEndian.Uint16(ip[10:]) == 0xffff || Fold(Sum(ip, 0)) != 0xffff {
			return false
		}
	}
	if p.proto == protoTCP {
		return b[p.l4+13]&^tcpPSH == tcpACK
	}
	return int(binary.BigEndian.Uint16(b[p.l4+4:])) == p.end-p.l4
}

// endsRun reports whether nothing may be coalesced behind a segment: PSH is
// kept on the last only.
func endsRun(b []byte, p *packet) bool {
	return p.proto == protoTCP && b[p.l4+13]&tcpPSH != 0
}

// takes reports whether frame b, whose packet is p, continues g, whose first frame
// has the headers a: everything that cutting copies is equal, and everything that
// cutting numbers goes on.
func (g *group) takes(a, b []byte, p *packet) bool {
	q, n := &g.p, p.end-p.pay
	if p.l3 != q.l3 || p.l4 != q.l4 || p.pay != q.pay || p.proto != q.proto || p.v6 != q.v6 ||
		n > g.size || p.pay-p.l3+g.total+n > maxL3 || !bytes.Equal(a[:p.l3], b[:p.l3]) {
		return false
	}
	if p.v6 {
		// Version, class, flow label; next header, hop limit, addresses.
		if !bytes.Equal(a[p.l3:p.l3+4], b[p.l3:p.l3+4]) || !bytes.Equal(a[p.l3+6:p.l4], b[p.l3+6:p.l4]) {
			return false
		}
	} else if !g.takesIPv4(a[p.l3:p.l4], b[p.l3:p.l4]) {
		return false
	}
	if !bytes.Equal(a[p.l4:p.l4+4], b[p.l4:p.l4+4]) {
		return false
	}
	if p.proto == protoUDP {
		return true
	}
	// Acknowledgement number and offset; window; urgent pointer and options.
	return binary.BigEndian.Uint32(b[p.l4+4:]) == g.seq &&
		bytes.Equal(a[p.l4+8:p.l4+13], b[p.l4+8:p.l4+13]) &&
		bytes.Equal(a[p.l4+14:p.l4+16], b[p.l4+14:p.l4+16]) &&
		bytes.Equal(a[p.l4+18:p.pay], b[p.l4+18:p.pay])
}

// takesIPv4 is takes for the IPv4 headers a, of the first frame, and b.
func (g *group) takesIPv4(a, b []byte) bool {
	// Version, length, ToS; flags and offset, TTL, protocol; addresses.
	if !bytes.Equal(a[:2], b[:2]) || !bytes.Equal(a[6:10], b[6:10]) || !bytes.Equal(a[12:], b[12:]) {
		return false
	}
	const dontFragment = 0x40
	switch id := binary.BigEndian.Uint16(b[4:]); id {
	case g.id + 1:
		return g.idMove != idStays
	case g.id:
		return g.idMove != idRises && b[6]&dontFragment != 0
	}
	return false
}

// sound reports whether the checksum of f, whose packet is p, may be made anew:
// it is partial, or the kernel vouches for it, or it is right. One that cutting
// would write in its other form of zero is left alone, as is UDP without any.
func (p *packet) sound(f *frame.Frame) bool {
	if f.GSO.NeedsCsum {
		field := binary.BigEndian.Uint16(f.Data[p.l4+p.csumOffset():])
		return p.partialHere(&f.GSO) && field == Fold(p.pseudo(f.Data, p.end-p.pay))
	}
	return p.intact(f.Data, f.GSO.Valid)
}

// intact is sound for a complete checksum, which the kernel vouches for or not.
func (p *packet) intact(b []byte, vouched bool) bool {
	field := binary.BigEndian.Uint16(b[p.l4+p.csumOffset():])
	if p.proto == protoTCP && field == 0xffff || p.proto == protoUDP && field == 0 {
		return false
	}
	return vouched || Fold(Sum(b[p.l4:p.end], p.pseudo(b, p.end-p.pay))) == 0xffff
}

// seal finishes the group at: more than one frame become a GSO frame in out.
func (e *Egress) seal(in []frame.Frame, at int, out *frame.Batch) {
	g := &e.groups[at]
	if g.n > 1 {
		e.merge(in, g, &out.Frames[g.out])
	}
	e.live--
	e.groups[at] = e.groups[e.live]
}

// merge turns f, a copy of the first frame of g, into the GSO frame for all of g.
func (e *Egress) merge(in []frame.Frame, g *group, f *frame.Frame) {
	p := &g.p
	from := len(e.frags)
	f.Copies = 0
	for i, k := g.first, g.n; ; i = e.next[i] {
		// All headers are equally long; the last payload may be shorter than the
		// rest, and a padded frame than its octets.
		n := g.size
		if k == 1 {
			n = g.total - int(g.n-1)*g.size
		}
		e.frags = append(e.frags, in[i].Data[p.pay:p.pay+n])
		f.Copies += in[i].Copies
		if k--; k == 0 {
			break
		}
	}
	h := e.header(f.Data[:p.pay])
	if p.proto == protoTCP {
		h[p.l4+13] = in[g.last].Data[p.l4+13]
	}
	p.setLengths(h, g.total)
	p.setPartial(h, g.total)
	f.Data, f.Frags = h, e.frags[from:len(e.frags):len(e.frags)]
	f.GSO = p.gso(g.size)
	e.Stats.Coalesced += uint64(g.n)
}
