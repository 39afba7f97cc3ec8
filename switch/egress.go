package vswitch

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// maxOut is how many ports one batch may have copies waiting for. A flood to
// more ports is sent in pieces. 64 lists are 300 KiB.
const maxOut = 64

// outlist is a run of copies for one port, in the order they were decided: one
// at most for each frame of a batch.
type outlist struct {
	port   *port
	frames []frame.Frame
	bytes  uint64
	log    []int32 // for each copy its place in loop.copies, when observed
}

// place is where a copy stands among some outlists.
type place struct{ list, at uint8 }

// carry says how the copy of f that leaves by p changes on the way, or why it
// must not leave. Tagged is how p is a member of n.
//
// Hot path: no allocation.
func (p *port) carry(n *network, tagged bool, f *frame.Frame, h *frame.Header) (pop bool, push frame.Tag, why frame.Reason) {
	switch {
	case !tagged:
		pop = h.Tag.Present()
	case !h.Tag.Present():
		push = frame.MakeTag(n.vid, 0, false)
	case h.Tag.VID() != n.vid: // a priority tag, which gets its VID and keeps the rest
		pop, push = true, h.Tag.WithVID(n.vid)
	}
	switch mtu := p.limit(n); {
	case p.line == nil || p.line.dead.Load():
		why = frame.EgressDown
	case p.state.fence.cut.Load():
		why = frame.Loop
	case mtu != 0 && f.L3Len(h.Len) > mtu:
		why = frame.MTUExceeded
	}
	return pop, push, why
}

// seen is the tag that a copy has behind p's queue.
func (p *port) seen(t frame.Tag) frame.Tag {
	if p.bare {
		return frame.Tag{}
	}
	return t
}

// send puts one copy of frame i on the list of out.
//
// Hot path: no allocation.
func (l *loop) send(n *network, out *port, tagged bool, f *frame.Frame, h *frame.Header) {
	pop, push, why := out.carry(n, tagged, f, h)
	l.tally.decided++
	if l.observed != nil {
		l.copies = append(l.copies, Copy{Port: out.id, Tag: out.seen(wireTag(h, pop, push)), Refused: why})
	}
	if why != frame.ReasonNone {
		l.refuse(out, why)
		return
	}
	at := l.slot[out.id]
	if at == 0 {
		if l.outs == maxOut {
			l.flush()
		}
		o := &l.out[l.outs]
		o.port = out
		l.outs++
		at = uint8(l.outs)
		l.slot[out.id] = at
	}
	o := &l.out[at-1]
	o.frames = append(o.frames, frame.Frame{Data: f.Data, GSO: f.GSO, Pop: pop, Push: push, Copies: 1})
	o.bytes += uint64(o.frames[len(o.frames)-1].Len())
	if l.observed != nil {
		o.log = append(o.log, int32(len(l.copies)-1))
	}
}

// wireTag is the tag that a copy carries.
func wireTag(h *frame.Header, pop bool, push frame.Tag) frame.Tag {
	if push.Present() {
		return push
	}
	if pop {
		return frame.Tag{}
	}
	return h.Tag
}

// flush transmits every list, in the order in which the ports were first met.
//
// Hot path: no allocation.
func (l *loop) flush() {
	for i := 0; i < l.outs; {
		n := fanned(l.out[i:l.outs])
		if n > 1 {
			l.transmitFan(l.out[i : i+n])
		} else {
			l.transmit(&l.out[i])
		}
		i += n
	}
	for i := range l.out[:l.outs] {
		o := &l.out[i]
		l.slot[o.port.id] = 0
		clear(o.frames)
		o.frames, o.bytes, o.port = o.frames[:0], 0, nil
		if l.observed != nil {
			o.log = o.log[:0]
		}
	}
	l.outs = 0
}

// transmit plans the frames of o for its port and hands them to its queue.
//
// Hot path: no allocation.
func (l *loop) transmit(o *outlist) {
	p, unfit, refused := o.port, l.egress.Stats.Refused, false
	for in := o.frames; len(in) > 0; {
		n := l.egress.Plan(in, p.can, p.coalesce, l.wire)
		if l.wire.Len() > 0 {
			sent, err := p.queue.Transmit(l.wire)
			if sent < l.wire.Len() {
				refused = true
				l.fail(in, err)
			}
			l.cells.writes.add(uint64(l.wire.Len()))
			l.wire.Reset()
		}
		in = in[n:]
	}
	l.transmitted(o, refused || l.egress.Stats.Refused != unfit)
}

