package audit

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// maxStations bounds what a Traffic remembers; others are left out.
const maxStations = 1 << 16

// floodsTold is how many floods make an address one that should be known.
const floodsTold = 3

// Traffic is what was seen of frames for a moment.
type Traffic struct {
	Frames int // added

	from    map[Key]map[frame.PortID]int // sources by port
	floods  map[Key]int                  // unknown destinations
	flooder map[Key]frame.PortID         // who sent to them last
}

// NewTraffic returns one that has seen nothing.
func NewTraffic() *Traffic {
	return &Traffic{from: map[Key]map[frame.PortID]int{}, floods: map[Key]int{}, flooder: map[Key]frame.PortID{}}
}

// Add notes a frame that came in by port in, and what was decided about it.
func (t *Traffic) Add(in frame.PortID, v frame.Verdict, h frame.Header) {
	t.Frames++
	if v.Reason.IsDrop() && v.Reason.Stage() != frame.StageLookup {
		return // before it could be learned from
	}
	src := Key{v.VID, h.Src}
	if t.from[src] == nil && len(t.from) < maxStations {
		t.from[src] = map[frame.PortID]int{}
	}
	if t.from[src] != nil {
		t.from[src][in]++
	}
	dst := Key{v.VID, h.Dst}
	if _, known := t.floods[dst]; v.Reason == frame.UnknownUnicast && (known || len(t.floods) < maxStations) {
		t.floods[dst]++
		t.flooder[dst] = in
	}
}

// Findings compares what was seen with the table. look is the table's answer
// now, past what its history says about a station that it doesn't know: "aged
// out at 10:02:31, behind port c1", or empty.
func (t *Traffic) Findings(w *Wanted, look func(Key) (Entry, bool), past func(Key) string) []Finding {
	var out []Finding
	for _, k := range slices.SortedFunc(maps.Keys(t.from), Key.compare) {
		if len(t.from[k]) == 1 { // one that is on several ports moves: the table can't be right for all
			for in, n := range t.from[k] {
				t.source(&out, w, k, in, n, look)
			}
		}
	}
	owners := w.owners()
	for _, k := range slices.SortedFunc(maps.Keys(t.floods), Key.compare) {
		if t.floods[k] < floodsTold {
			continue
		}
		if _, ok := look(k); ok {
			continue // it has answered meanwhile
		}
		t.flood(&out, w, k, owners, past)
	}
	return out
}

// source compares the only port that k spoke on with its entry.
func (t *Traffic) source(out *[]Finding, w *Wanted, k Key, in frame.PortID, n int, look func(Key) (Entry, bool)) {
	e, ok := look(k)
	subject := w.station(k)
	switch {
	case !ok:
		note(out, AreaTraffic, subject, "port "+w.port(in), "no entry", "raise fdb_limit, of the port or of the whole table; see `tapestry status`",
			"it speaks on port %s (%s) and is not in the table", w.port(in), count(n, "frame"))
	case e.Port != in && e.Static:
		note(out, AreaTraffic, subject, "static, port "+w.port(e.Port), "frames on port "+w.port(in), "correct the static entry, or find who uses the address on "+w.port(in),
			"its static entry names port %s, it speaks on port %s (%s)", w.port(e.Port), w.port(in), count(n, "frame"))
	case e.Port != in:
		note(out, AreaTraffic, subject, "port "+w.port(in), "port "+w.port(e.Port), "raise the fdb_limit of port "+w.port(in)+"; or it has just moved: tapestry fdb why "+k.MAC.String(),
			"it speaks on port %s (%s), the table has it behind port %s", w.port(in), count(n, "frame"), w.port(e.Port))
	}
}

// flood tells of an address that should be known and isn't.
func (t *Traffic) flood(out *[]Finding, w *Wanted, k Key, owners map[Key]frame.PortID, past func(Key) string) {
	what := fmt.Sprintf("%d frames for it from port %s were flooded", t.floods[k], w.port(t.flooder[k]))
	static := fmt.Sprintf("tapestry fdb add %s %s PORT", w.Network(k.VID), k.MAC)
	if own, ok := owners[k]; ok {
		note(out, AreaTraffic, w.station(k), "port "+w.port(own), "no entry", static+" if it only listens; otherwise see why it is silent: tapestry capture --port "+w.port(own),
			"%s; it is the interface of port %s, which has not been heard for an ageing time", what, w.port(own))
		return
	}
	if before := past(k); before != "" {
		note(out, AreaTraffic, w.station(k), before, "no entry", fmt.Sprintf("raise `ageing` of network %s (%s) if it speaks more seldom, or %s", w.Network(k.VID), w.Ageing(k.VID), static),
			"%s; it was %s", what, before)
	}
}
