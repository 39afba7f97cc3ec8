package trace

import (
	"sync"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	// MaxHops is how many sights of one trace a host keeps.
	MaxHops = 64
	// MaxCopies is how many copies of a flood each of them names.
	MaxCopies = 8
)

// Seen is a packet of a trace that the switch has decided about.
type Seen struct {
	Sight
	Time    time.Time
	In      frame.PortID
	Verdict frame.Verdict
	Len     int // octets of the frame
	copies  [MaxCopies]frame.Copy
	n       uint8
	More    int // copies that are not named
}

// Copies are where it left, or should have.
func (s *Seen) Copies() []frame.Copy { return s.copies[:s.n] }

// SetCopies sets them, the first MaxCopies; the others are More.
func (s *Seen) SetCopies(list []frame.Copy) {
	s.n = uint8(copy(s.copies[:], list))
	s.More += len(list) - int(s.n)
}

// Watcher is an observer of the switch that keeps the packets of one trace, the
// first MaxHops of them.
type Watcher struct {
	match *Matcher
	ready chan struct{}

	mu   sync.Mutex
	seen []Seen
	lost int
}

// NewWatcher returns a Watcher that has seen nothing.
func NewWatcher(m *Matcher) *Watcher {
	return &Watcher{match: m, ready: make(chan struct{}, 1), seen: make([]Seen, 0, MaxHops)}
}

// Observe implements vswitch.Observer.
//
// Hot path: no allocation. The lock is taken for packets of the trace only.
func (w *Watcher) Observe(o *frame.Observation) {
	var s Seen
	if !w.match.Frame(o.Frame.Data, &s.Sight) {
		return
	}
	s.Time, s.In, s.Verdict, s.Len = o.Time, o.In, o.Verdict, len(o.Frame.Data)
	s.SetCopies(o.Copies)
	w.mu.Lock()
	if len(w.seen) < cap(w.seen) {
		w.seen = append(w.seen, s)
	} else {
		w.lost++
	}
	w.mu.Unlock()
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// Ready gets a value when something was seen since it last had one.
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// Seen returns all that was seen, and how much more there was.
func (w *Watcher) Seen() (seen []Seen, lost int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Seen(nil), w.seen...), w.lost
}

// Refused is an observer of tunnels for a Watcher: it keeps packets of the trace
// that came in VXLAN and never became a frame.
type Refused struct{ *Watcher }

// Observe implements tunnel.Observer: it looks behind the outer headers.
func (r Refused) Observe(o *frame.Observation) {
	const udpAndVXLAN = 8 + 8
	h, ok := frame.Parse(o.Frame.Data)
	if !ok || len(o.Frame.Data) <= h.Len {
		return
	}
	b := o.Frame.Data[h.Len:]
	n := int(b[0]&15)*4 + udpAndVXLAN
	if b[0]>>4 == 6 {
		n = ipv6Len + udpAndVXLAN
	}
	if n < len(b) {
		inner := *o
		inner.Frame = &frame.Frame{Data: b[n:]}
		r.Watcher.Observe(&inner)
	}
}
