package offload

import (
	"encoding/binary"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// window is how many frames one Plan takes at most, and with that how many
// payloads its gather lists refer to.
const window = 4 * frame.BatchLen

// Stats counts what an Egress has done. The numbers only grow.
type Stats struct {
	Coalesced uint64 // frames that left as part of a coalesced one
	Segmented uint64 // GSO frames that were cut
	Refused   uint64 // frames that could not be made fit for the port
}

// Egress prepares frames for transmission. It holds the memory for new headers
// and gather lists, about 40 KiB, and belongs to one loop, which uses it for
// all of its ports in turn.
type Egress struct {
	Stats Stats

	arena []byte   // headers; room for BatchLen of them, the most that a Plan makes
	frags [][]byte // payloads; a segment has one, a coalesced frame one for each frame in it

	// cut is how much payload earlier Plans have cut of the frame at cutOf.
	cut   int
	cutOf *byte

	groups [slots]group
	live   int // groups[:live] are open
	evict  int // the next to make room
	next   [window]uint16
	held   [frame.BatchLen]span // what each frame of out stands for
}

// span is some frames of in: those from first to last along Egress.next.
type span struct{ first, last uint16 }

// NewEgress returns an Egress with its memory.
func NewEgress() *Egress {
	return &Egress{
		arena: make([]byte, 0, frame.BatchLen*maxHeader),
		frags: make([][]byte, 0, window+frame.BatchLen),
	}
}

// Plan appends to out, which the caller has reset, what the driver of one port
// is to transmit for the frames of in, and returns how many frames of in that
// covers. The caller transmits and resets out, and calls Plan with the rest
// until nothing is left. 0 is a valid answer while a frame of very many
// segments is under way: the same frame must then come first again.
//
//	n := e.Plan(in, can, coalesce, out)   →   Transmit(out), out.Reset(), in = in[n:]
//
// A GSO frame of a kind that can lacks is cut, a partial checksum is completed
// when can lacks OffloadChecksum, and, if coalesce is set, runs of one flow are
// coalesced into GSO frames that can allows. Pop and Push are kept. Copies of
// what comes out add up to Copies of what went in. Order within a flow stays;
// across flows it may change. A frame that cannot be cut or completed is marked
// Refused in in, counted, and left out; for what the driver refuses, Fail marks
// the frames that are meant. Copies of one frame that follow each other are
// completed once and share Data and Frags.
//
// The frames of in have no Frags and must not be changed before out has been
// transmitted; out is good until the next Plan.
//
// Hot path: no allocation.
func (e *Egress) Plan(in []frame.Frame, can frame.Offloads, coalesce bool, out *frame.Batch) int {
	e.arena, e.frags = e.arena[:0], e.frags[:0]
	e.live, e.evict = 0, 0
	in = in[:min(len(in), window)]
	coalesce = coalesce && len(in) > 1 && can.Has(frame.OffloadChecksum) &&
		can&(frame.OffloadTSO4|frame.OffloadTSO6|frame.OffloadUSO4|frame.OffloadUSO6) != 0
	if len(in) == 0 || len(in[0].Data) == 0 || &in[0].Data[0] != e.cutOf {
		e.cut = 0
	}
	i := 0
	for i < len(in) {
		f, made := &in[i], len(out.Frames)
		var fits bool
		switch {
		case f.GSO.Type != frame.GSONone:
			fits = e.planGSO(in, f, can, coalesce, out)
		case coalesce:
			fits = e.join(in, i, can, out)
		case f.GSO.NeedsCsum && !can.Has(frame.OffloadChecksum):
			fits = e.complete(in, i, out)
		default:
			fits = pass(f, out)
		}
		for ; made < len(out.Frames); made++ {
			e.held[made] = span{uint16(i), uint16(i)}
		}
		if !fits {
			break
		}
		i++
	}
	for e.live > 0 {
		e.seal(in, e.live-1, out)
	}
	return i
}

// Fail marks the frames of in that frame k of out stands for as Refused because
// of why, both being those of the last Plan. A frame that is marked already, for
// a segment before this one, stays as it is: a cut frame has left when all of its
// segments have.
//
// Hot path: no allocation.
func (e *Egress) Fail(in []frame.Frame, k int, why frame.Reason) {
	for i, last := e.held[k].first, e.held[k].last; ; i = e.next[i] {
		if f := &in[i]; !f.Refused {
			f.Refused, f.Why = true, why
		}
		if i == last {
			return
		}
	}
}

// full reports whether out takes no further frame, or the arena no header.
func full(out *frame.Batch) bool {
	return len(out.Frames) >= min(cap(out.Frames), frame.BatchLen)
}

// pass hands f to the driver as it is. It reports false when out is full.
func pass(f *frame.Frame, out *frame.Batch) bool {
	if full(out) {
		return false
	}
	out.Frames = append(out.Frames, *f)
	return true
}

// refuse leaves f out of the plan.
func (e *Egress) refuse(f *frame.Frame) {
	f.Refused, f.Why = true, frame.TransmitRefused
	e.Stats.Refused++
}

// header copies b into the arena, where it may be changed.
func (e *Egress) header(b []byte) []byte {
	n := len(e.arena)
	e.arena = append(e.arena, b...)
	return e.arena[n:len(e.arena):len(e.arena)]
}

// payload makes a gather list of the one slice b, and of none when b is empty.
func (e *Egress) payload(b []byte) [][]byte {
	if len(b) == 0 {
		return nil
	}
	n := len(e.frags)
	e.frags = append(e.frags, b)
	return e.frags[n : n+1 : n+1]
}

// carries reports whether a port that has can takes a GSO frame with metadata
// g whole. UDP is told apart by the packet.
func (p *packet) carries(can frame.Offloads, g *frame.GSO) bool {
	return can.Has(p.feature()) && (!g.ECN || can.Has(frame.OffloadECN))
}

// planGSO passes the GSO frame f whole or cuts it. It reports false when out
// became full before the last segment.
func (e *Egress) planGSO(in []frame.Frame, f *frame.Frame, can frame.Offloads, coalesce bool, out *frame.Batch) bool {
	if full(out) {
		return false
	}
	var p packet
	if err := p.check(f); err != nil {
		e.cut = 0
		e.refuse(f)
		return true
	}
	if coalesce {
		e.closeFlow(in, f.Data, &p, out)
	}
	if p.carries(can, &f.GSO) {
		return pass(f, out)
	}
	return e.segment(f, &p, can.Has(frame.OffloadChecksum), out)
}

// segment cuts f, whose packet is p, into frames of at most GSO.Size octets of
// payload. Their checksums are left partial if partial is set. It reports false
// when out became full, and goes on from there when it is called again.
//
// Hot path: no allocation.
func (e *Egress) segment(f *frame.Frame, p *packet, partial bool, out *frame.Batch) bool {
	size := int(f.GSO.Size)
	payload := f.Data[p.pay:p.end]
	for e.cut < len(payload) {
		if full(out) {
			e.cutOf = &f.Data[0]
			return false
		}
		from, to := e.cut, min(e.cut+size, len(payload))
		s := frame.Frame{Push: f.Push, Pop: f.Pop}
		if from == 0 {
			s.Copies = f.Copies
		}
		h := e.header(f.Data[:p.pay])
		p.number(h, from, size, to == len(payload))
		p.setLengths(h, to-from)
		if partial {
			p.setPartial(h, to-from)
			s.GSO = frame.GSO{NeedsCsum: true, CsumStart: f.GSO.CsumStart, CsumOffset: f.GSO.CsumOffset}
		} else {
			l4, field := h[p.l4:], p.csumOffset()
			l4[field], l4[field+1] = 0, 0
			putChecksum(l4, field, Sum(payload[from:to], Sum(l4, p.pseudo(h, to-from))))
		}
		s.Data, s.Frags = h, e.payload(payload[from:to])
		out.Frames = append(out.Frames, s)
		e.cut = to
	}
	e.cut = 0
	e.Stats.Segmented++
	return true
}

// number makes h the header of the segment that begins at octet from of the
// payload: identification, sequence number and flags.
func (p *packet) number(h []byte, from, size int, last bool) {
	if !p.v6 {
		id := h[p.l3+4 : p.l3+6]
		binary.BigEndian.PutUint16(id, binary.BigEndian.Uint16(id)+uint16(from/size))
	}
	if p.proto != protoTCP {
		return
	}
	seq := h[p.l4+4 : p.l4+8]
	binary.BigEndian.PutUint32(seq, binary.BigEndian.Uint32(seq)+uint32(from))
	if !last {
		h[p.l4+13] &^= tcpFIN | tcpPSH
	}
	if from > 0 {
		h[p.l4+13] &^= tcpCWR // RFC 3168 section 6.1.2: said once
	}
}

// complete fills in the partial checksum of plain frame i of in, in a copy of its
// headers that it shares with the frame before when both are copies of one. It
// reports false when out is full.
//
// Hot path: no allocation.
func (e *Egress) complete(in []frame.Frame, i int, out *frame.Batch) bool {
	if full(out) {
		return false
	}
	f := &in[i]
	if len(f.Frags) != 0 || Check(f) != nil {
		e.refuse(f)
		return true
	}
	s := *f
	s.GSO = frame.GSO{}
	if i > 0 && !in[i-1].Refused && alike(&in[i-1], f) {
		last := &out.Frames[len(out.Frames)-1]
		s.Data, s.Frags = last.Data, last.Frags
		out.Frames = append(out.Frames, s)
		return true
	}
	start, offset := int(f.GSO.CsumStart), int(f.GSO.CsumOffset)
	hdr, end := start+offset+2, len(f.Data)
	var p packet
	if p.parse(f.Data) && p.partialHere(&f.GSO) {
		hdr, end = p.pay, p.end // padding is not summed
	}
	h := e.header(f.Data[:hdr])
	putChecksum(h[start:], offset, Sum(f.Data[start:end], 0))
	s.Data, s.Frags = h, e.payload(f.Data[hdr:])
	out.Frames = append(out.Frames, s)
	return true
}

// alike reports whether f and g, which have no Frags, are copies of one frame, and
// differ in Pop and Push at most. g has octets.
func alike(f, g *frame.Frame) bool {
	return len(f.Data) == len(g.Data) && &f.Data[0] == &g.Data[0] && f.GSO == g.GSO
}
