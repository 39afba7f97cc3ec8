package capture

import (
	"context"
	"errors"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// statsEvery is how often a change of the counters is written: a reader that is
// killed has lost no more than that of them.
const statsEvery = time.Second

// Sink takes a capture's packets. Its methods are called by one goroutine.
type Sink interface {
	// Packet takes p, before which lost packets of the same port were lost.
	Packet(p *Packet, lost uint64) error
	// Port announces a port, before its first packet.
	Port(id frame.PortID) error
	// Lost says how many packets of a port were delivered and lost in all.
	Lost(id frame.PortID, delivered, lost uint64) error
	// Flush hands everything on that was taken.
	Flush() error
}

// Stream moves a capture from its ring into a sink.
type Stream struct {
	Ring     *Ring
	Expander *Expander
	Sink     Sink
	Ports    []frame.PortID // announced at once
	Count    uint64         // ends after so many packets; 0 = never
	// Sort holds packets back for so long and delivers them by their time, where
	// several sources are captured; 0 = as they come.
	Sort time.Duration

	order   order
	told    time.Time // when the counters were written
	tallies map[frame.PortID]*tally
	total   uint64
	found   uint64 // losses whose ports are announced
}

// tally is what was delivered and lost of one port.
type tally struct{ delivered, lost, toldDelivered, toldLost uint64 }

// errDone ends a stream that has its Count.
var errDone = errors.New("the count is reached")

// Run returns when ctx ends, the count is reached or the sink fails; only the
// last is an error. What was observed before ctx ended is delivered.
func (s *Stream) Run(ctx context.Context) error {
	s.tallies = map[frame.PortID]*tally{}
	s.order.window = s.Sort
	for _, p := range s.Ports {
		if _, err := s.tally(p); err != nil {
			return err
		}
	}
	if err := s.Sink.Flush(); err != nil {
		return err
	}
	if err := s.deliver(ctx); err != nil {
		if errors.Is(err, errDone) {
			err = s.tell()
		}
		return err
	}
	var rec Record
	var err error
	for end := s.Ring.Mark(); err == nil && !s.Ring.Passed(end) && s.Ring.Poll(&rec); {
		err = s.Expander.Expand(&rec, s.take)
	}
	if err == nil {
		err = s.due(true)
	}
	if err != nil && !errors.Is(err, errDone) {
		return err
	}
	return s.tell()
}

// deliver passes packets on until ctx ends, which is no error.
func (s *Stream) deliver(ctx context.Context) error {
	every := statsEvery
	if s.Sort > 0 {
		every = min(every, s.Sort)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	s.told = time.Now()
	var rec Record
	for ctx.Err() == nil {
		more := s.Ring.Poll(&rec)
		if more {
			if err := s.Expander.Expand(&rec, s.take); err != nil {
				return err
			}
		} else if err := s.Sink.Flush(); err != nil {
			return err
		}
		select {
		case now := <-tick.C:
			if err := s.onTick(now); err != nil {
				return err
			}
		case <-s.wake(more):
		case <-ctx.Done():
		}
	}
	return nil
}

// always is ready at any time.
var always = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// wake is ready when there may be a record: at once when there are more.
func (s *Stream) wake(more bool) <-chan struct{} {
	if more {
		return always
	}
	return s.Ring.Ready()
}

// onTick delivers what has waited long enough, and each second the counters.
func (s *Stream) onTick(now time.Time) error {
	if err := s.due(false); err != nil {
		return err
	}
	if now.Sub(s.told) < statsEvery {
		return nil
	}
	s.told = now
	return s.tell()
}

func (s *Stream) tally(id frame.PortID) (*tally, error) {
	t := s.tallies[id]
	if t != nil {
		return t, nil
	}
	t = &tally{}
	s.tallies[id] = t
	return t, s.Sink.Port(id)
}

// take passes p on, at once or in its order.
func (s *Stream) take(p *Packet) error {
	if s.Sort == 0 {
		return s.packet(p)
	}
	s.order.put(p)
	return s.due(false)
}

// due passes on what has waited long enough, or all.
func (s *Stream) due(all bool) error {
	now := time.Now()
	for {
		p := s.order.next(now, all)
		if p == nil {
			return nil
		}
		if err := s.packet(p); err != nil {
			return err
		}
	}
}

func (s *Stream) packet(p *Packet) error {
	t, err := s.tally(p.Port)
	if err != nil {
		return err
	}
	lost := s.Ring.Lost(p.Port)
	if err := s.Sink.Packet(p, lost-t.lost); err != nil {
		return err
	}
	t.lost = lost
	t.delivered++
	if s.total++; s.total == s.Count {
		return errDone
	}
	return nil
}

// findLost announces ports of which everything was lost, and nothing delivered.
func (s *Stream) findLost() error {
	lost := s.Ring.LostAll()
	if lost == s.found {
		return nil
	}
	s.found = lost
	for id := range frame.PortID(numSources) {
		if s.Ring.Lost(id) > 0 {
			if _, err := s.tally(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// tell passes on the counters that have changed.
func (s *Stream) tell() error {
	if err := s.findLost(); err != nil {
		return err
	}
	for id, t := range s.tallies {
		lost := s.Ring.Lost(id)
		if t.delivered == t.toldDelivered && lost == t.toldLost {
			continue
		}
		if err := s.Sink.Lost(id, t.delivered, lost); err != nil {
			return err
		}
		t.toldDelivered, t.toldLost = t.delivered, lost
	}
	return s.Sink.Flush()
}
