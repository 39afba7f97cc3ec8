package fdb

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Past is the table as it was at one moment: the present one, with every event
// of the history since then undone. It is a copy and never changes.
type Past struct {
	// Reach is from when on the history is whole, nanoseconds since 1970. Of an
	// earlier moment no row is known for sure.
	Reach int64
	// Missed is how many events since the moment were left out of the history,
	// because a port had more of them than its share.
	Missed uint64

	rows []pastRow
}

// PastEntry is one row of Past. Moves counts those that are remembered.
type PastEntry struct {
	Entry
	// Heard is the wall clock of the last sign of life, up to the moment, that
	// is remembered: 0 if none is, or if the entry is static. There may have
	// been a later one.
	Heard int64
	// Known is false when an event that is no longer remembered may have put
	// the entry there since.
	Known bool
}

// pastRow is a row of the present on its way to becoming one of the past. A
// full table has a million of them.
type pastRow struct {
	key    Key
	heard  int64
	port   frame.PortID // 0 = there is no entry
	moves  uint8
	static bool
	known  bool
}

// Rows yields the rows by VLAN and address.
func (p Past) Rows() iter.Seq[PastEntry] {
	return func(yield func(PastEntry) bool) {
		for _, r := range p.rows {
			e := Entry{VID: r.key.VID(), MAC: r.key.MAC(), Port: r.port, Static: r.static, Moves: int(r.moves)}
			if !yield(PastEntry{Entry: e, Heard: r.heard, Known: r.known}) {
				return
			}
		}
	}
}

// At returns the table as it was at the wall clock wall, of VLAN v or of all
// with v = 0. now is the present tick. Where the wall clock was set back, the
// later of the two moments counts.
//
// Only copying the history takes the lock. An entry that changes its bucket in
// that very moment may be missing, as with Walk.
func (t *Table) At(wall int64, v frame.VID, now Tick) Past {
	p := Past{rows: make([]pastRow, 0, t.roughly(v))}
	clock := time.Now().UnixNano()
	// The present is read before the history is: of a station that changes
	// meanwhile the history knows, and then the present doesn't matter.
	t.Walk(func(e Entry) bool {
		if v == 0 || e.VID == v {
			p.rows = append(p.rows, pastRow{
				key: MakeKey(e.VID, e.MAC), port: e.Port, static: e.Static, moves: uint8(e.Moves),
				heard: clock - int64(e.Age(now)),
			})
		}
		return true
	})
	all := t.snapshot()
	reach, gaps := t.completeness(all)
	p.Reach = reach
	for _, g := range gaps {
		if g.to > wall {
			p.Missed += g.missed
		}
	}
	stories := storiesOf(all, wall, v)
	for _, r := range p.rows {
		if s := stories[r.key]; s != nil {
			s.present = true
		}
	}
	for k, s := range stories {
		if s.next != nil && !s.present {
			p.rows = append(p.rows, pastRow{key: k})
		}
	}
	for i := range p.rows {
		p.rows[i].undo(stories[p.rows[i].key], wall, reach, gaps)
	}
	p.rows = slices.DeleteFunc(p.rows, func(r pastRow) bool { return r.port == 0 })
	slices.SortFunc(p.rows, func(a, b pastRow) int {
		return cmp.Or(cmp.Compare(a.key.VID(), b.key.VID()), cmp.Compare(a.key, b.key))
	})
	p.rows = slices.CompactFunc(p.rows, func(a, b pastRow) bool { return a.key == b.key })
	return p
}

// roughly is how many rows there are to make room for.
func (t *Table) roughly(v frame.VID) int {
	if v == 0 {
		return t.Len()
	}
	return t.VIDLen(v)
}

// story is what the history tells of one station around a moment.
type story struct {
	last  *record // up to the moment
	next  *record // after it
	moves int     // since it was learned, up to the moment
	since int     // moves after the moment, in the same life
	over  bool    // that life has ended since

	present bool // there is an entry now
}

