package capture

import (
	"time"

	"github.com/tapestry-net/tapestry/capture/filter"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Direction is a set of directions, as seen from the switch.
type Direction uint8

// Directions.
const (
	In   Direction = 1 << iota // received by the port
	Out                        // sent by the port
	Both = In | Out
)

// String returns in, out or both.
func (d Direction) String() string { return [...]string{"none", "in", "out", "both"}[d&Both] }

// Strangers stands for the port of what came in by none: datagrams that a tunnel
// refused because it knows no peer that could have sent them.
const Strangers frame.PortID = 0

// Interfaces of the host that a capture hears beside the switch have numbers
// behind those of ports.
const (
	// MaxDevices is how many of them one capture hears.
	MaxDevices = 32
	device0    = frame.MaxPortID + 1
	nobody     = device0 + MaxDevices // receives what an interface sends
	numSources = int(nobody) + 1
)

// Device is the number of the i-th interface of a capture.
func Device(i int) frame.PortID { return device0 + frame.PortID(i) }

// Named is how many copies of a flood a decision names; the rest are counted.
const Named = 8

// MinSnap is the smallest snap length: both addresses, two tags and an IP header.
const MinSnap = 64

// Choice says what a capture is of.
type Choice struct {
	Ports     []frame.PortID  // none = all
	Direction Direction       // 0 = Both
	Drops     bool            // only frames that were dropped and copies that were refused
	Filter    *filter.Program // judges each packet as it stands on its own wire; nil = all
	Snap      int             // octets kept of each frame, at least MinSnap; 0 = all
}

// plan is what a record of one observation will hold.
type plan struct {
	in     bool
	copies int // in the record
	wanted int // of all copies
	more   int // copies not in the record
	snap   int
}

// judge applies the filter to the forms in which one frame is seen.
type judge struct {
	filter *filter.Program
	frame  frame.Frame
	tag    frame.Tag // as received
	known  bool
	last   frame.Tag
	match  bool
}

func (j *judge) judge(tag frame.Tag) bool {
	if j.filter == nil {
		return true
	}
	if j.known && tag == j.last {
		return j.match
	}
	retag(&j.frame, j.tag, tag)
	j.known, j.last, j.match = true, tag, j.filter.MatchFrame(&j.frame)
	return j.match
}

// retag makes f, which has the tag from, leave with the tag to.
func retag(f *frame.Frame, from, to frame.Tag) {
	f.Pop, f.Push = false, frame.Tag{}
	if from != to {
		f.Pop, f.Push = from.Present(), to
	}
}

func tagOf(data []byte) frame.Tag {
	h, _ := frame.Parse(data)
	return h.Tag
}

// Observe implements vswitch.Observer and tunnel.Observer. It never waits: what doesn't fit is counted.
//
// Hot path: no allocation.
func (r *Ring) Observe(o *frame.Observation) {
	j := judge{filter: r.choice.Filter, frame: frame.Frame{Data: o.Frame.Data}, tag: tagOf(o.Frame.Data)}
	var p plan
	r.weigh(o, &j, &p)
	if !p.in && p.wanted == 0 {
		return
	}
	p.snap = len(o.Frame.Data)
	if r.choice.Snap > 0 {
		p.snap = min(p.snap, max(r.choice.Snap, MinSnap))
	}
	n := uint64(headWords + p.copies + (p.snap+7)/8)
	at, ok := r.reserve(n)
	if !ok {
		r.loseAll(o, &j, &p)
		return
	}
	w := r.words[at : at+n]
	r.write(w, o, &p)
	r.writeCopies(w[headWords:headWords+p.copies], o, &j)
	copy(r.bytes[8*(at+uint64(headWords+p.copies)):], o.Frame.Data[:p.snap])
	r.complete(at, n)
}

// Source puts the packets of one Device into a ring. It belongs to one goroutine.
type Source struct {
	ring  *Ring
	id    frame.PortID
	seen  frame.Observation
	frame frame.Frame
	out   [1]frame.Copy
}

// Source returns what device id is heard by.
func (r *Ring) Source(id frame.PortID) *Source { return &Source{ring: r, id: id} }

// Hear takes a packet that the device received or sent, under the ring's Choice.
// It has no verdict: the switch has not decided about it.
//
// Hot path: no allocation.
func (s *Source) Hear(d Direction, at time.Time, data []byte) {
	s.frame = frame.Frame{Data: data}
	s.seen = frame.Observation{Time: at, In: s.id, Frame: &s.frame}
	if d == Out {
		s.out[0] = frame.Copy{Port: s.id, Tag: tagOf(data)}
		s.seen.In, s.seen.Copies = nobody, s.out[:]
	}
	s.ring.Observe(&s.seen)
}

// Lose counts n packets of the device that were lost on their way to the ring.
func (s *Source) Lose(n uint64) {
	s.ring.lost[s.id].Add(n)
	s.ring.all.Add(n)
}

// weigh fills in p.
func (r *Ring) weigh(o *frame.Observation, j *judge, p *plan) {
	p.in = r.wantsIn(o, j)
	for i := range o.Copies {
		wanted := r.wants(&o.Copies[i], j)
		if wanted {
			p.wanted++
		}
		if (wanted || i < Named) && p.copies < maxCopies {
			p.copies++
		}
	}
	p.more = len(o.Copies) - p.copies
}

func (r *Ring) writeCopies(w []uint64, o *frame.Observation, j *judge) {
	n := 0
	for i := range o.Copies {
		c := &o.Copies[i]
		wanted := r.wants(c, j)
		if !wanted && i >= Named {
			continue
		}
		if n == len(w) {
			if wanted {
				r.lose(c.Port)
			}
			continue
		}
		w[n] = uint64(c.Port) | uint64(c.Tag.TPID)<<16 | uint64(c.Tag.TCI)<<32 | uint64(c.Refused)<<48 | flag(wanted, 1)<<56
		n++
	}
}

func (r *Ring) loseAll(o *frame.Observation, j *judge, p *plan) {
	if p.in {
		r.lose(o.In)
	}
	for i := range o.Copies {
		if r.wants(&o.Copies[i], j) {
			r.lose(o.Copies[i].Port)
		}
	}
}

func (r *Ring) wantsIn(o *frame.Observation, j *judge) bool {
	c := &r.choice
	return (c.Direction == 0 || c.Direction&In != 0) && r.has(o.In) &&
		(!c.Drops || o.Verdict.Action == frame.Drop && o.Verdict.Reason != frame.ReasonNone) && j.judge(j.tag)
}

func (r *Ring) wants(c *frame.Copy, j *judge) bool {
	return (r.choice.Direction == 0 || r.choice.Direction&Out != 0) && r.has(c.Port) &&
		r.choice.Drops == (c.Refused != frame.ReasonNone) && j.judge(c.Tag)
}

func (r *Ring) has(p frame.PortID) bool {
	return r.ports == nil || r.ports[p/64]&(1<<(p%64)) != 0
}
