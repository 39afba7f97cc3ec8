package vswitch

import (
	"time"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// EventKind says what an Event tells of.
type EventKind uint8

// Kinds of event.
const (
	// EventPortDown: the queue of Port can deliver no more, Err says why. It is
	// told once; the port stays down until Apply brings another Queue.
	EventPortDown EventKind = iota + 1
	// EventMove: station MAC in VLAN VID moved from port Old to Port.
	EventMove
	// EventLoopCut: the switch's own frames came back on Port, which is cut in
	// both directions for For. MAC and VID are those of the last such frame.
	EventLoopCut
	// EventLoopOpened: Port is tried again after a cut.
	EventLoopOpened
	// EventStorm: Port floods faster than its storm limit for Class, which is
	// BroadcastAddr, UnknownUnicast or MulticastAddr. Told at most once in ten
	// seconds a port.
	EventStorm
)

// String names the kind.
func (k EventKind) String() string {
	return [...]string{"invalid", "port_down", "move", "loop_cut", "loop_opened", "storm"}[k%6]
}

// Event is something that happened in a loop and that a person may want to know.
type Event struct {
	Time  time.Time
	Kind  EventKind
	Port  frame.PortID
	Old   frame.PortID
	VID   frame.VID
	MAC   frame.MAC
	Class frame.Reason
	Err   error
	For   time.Duration
	// Missed is how many moves to Port were not told since the last one.
	Missed uint64
}

// eventQueue is how many events may wait for Options.Events.
const eventQueue = 256

// emit hands e over to the goroutine that tells it, or counts it as lost.
func (s *Switch) emit(e Event) {
	select {
	case s.events <- e:
	default:
		s.lost.Add(1)
	}
}

// tell passes events on until Close, and does what they ask of the switch.
func (s *Switch) tell(f func(Event)) {
	for {
		select {
		case <-s.quit:
			return
		case e := <-s.events:
			if e.Kind == EventLoopCut {
				// What was learned there came round the loop.
				s.fdb.Flush(fdb.Filter{Port: e.Port})
			}
			if f != nil {
				f(e)
			}
		}
	}
}

// moveEvery is the shortest time between two told moves to one port.
const moveEvery = time.Second
