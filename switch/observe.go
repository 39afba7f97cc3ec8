package vswitch

import (
	"slices"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Copy is one copy of an observed or explained frame.
type Copy = frame.Copy

// Observation is one frame and what became of it.
type Observation = frame.Observation

// Observer watches frames. Observe is called by the loops, several at once,
// after the frame's copies were sent or refused. It must neither block nor take
// long, and keep none of o's slices: who needs the bytes copies them.
type Observer interface {
	Observe(o *Observation)
}

// watch is the set of observers; it is immutable.
type watch struct{ list []Observer }

// Observe adds an observer.
func (s *Switch) Observe(o Observer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Observer
	if w := s.watcher.Load(); w != nil {
		list = w.list
	}
	s.watcher.Store(&watch{append(slices.Clip(list), o)})
}

// Unobserve takes an observer away. When it returns, o is called no more.
func (s *Switch) Unobserve(o Observer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.watcher.Load()
	if w == nil {
		return
	}
	list := slices.DeleteFunc(slices.Clone(w.list), func(x Observer) bool { return x == o })
	if len(list) == 0 {
		s.watcher.Store(nil)
	} else {
		s.watcher.Store(&watch{list})
	}
	if !s.closed {
		s.order(orderBarrier)
	}
}
