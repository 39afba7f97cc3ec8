package fdb

import (
	"cmp"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// A station flaps when it has moved at least FlapMoves times in the last
// FlapWindow and come back at least twice to a port that it had left: a machine
// that is carried about, or a failover and its end, move less.
const (
	FlapMoves  = 5
	FlapWindow = time.Minute
)

// Flap is a station that moves to and fro.
type Flap struct {
	VID   frame.VID
	MAC   frame.MAC
	Ports []frame.PortID // between which, by number
	Moves int            // in the last FlapWindow, as far as they are recorded
	First int64          // wall clock of the first of them, nanoseconds since 1970
	Last  int64          // wall clock of the last
	// Least is set when moves to one of the ports were left out of the history
	// meanwhile, so that there may have been more than Moves.
	Least bool
}

// PerMinute is the rate of the moves.
func (f Flap) PerMinute() float64 { return float64(f.Moves) / FlapWindow.Minutes() }

// Flaps returns the stations that flap at the wall clock now, those that move
// most first. It reads only the end of the ring of changes.
func (t *Table) Flaps(now int64) []Flap {
	recent := t.movesSince(now - int64(FlapWindow))
	byKey := map[Key][]move{}
	least := map[frame.PortID]bool{}
	for _, m := range recent { // newest first
		byKey[m.key] = append(byKey[m.key], m)
		if m.missed {
			least[m.port] = true
		}
	}
	var out []Flap
	for k, moves := range byKey {
		if f, ok := flapOf(k, moves, least); ok {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b Flap) int {
		return cmp.Or(cmp.Compare(b.Moves, a.Moves), cmp.Compare(a.VID, b.VID), cmp.Compare(a.MAC.Uint64(), b.MAC.Uint64()))
	})
	return out
}

// flapOf judges the moves of one station, newest first.
func flapOf(k Key, moves []move, least map[frame.PortID]bool) (Flap, bool) {
	if len(moves) < FlapMoves {
		return Flap{}, false
	}
	f := Flap{VID: k.VID(), MAC: k.MAC(), Moves: len(moves), First: moves[len(moves)-1].wall, Last: moves[0].wall}
	returns := 0
	for _, m := range slices.Backward(moves) {
		if slices.Contains(f.Ports, m.port) {
			returns++
		}
		for _, p := range [...]frame.PortID{m.old, m.port} {
			if !slices.Contains(f.Ports, p) {
				f.Ports = append(f.Ports, p)
			}
			f.Least = f.Least || least[p]
		}
	}
	slices.Sort(f.Ports)
	return f, returns >= 2
}

// move is what counts of a record of one.
type move struct {
	key       Key
	wall      int64
	port, old frame.PortID
	missed    bool // others to port were left out before it
}

// movesSince copies the moves since wall, newest first: under the lock, 32 octets
// of each.
func (t *Table) movesSince(wall int64) []move {
	g := &t.rings[1]
	var out []move
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range g.used {
		r := &g.records[(g.next-1-i+len(g.records))%len(g.records)]
		if r.order != 0 && int64(r.wall) < wall {
			break
		}
		if r.order != 0 && r.event() == EventMoved {
			out = append(out, move{Key(r.key), int64(r.wall), r.port(), r.old(), r.missed > 0})
		}
	}
	return out
}
