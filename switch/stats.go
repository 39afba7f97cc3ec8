package vswitch

import (
	"sync/atomic"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Counter is a number of frames and their octets, without FCS.
type Counter struct {
	Frames, Bytes uint64
}

// PortStats are the totals of one port since its ID entered the spec.
type PortStats struct {
	RX Counter // into the switch
	TX Counter // out of the switch: copies sent, before coalescing
	// Drops counts frames that came in by the port and were dropped, and copies
	// that should have left by it and were refused.
	Drops [frame.NumReasons]uint64
	// Down is why the queue can deliver no more, nil while it can: the state
	// behind EventPortDown, for those whom the event may not have reached.
	Down error
	// Cut is set while the loop guard holds the port apart.
	Cut bool
}

// Stats are the totals of the switch since New. When no batch is under way
//
//	RxFrames           = Σ Verdicts
//	Decided            = Sent + Refused
//	Σ Drops            = Verdicts[frame.Drop] + Refused
//
// and Drops is the sum over all ports, those removed since included, as RxFrames
// is of their RX.Frames and of Own. A reading
// taken in the middle of a batch may be ahead in one number and behind in
// another by what that batch holds.
type Stats struct {
	Loops    int
	RxFrames uint64
	Own      uint64 // of RxFrames: made by this host, received by no port
	Verdicts [frame.NumActions]uint64
	Reasons  [frame.NumReasons]uint64 // verdicts by reason
	// Copies: each member that should get a frame is one. One that was cut on its
	// way out is sent when all of its segments were, and otherwise refused, for the
	// reason of the first that was not.
	Decided, Sent, Refused uint64
	Drops                  [frame.NumReasons]uint64

	Wakeups    uint64        // polls that found something to do
	Spins      uint64        // empty polls before sleeping
	SpinTime   time.Duration // from the first empty poll to work or sleep; others may have had the core
	Writes     uint64        // frames handed to queues, after coalescing and segmenting
	Coalesced  uint64        // copies that left inside another's GSO frame
	Segmented  uint64        // GSO frames cut for an egress that carries none
	Moves      uint64        // station moves
	EventsLost uint64        // events that Options.Events was too slow for
}

// cell is a counter with one writer, which needs no locked instruction's
// guarantee of atomic addition, only that readers see whole values.
type cell struct{ n atomic.Uint64 }

// add is called by the one writer.
func (c *cell) add(n uint64) {
	if n != 0 {
		c.n.Store(c.n.Load() + n)
	}
}

func (c *cell) load() uint64 { return c.n.Load() }

// portCells are what one loop counts about one port.
type portCells struct {
	rxFrames, rxBytes cell
	txFrames, txBytes cell
	drops             [frame.NumReasons]cell
	_                 [64]byte // keeps two loops off one cache line
}

// portCount is what all loops count about one port, indexed by loop.
type portCount []portCells

func (c portCount) sum() PortStats {
	var s PortStats
	for i := range c {
		l := &c[i]
		s.RX.Frames += l.rxFrames.load()
		s.RX.Bytes += l.rxBytes.load()
		s.TX.Frames += l.txFrames.load()
		s.TX.Bytes += l.txBytes.load()
		for r := range l.drops {
			s.Drops[r] += l.drops[r].load()
		}
	}
	return s
}

// loopCells are what one loop counts about itself and about all ports.
type loopCells struct {
	_                                      [64]byte
	rxFrames, own                          cell
	verdicts                               [frame.NumActions]cell
	reasons                                [frame.NumReasons]cell
	decided, sent, refused                 cell
	drops                                  [frame.NumReasons]cell
	wakeups, spins, spinTime               cell
	writes, coalesced, segmented, stations cell
	_                                      [64]byte
}

// tally counts the verdicts of one batch, to be published as a whole.
type tally struct {
	verdicts [frame.NumActions]uint32
	reasons  [frame.NumReasons]uint32
	own      uint64 // of the verdicts: frames that this host has made
	bytes    uint64 // of the others
	decided  uint64
}

// publish adds the tally of one batch that came in by p and empties it. It
// runs when every copy of the batch has been sent or refused.
func (l *loop) publish(p *port, t *tally) {
	var frames uint64
	for i, n := range t.verdicts {
		l.cells.verdicts[i].add(uint64(n))
		frames += uint64(n)
	}
	in := &p.count[l.id]
	for i, n := range t.reasons {
		if n == 0 {
			continue
		}
		l.cells.reasons[i].add(uint64(n))
		if frame.Reason(i).IsDrop() {
			in.drops[i].add(uint64(n))
			l.cells.drops[i].add(uint64(n))
		}
	}
	l.cells.decided.add(t.decided)
	in.rxBytes.add(t.bytes)
	in.rxFrames.add(frames - t.own)
	l.cells.own.add(t.own)
	l.cells.rxFrames.add(frames)
	*t = tally{}
}

// refuse counts a copy that could not leave by out.
func (l *loop) refuse(out *port, why frame.Reason) {
	l.cells.refused.add(1)
	l.cells.drops[why].add(1)
	out.count[l.id].drops[why].add(1)
}

// Stats returns the totals.
func (s *Switch) Stats() Stats {
	t := Stats{Loops: len(s.loops), EventsLost: s.lost.Load()}
	for _, l := range s.loops {
		c := &l.cells
		t.RxFrames += c.rxFrames.load()
		t.Own += c.own.load()
		for i := range c.verdicts {
			t.Verdicts[i] += c.verdicts[i].load()
		}
		for i := range c.reasons {
			t.Reasons[i] += c.reasons[i].load()
			t.Drops[i] += c.drops[i].load()
		}
		t.Decided += c.decided.load()
		t.Sent += c.sent.load()
		t.Refused += c.refused.load()
		t.Wakeups += c.wakeups.load()
		t.Spins += c.spins.load()
		t.SpinTime += time.Duration(c.spinTime.load())
		t.Writes += c.writes.load()
		t.Coalesced += c.coalesced.load()
		t.Segmented += c.segmented.load()
		t.Moves += c.stations.load()
	}
	return t
}