// fail marks the frames of in, of which Plan made l.wire, that did not leave as a
// whole, when Transmit returned err.
//
// Hot path: no allocation.
func (l *loop) fail(in []frame.Frame, err error) {
	for k := range l.wire.Frames {
		if why := refusal(&l.wire.Frames[k], err); why != frame.ReasonNone {
			l.egress.Fail(in, k, why)
		}
	}
}

// transmitted counts the copies of o: those that are marked Refused, if any are,
// have not left.
//
// Hot path: no allocation.
func (l *loop) transmitted(o *outlist, refused bool) {
	sent, bytes, count := len(o.frames), o.bytes, &o.port.count[l.id]
	if refused {
		for i := range o.frames {
			f := &o.frames[i]
			if !f.Refused {
				continue
			}
			sent--
			bytes -= uint64(f.Len())
			l.refuse(o.port, f.Why)
			if l.observed != nil {
				l.copies[o.log[i]].Refused = f.Why
			}
		}
	}
	l.cells.sent.add(uint64(sent))
	count.txFrames.add(uint64(sent))
	count.txBytes.add(bytes)
}

// fanned is how many of lists, at least 1, leave together from the first on: those
// of one Fan, as long as a batch holds them and none has a frame to be cut.
//
// Hot path: no allocation.
func fanned(lists []outlist) int {
	fan, room := lists[0].port.fan, frame.BatchLen
	if fan == nil {
		return 1
	}
	for i := range lists {
		o := &lists[i]
		room -= len(o.frames)
		if room < 0 || o.port.fan != fan || o.gso() {
			return max(i, 1)
		}
	}
	return len(lists)
}

func (o *outlist) gso() bool {
	for i := range o.frames {
		if o.frames[i].GSO.Type != frame.GSONone {
			return true
		}
	}
	return false
}

// transmitFan plans the frames of lists, each of which stays one, and hands them
// to their Fan.
//
// Hot path: no allocation.
func (l *loop) transmitFan(lists []outlist) {
	l.interleave(lists)
	f, unfit, n := &l.fan, l.egress.Stats.Refused, 0
	l.egress.Plan(f.in, lists[0].port.can, false, l.wire)
	for i := range f.in {
		if !f.in[i].Refused {
			f.to[n] = lists[f.from[i].list].port.id
			n++
		}
	}
	sent, err := lists[0].port.fan.TransmitTo(f.to[:n], l.wire)
	if sent < n {
		l.fail(f.in, err)
	}
	l.cells.writes.add(uint64(n))
	l.wire.Reset()
	refused := sent < n || l.egress.Stats.Refused != unfit
	if refused {
		for i := range f.in {
			c := &lists[f.from[i].list].frames[f.from[i].at]
			c.Refused, c.Why = f.in[i].Refused, f.in[i].Why
		}
	}
	clear(f.in)
	for i := range lists {
		l.transmitted(&lists[i], refused)
	}
}

// interleave fills l.fan with the frames of lists in the order of the batch, so
// that the copies of one stand side by side.
//
// Hot path: no allocation.
func (l *loop) interleave(lists []outlist) {
	var next [maxOut]uint8
	f := &l.fan
	f.in = f.in[:0]
	for i := range l.batch.Frames {
		if l.verdicts[i].Action == frame.Drop {
			continue
		}
		data := &l.batch.Frames[i].Data[0]
		for k := range lists {
			if o, at := &lists[k], next[k]; int(at) < len(o.frames) && &o.frames[at].Data[0] == data {
				f.from[len(f.in)] = place{uint8(k), at}
				f.in = append(f.in, o.frames[at])
				next[k]++
			}
		}
	}
}

// refusal is why f did not leave, when Transmit returned err; none if it did.
func refusal(f *frame.Frame, err error) frame.Reason {
	switch {
	case !f.Refused:
		return frame.ReasonNone
	case f.Why != frame.ReasonNone:
		return f.Why
	}
	return cause(err)
}

// cause is the reason for an error of Transmit.
//
// Hot path: no allocation.
func cause(err error) frame.Reason {
	e, _ := errors.AsType[unix.Errno](err) // where As allocates
	switch e {
	case unix.EAGAIN, unix.ENOBUFS:
		return frame.QueueFull
	case unix.EIO, unix.ENETDOWN, unix.ENODEV, unix.ENXIO, unix.EBADFD:
		return frame.EgressDown
	}
	return frame.TransmitRefused
}
