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
	entry := int32(-1)
	if l.observed != nil {
		entry = int32(len(l.copies))
		l.copies = append(l.copies, Copy{Port: out.id, Tag: out.seen(wireTag(h, pop, push)), Refused: why})
	}
	if why != frame.ReasonNone {
		l.refuse(out, why, 1)
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
	if entry >= 0 {
		o.log = append(o.log, entry)
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
		o.frames, o.log, o.bytes, o.port = o.frames[:0], o.log[:0], 0, nil
	}
	l.outs = 0
}

// transmit plans the frames of o for its port and hands them to its queue.
//
// Hot path: no allocation.
func (l *loop) transmit(o *outlist) {
	p := o.port
	refused, bytes, at := 0, o.bytes, 0
	for in := o.frames; len(in) > 0; {
		n := l.egress.Plan(in, p.can, p.coalesce, l.wire)
		for i := range in[:n] {
			if in[i].Refused { // cannot be made fit for the port
				refused += int(in[i].Copies)
				bytes -= uint64(in[i].Len())
				l.refuse(p, frame.TransmitRefused, int(in[i].Copies))
				o.note(l, at+i, 1, frame.TransmitRefused)
			}
		}
		if l.wire.Len() > 0 {
			r, b := l.write(o, at)
			refused += r
			bytes -= min(bytes, b)
		} else if n == 0 {
			n = len(in) // Plan always goes on; if it should not, these are lost
			refused += n
			l.refuse(p, frame.TransmitRefused, n)
			o.note(l, at, n, frame.TransmitRefused)
		}
		at += n
		in = in[n:]
	}
	l.transmitted(o, refused, bytes)
}

// transmitted counts the copies of o that have left.
func (l *loop) transmitted(o *outlist, refused int, bytes uint64) {
	sent, count := uint64(len(o.frames)-refused), &o.port.count[l.id]
	l.cells.sent.add(sent)
	count.txFrames.add(sent)
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
	in, n := l.fan.in[:0], 0
	for i := range lists {
		in = append(in, lists[i].frames...)
	}
	l.egress.Plan(in, lists[0].port.can, false, l.wire)
	for i, at := 0, 0; i < len(lists); i++ {
		for range lists[i].frames {
			if !in[at].Refused {
				l.fan.to[n] = lists[i].port.id
				n++
			}
			at++
		}
	}
	_, err := lists[0].port.fan.TransmitTo(l.fan.to[:n], l.wire)
	l.cells.writes.add(uint64(n))
	n = 0
	for i, at := 0, 0; i < len(lists); i++ {
		o := &lists[i]
		refused, bytes := 0, o.bytes
		for j := range o.frames {
			why := frame.TransmitRefused // cannot be made fit
			if !in[at].Refused {
				why = refusal(&l.wire.Frames[n], err)
				n++
			}
			if why != frame.ReasonNone {
				refused++
				bytes -= uint64(o.frames[j].Len())
				l.refuse(o.port, why, 1)
				o.note(l, j, 1, why)
			}
			at++
		}
		l.transmitted(o, refused, bytes)
	}
	l.wire.Reset()
	clear(in)
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

// write transmits l.wire and returns how many copies the queue refused, and
// their octets. At is the first copy of o that l.wire holds.
func (l *loop) write(o *outlist, at int) (refused int, bytes uint64) {
	sent, err := o.port.queue.Transmit(l.wire)
	l.cells.writes.add(uint64(l.wire.Len()))
	if sent < l.wire.Len() {
		for i := range l.wire.Frames {
			f := &l.wire.Frames[i]
			if why := refusal(f, err); why != frame.ReasonNone {
				n := int(f.Copies)
				refused += n
				bytes += uint64(f.Len())
				if n > 0 {
					l.refuse(o.port, why, n)
				}
				o.note(l, at, n, why)
			}
			at += int(f.Copies)
		}
	}
	l.wire.Reset()
	return refused, bytes
}

// note enters in the log why n copies of o, from place at on, did not leave.
// When frames of several flows were coalesced, copies of one batch may stand in
// the log for each other.
func (o *outlist) note(l *loop, at, n int, why frame.Reason) {
	for i := at; i < at+n && i < len(o.log); i++ {
		l.copies[o.log[i]].Refused = why
	}
}

// cause is the reason for an error of Transmit.
func cause(err error) frame.Reason {
	var e unix.Errno
	if !errors.As(err, &e) {
		return frame.TransmitRefused
	}
	switch e {
	case unix.EAGAIN, unix.ENOBUFS:
		return frame.QueueFull
	case unix.EIO, unix.ENETDOWN, unix.ENODEV, unix.ENXIO, unix.EBADFD:
		return frame.EgressDown
	}
	return frame.TransmitRefused
}