// storiesOf reads the records of all stations, which are in order.
func storiesOf(all []record, wall int64, v frame.VID) map[Key]*story {
	cut := len(all)
	for cut > 0 && int64(all[cut-1].wall) > wall {
		cut--
	}
	out := map[Key]*story{}
	for i := range all {
		r := &all[i]
		k := Key(r.key)
		if v != 0 && k.VID() != v {
			continue
		}
		s := out[k]
		if s == nil {
			s = &story{}
			out[k] = s
		}
		moved := r.event() == EventMoved
		switch {
		case i < cut && moved:
			s.last = r
			s.moves++
		case i < cut:
			s.last = r
			if r.event() != EventStatic {
				s.moves = 0
			}
		default:
			if s.next == nil {
				s.next = r
			}
			s.over = s.over || !moved && r.event() != EventStatic
			if moved && !s.over {
				s.since++
			}
		}
	}
	return out
}

// undo makes r, a row of the present or one that isn't there, what it was at
// wall according to its story s, which may be nil.
func (r *pastRow) undo(s *story, wall, reach int64, gaps []gap) {
	if s == nil {
		s = &story{}
	}
	until := int64(math.MaxInt64)
	if s.next != nil {
		until = int64(s.next.wall)
		r.port, r.static = s.next.before()
	}
	if s.over || r.moves == movesMask && s.since > 0 {
		r.moves = uint8(min(s.moves, movesMask))
	} else {
		r.moves -= min(r.moves, uint8(min(s.since, movesMask)))
	}
	r.known = wall >= reach
	if s.last != nil && int64(s.last.wall) >= reach { // what followed an older one may be lost
		port, static := s.last.after()
		r.known = r.known && port == r.port && static == r.static
	}
	for _, g := range gaps {
		if g.port == r.port && g.to > wall && g.from < until {
			r.known = false
		}
	}
	if s.over || r.heard > wall {
		r.heard = 0
	}
	if s.last != nil && s.last.event().taught() {
		r.heard = max(r.heard, int64(s.last.wall))
	}
	if r.static {
		r.heard = 0
	}
}

// before is where the station was before the event, 0 = nowhere.
func (r *record) before() (p frame.PortID, static bool) {
	switch r.event() {
	case EventLearned:
		return 0, false
	case EventMoved:
		return r.old(), false
	case EventStatic:
		return r.old(), r.wasStatic()
	case EventRemoved:
		return r.port(), r.wasStatic()
	}
	return r.port(), false
}

// after is where the station was after it.
func (r *record) after() (p frame.PortID, static bool) {
	switch r.event() {
	case EventLearned, EventMoved:
		return r.port(), false
	case EventStatic:
		return r.port(), true
	}
	return 0, false
}

// gap is a time in which events of a port were left out.
type gap struct {
	port     frame.PortID
	from, to int64 // wall clocks
	missed   uint64
}

// completeness returns from when on the records all are whole, and the gaps
// that quotas have left in them.
func (t *Table) completeness(all []record) (reach int64, gaps []gap) {
	type line struct {
		port frame.PortID
		ring bool
	}
	last := map[line]int64{}
	for i := range all {
		r := &all[i]
		l := line{r.port(), r.event().change()}
		if r.missed > 0 {
			gaps = append(gaps, gap{l.port, last[l], int64(r.wall), r.missed})
		}
		last[l] = int64(r.wall)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for p := range t.ports {
		for i, q := range t.ports[p].quota {
			if q.missed > 0 {
				l := line{frame.PortID(p), i == 1}
				gaps = append(gaps, gap{l.port, last[l], math.MaxInt64, q.missed})
			}
		}
	}
	reach = t.made
	if reach == 0 && len(all) > 0 {
		reach = int64(all[0].wall)
	}
	for i := range t.rings {
		g := &t.rings[i]
		if g.used == len(g.records) {
			reach = max(reach, int64(g.records[g.next].wall))
		}
	}
	return reach, gaps
}

// Reach is from when on the history is whole, nanoseconds since 1970.
func (t *Table) Reach() int64 {
	reach, _ := t.completeness(t.snapshot())
	return reach
}
