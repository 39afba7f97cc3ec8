package vswitch

import (
	"fmt"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Step is one stage of an explanation.
type Step = frame.Step

// Explanation is what the switch would do with a frame.
type Explanation struct {
	Steps   []Step
	Verdict frame.Verdict
	Copies  []Copy
	// Outer is what copies that leave by a tunnel get around them, by port.
	Outer map[frame.PortID]frame.Outer
}

// Explain tells what would happen to frame f if it came in by port in now, by
// the functions that the loops run: VID is set in f as a receiver would. Nothing
// is sent, learned or counted. What only the kernel knows is not foreseen: a
// receiver that doesn't read, and what a full table gives up for the source. A
// port that does not exist drops everything as port_down.
//
// Explain waits for the loop that receives from the port, between two batches,
// and so must not be called from Options.Events or from observers.
func (s *Switch) Explain(in frame.PortID, f frame.Frame) Explanation {
	v := s.view.Load()
	x := inquiry{sw: s, view: v, in: v.port(in), f: &f}
	if x.in == nil {
		x.add("classify", fmt.Sprintf("port %d", in), "no port has this ID")
		x.verdict(frame.Verdict{Reason: frame.PortDown})
		return x.Explanation
	}
	vid, why := v.accept(x.in, &f, &x.h)
	x.classified()
	if why != frame.ReasonNone {
		x.refused(why)
		x.verdict(frame.Verdict{VID: vid, Reason: why})
		return x.Explanation
	}
	x.net = v.nets[vid]
	x.accepted()
	fresh := x.learn()
	d, from := v.decide(s.fdb, x.in, vid, &x.h, &x.recorder)
	d.Fresh = fresh
	x.lookedUp(d)
	if d.Action == frame.Flood {
		x.admit(&d, from)
	}
	x.copies(d, from)
	x.verdict(d)
	return x.Explanation
}

// recorder is what decide is told and tells when somebody asks instead of a
// frame coming in. A nil recorder records nothing.
type recorder struct {
	// learned is set when the frame's source would be behind the port first.
	learned bool
	// known is the port behind which the destination is, nil when none is known.
	known *port
}

// inquiry is an explanation in the making.
type inquiry struct {
	Explanation
	recorder
	sw   *Switch
	view *view
	in   *port
	net  *network
	f    *frame.Frame
	h    frame.Header
	via  []Step // of the copies that leave by tunnels
	told int    // how many of those copies via is about
}

// learn records what learning would do and reports whether the frame would make
// or move an entry.
func (x *inquiry) learn() (fresh bool) {
	if from := x.view.reflected(x.sw.fdb, x.net, x.in, &x.h); from != nil {
		x.learnedNothing("reflected, the station is on " + from.name)
		return false
	}
	if !x.f.Teaches() {
		x.learnedNothing("its receiver doesn't vouch for where the station is")
		return false
	}
	outcome, old := x.sw.fdb.Foresee(fdb.MakeKey(x.net.vid, x.h.Src), x.in.id)
	x.learned = outcome == fdb.Known || outcome == fdb.Inserted || outcome == fdb.Moved
	x.learns(outcome, old)
	return outcome == fdb.Inserted || outcome == fdb.Moved
}

// admit asks the loop what storm control and loop guard, which remember earlier
// frames, would say of a flood.
func (x *inquiry) admit(d *frame.Verdict, from *port) {
	left := 0
	why := frame.ReasonNone
	x.sw.ask(x.in, func(l *loop) { why, left = l.foresee(x.in, x.f, &x.h, d, from) })
	x.admitted(d, from, why, left)
	if why != frame.ReasonNone {
		d.Action, d.Reason = frame.Drop, why
	}
}

// ask lets the loop that receives from p call f between two batches.
func (s *Switch) ask(p *port, f func(*loop)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.loops[hearingLoop]
	if p.polled() {
		l = s.loops[p.loop]
	}
	if s.closed {
		f(l)
		return
	}
	done := make(chan struct{}, 1)
	l.tell(order{kind: orderCall, call: func() { f(l) }, done: done})
	<-done
}

// copies are those that the loop would send for verdict d.
func (x *inquiry) copies(d frame.Verdict, from *port) {
	switch d.Action {
	case frame.Forward:
		out := x.view.ports[d.Out]
		tagged, _ := out.carries(x.net.vid)
		x.copyTo(out, tagged)
	case frame.Flood:
		for _, m := range x.net.members {
			if relay(x.in, m.port, from) == frame.ReasonNone {
				x.copyTo(m.port, m.tagged)
			}
		}
	}
	x.copied(d, from)
	x.Steps = append(x.Steps, x.via...)
}

// copyTo adds the copy that leaves by out, or is refused there.
func (x *inquiry) copyTo(out *port, tagged bool) {
	pop, push, why := out.carry(x.net, tagged, x.f, &x.h)
	if why == frame.ReasonNone {
		why = x.transmit(out, frame.Frame{Data: x.f.Data, GSO: x.f.GSO, Pop: pop, Push: push, Copies: 1})
	}
	x.Copies = append(x.Copies, Copy{Port: out.id, Tag: wireTag(&x.h, pop, push), Refused: why})
}

// transmit says why copy f would not leave by out, as far as it can be foreseen.
func (x *inquiry) transmit(out *port, f frame.Frame) frame.Reason {
	if f.GSO != (frame.GSO{}) { // a plain frame is left as it is
		in, wire := []frame.Frame{f}, frame.NewBatch(0)
		offload.NewEgress().Plan(in, out.can, out.coalesce, wire)
		if in[0].Refused || wire.Len() == 0 {
			return frame.TransmitRefused
		}
		f = wire.Frames[0] // the longest segment, which counts for the whole
	}
	q, ok := out.queue.(Explainer)
	if !ok {
		return frame.ReasonNone
	}
	fate := q.Explain(&f)
	x.tunnelled(out, fate)
	return fate.Refused
}
