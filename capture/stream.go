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

	tallies map[frame.PortID]*tally
	total   uint64
}

// tally is what was delivered and lost of one port.
type tally struct{ delivered, lost, toldDelivered, toldLost uint64 }

// errDone ends a stream that has its Count.
var errDone = errors.New("the count is reached")

// Run returns when ctx ends, the count is reached or the sink fails; only the
// last is an error. What was observed before ctx ended is delivered.
func (s *Stream) Run(ctx context.Context) error {
	s.tallies = map[frame.PortID]*tally{}
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
	for end := s.Ring.Mark(); !s.Ring.Passed(end) && s.Ring.Poll(&rec); {
		if err := s.Expander.Expand(&rec, s.packet); errors.Is(err, errDone) {
			break
		} else if err != nil {
			return err
		}
	}
	return s.tell()
}

// deliver passes packets on until ctx ends, which is no error.
func (s *Stream) deliver(ctx context.Context) error {
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	var rec Record
	for ctx.Err() == nil {
		if s.Ring.Poll(&rec) {
			if err := s.Expander.Expand(&rec, s.packet); err != nil {
				return err
			}
			select {
			case <-tick.C:
				if err := s.tell(); err != nil {
					return err
				}
			default:
			}
			continue
		}
		if err := s.Sink.Flush(); err != nil {
			return err
		}
		select {
		case <-s.Ring.Ready():
		case <-tick.C:
			if err := s.tell(); err != nil {
				return err
			}
		case <-ctx.Done():
		}
	}
	return nil
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

// tell passes on the counters that have changed.
func (s *Stream) tell() error {
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
