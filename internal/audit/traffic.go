package audit

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// MaxStations is how many senders a Traffic remembers, and how many unknown
// destinations; frames of others are only counted.
const MaxStations = 1 << 16

// floodsTold is how many floods make an address one that should be known.
const floodsTold = 3

// Traffic is what was seen of frames for a moment.
type Traffic struct {
	Frames int // added
	Left   int // of them, those with a station beyond MaxStations, which are compared with nothing

	from   map[Key]spoken
	floods map[Key]flooded // unknown destinations
}

// spoken is what a station has sent.
type spoken struct {
	frames int
	port   frame.PortID // the first
	moves  bool         // it was heard on another, too
}

// flooded is what was sent to a station that the table didn't know.
type flooded struct {
	frames int
	by     frame.PortID // the last
}

// NewTraffic returns one that has seen nothing.
func NewTraffic() *Traffic {
	return &Traffic{from: map[Key]spoken{}, floods: map[Key]flooded{}}
}

// Add notes a frame that came in by port in, and what was decided about it.
func (t *Traffic) Add(in frame.PortID, v frame.Verdict, h frame.Header) {
	t.Frames++
	if v.Reason.IsDrop() && v.Reason.Stage() != frame.StageLookup {
		return // before it could be learned from
	}
	src, dst := Key{v.VID, h.Src}, Key{v.VID, h.Dst}
	s, heard := t.from[src]
	if !heard {
		s.port = in
	}
	s.moves = s.moves || s.port != in
	s.frames++
	fits := heard || len(t.from) < MaxStations
	if fits {
		t.from[src] = s
	}
	if v.Reason == frame.UnknownUnicast {
		f, known := t.floods[dst]
		if known || len(t.floods) < MaxStations {
			t.floods[dst] = flooded{f.frames + 1, in}
		} else {
			fits = false
		}
	}
	if !fits {
		t.Left++
	}
}

// Findings compares what was seen with the table. look is the table's answer
// now, past what its history says about a station that it doesn't know: "aged
// out at 10:02:31, behind port c1", or empty.
func (t *Traffic) Findings(w *Wanted, look func(Key) (Entry, bool), past func(Key) string) []Finding {
	var out list
	for _, k := range slices.SortedFunc(maps.Keys(t.from), Key.compare) {
		if s := t.from[k]; !s.moves { // for one that moves the table can't be right all the time
			t.source(&out, w, k, s.port, s.frames, look)
		}
	}
	owners := w.owners()
	for _, k := range slices.SortedFunc(maps.Keys(t.floods), Key.compare) {
		if t.floods[k].frames < floodsTold {
			continue
		}
		if _, ok := look(k); ok {
			continue // it has answered meanwhile
		}
		t.flood(&out, w, k, owners, past)
	}
	return out.told()
}

// source compares the only port that k spoke on with its entry.
func (t *Traffic) source(out *list, w *Wanted, k Key, in frame.PortID, n int, look func(Key) (Entry, bool)) {
	e, ok := look(k)
	subject := w.station(k)
	switch {
	case !ok:
		out.note(AreaTraffic, subject, "port "+w.port(in), "no entry", "raise fdb_limit, of the port or of the whole table; see `tapestry status`",
			"it speaks on port %s (%s) and is not in the table", w.port(in), count(n, "frame"))
	case e.Port != in && e.Static:
		out.note(AreaTraffic, subject, "static, port "+w.port(e.Port), "frames on port "+w.port(in), "correct the static entry, or find who uses the address on "+w.port(in),
			"its static entry names port %s, it speaks on port %s (%s)", w.port(e.Port), w.port(in), count(n, "frame"))
	case e.Port != in:
		out.note(AreaTraffic, subject, "port "+w.port(in), "port "+w.port(e.Port), "raise the fdb_limit of port "+w.port(in)+"; or it has just moved: tapestry fdb why "+k.MAC.String(),
			"it speaks on port %s (%s), the table has it behind port %s", w.port(in), count(n, "frame"), w.port(e.Port))
	}
}

// flood tells of an address that should be known and isn't.
func (t *Traffic) flood(out *list, w *Wanted, k Key, owners map[Key]frame.PortID, past func(Key) string) {
	what := fmt.Sprintf("%d frames for it from port %s were flooded", t.floods[k].frames, w.port(t.floods[k].by))
	static := fmt.Sprintf("tapestry fdb add %s %s PORT", w.Network(k.VID), k.MAC)
	if own, ok := owners[k]; ok {
		out.note(AreaTraffic, w.station(k), "port "+w.port(own), "no entry", static+" if it only listens; otherwise see why it is silent: tapestry capture --port "+w.port(own),
			"%s; it is the interface of port %s, which has not been heard for an ageing time", what, w.port(own))
		return
	}
	if before := past(k); before != "" {
		out.note(AreaTraffic, w.station(k), before, "no entry", fmt.Sprintf("raise `ageing` of network %s (%s) if it speaks more seldom, or %s", w.Network(k.VID), w.Ageing(k.VID), static),
			"%s; it was %s", what, before)
	}
}
