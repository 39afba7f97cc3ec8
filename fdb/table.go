package fdb

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Outcome is what Learn did.
type Outcome uint8

// Outcomes of Learn.
const (
	Known     Outcome = iota // the entry stands as it was
	Refreshed                // its age was set back
	Inserted                 // a new entry, perhaps in place of an evicted one
	Moved                    // the station is behind another port now
	Static                   // not moved: the entry is static and names another port
	Full                     // not learned: no entry could be taken from a greedier port
	PortLimit                // not learned or moved: the port is at its own limit
)

// Teacher is the frame that teaches, for the history. Learn keeps no reference.
type Teacher struct {
	Wall int64  // wall clock of the batch, nanoseconds since 1970
	Len  int    // the frame's length in octets
	Head []byte // its first octets, at least HeadLen if it has as many
}

// Counters are totals since this process opened the table.
type Counters struct {
	Moves   uint64 // stations that changed their port
	Evicted uint64 // entries taken by the table limit
	Aged    uint64 // entries gone by ageing
	Full    uint64 // times that Learn returned Full or PortLimit
}

// Table is the filtering database. Its methods may be called from any
// goroutine.
type Table struct {
	buckets []bucket
	notes   []notes
	usage   []atomic.Uint64 // by region, drawn in the package comment
	seed    [6]uint64
	opened  int                    // the limit of Open
	made    int64                  // wall clock of the first Open; 0 = not noted
	ageing  [1 << 12]atomic.Uint32 // by VID, ticks; 0 = never
	refresh [1 << 12]atomic.Uint32 // by VID: an entry this many ticks old stays as it is
	limit   atomic.Int64           // entries in all
	entries atomic.Int64           // live entries
	vids    [1 << 12]atomic.Int32  // live entries by VID
	owned   []atomic.Int32         // dynamic entries by PortID
	sums    struct{ moves, evicted, aged, full atomic.Uint64 }

	flush    sync.Mutex // one Flush at a time
	mu       sync.Mutex // taken by everything that adds, moves or removes
	ports    []port     // by PortID
	heap     []frame.PortID
	rings    [2]ring
	order    uint64  // of the last record
	sweep    uint64  // next bucket to age
	hand     uint64  // next bucket to look for a victim in
	flushing *Filter // what a Flush is about to remove; nil = none
	stored   func()  // called behind each store that shapes an entry or record; nil outside tests
}

// port is what the table knows about one port.
type port struct {
	limit int      // of its dynamic entries; 0 = none
	pos   int      // index in heap plus one; 0 = not there
	quota [2]quota // by ring
	moves uint64   // stations that moved to it
}

// Lookup returns the port behind which k was last seen.
//
// Hot path: lock-free, one cache line is read, or two.
func (t *Table) Lookup(k Key) (frame.PortID, bool) {
	_, w := t.probe(k)
	return w.port(), w != 0
}

// Learn notes that k was seen on port p at now. It returns what it did, and the
// port that the entry names, or named before, when that is another one. teach
// is read only when the table changes; nil = no frame to remember.
//
// Hot path: lock-free as long as the outcome is Known, Refreshed or Static.
func (t *Table) Learn(k Key, p frame.PortID, now Tick, teach *Teacher) (Outcome, frame.PortID) {
	at, w := t.find(k)
	switch {
	case w == 0:
		return t.change(k, p, now, teach)
	case w.static() && w.port() != p:
		return Static, w.port()
	case w.static():
		return Known, 0
	case w.port() != p:
		return t.change(k, p, now, teach)
	}
	n := note(t.note(at).Load())
	switch {
	case n == gone:
		return t.change(k, p, now, teach)
	case n.age(now) <= t.refresh[k.VID()].Load():
		return Known, 0
	case t.note(at).CompareAndSwap(uint32(n), uint32(n.at(now))):
		return Refreshed, 0
	}
	return t.change(k, p, now, teach) // another loop was quicker, or it has just gone
}

// change is Learn under the lock.
func (t *Table) change(k Key, p frame.PortID, now Tick, teach *Teacher) (Outcome, frame.PortID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, w := t.find(k)
	old := w.port()
	switch {
	case w == 0:
		return t.insert(k, p, now, teach), 0
	case old == p && w.static():
		return Known, 0
	case w.static():
		return Static, old
	case old == p:
		t.storeNote(at, note(t.note(at).Load()).at(now))
		return Refreshed, 0
	case t.atLimit(p):
		return PortLimit, old
	}
	t.storeNote(at, note(t.note(at).Load()).moved().at(now))
	t.storeWord(at, w.on(p))
	t.count(k, w, -1)
	t.count(k, w.on(p), 1)
	t.sums.moves.Add(1)
	t.ports[p].moves++
	t.record(EventMoved, k, p, old, teach)
	return Moved, old
}

// insert adds a dynamic entry for k, which is not there.
func (t *Table) insert(k Key, p frame.PortID, now Tick, teach *Teacher) Outcome {
	if t.atLimit(p) {
		return PortLimit
	}
	at, w, ok := t.place(k, p, now, teach)
	if !ok {
		t.sums.full.Add(1)
		return Full
	}
	t.put(at, k, w.on(p), note(0).at(now))
	t.record(EventLearned, k, p, 0, teach)
	return Inserted
}

// put makes k live in the empty place at. Nobody sees the note before the word.
func (t *Table) put(at place, k Key, w word, n note) {
	t.use(at.bucket)
	t.storeNote(at, n)
	t.storeWord(at, w)
	t.count(k, w, 1)
}

// remove takes the entry of k, whose word is w, out of its place.
func (t *Table) remove(at place, k Key, w word) {
	t.storeWord(at, 0)
	t.count(k, w, -1)
}

func (t *Table) atLimit(p frame.PortID) bool {
	q := &t.ports[p]
	if q.limit == 0 || int(t.owned[p].Load()) < q.limit {
		return false
	}
	t.sums.full.Add(1)
	return true
}

func (t *Table) storeWord(at place, w word) {
	t.word(at).Store(uint64(w))
	t.didStore()
}

func (t *Table) storeNote(at place, n note) {
	t.note(at).Store(uint32(n))
	t.didStore()
}

// swapNote replaces note n in place at and reports whether it was still there.
func (t *Table) swapNote(at place, n, next note) bool {
	ok := t.note(at).CompareAndSwap(uint32(n), uint32(next))
	t.didStore()
	return ok
}

func (t *Table) didStore() {
	if t.stored != nil {
		t.stored()
	}
}

var errNoRoom = errors.New("the table is full of static entries; raise fdb_limit")

// AddStatic adds a static entry, or turns a dynamic one into it. A full table
// gives up a dynamic entry for it; the error says that there is none.
func (t *Table) AddStatic(k Key, p frame.PortID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, w := t.find(k)
	if w == 0 {
		var ok bool
		if at, w, ok = t.place(k, 0, 0, nil); !ok {
			return fmt.Errorf("add static entry %v in VLAN %v: %w", k.MAC(), k.VID(), errNoRoom)
		}
		t.put(at, k, w.on(p)|staticBit, 0)
		t.record(EventStatic, k, p, 0, nil)
		return nil
	}
	next := w.on(p) | staticBit
	if w == next {
		return nil
	}
	t.storeWord(at, next)
	t.count(k, w, -1)
	t.count(k, next, 1)
	t.record(EventStatic, k, p, w.port(), before(w))
	return nil
}

// Delete removes the entry of k, static or dynamic, and reports whether there
// was one.
func (t *Table) Delete(k Key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, w := t.find(k)
	if w == 0 {
		return false
	}
	t.remove(at, k, w)
	t.record(EventRemoved, k, w.port(), 0, before(w))
	return true
}

// Len is the number of entries, static ones included.
func (t *Table) Len() int { return int(t.entries.Load()) }

// Limit is how many entries the table may have.
func (t *Table) Limit() int { return int(t.limit.Load()) }

// PortLen is the number of dynamic entries that p owns.
func (t *Table) PortLen(p frame.PortID) int { return int(t.owned[p].Load()) }

// PortMoves is how many stations have moved to p since this process opened the
// table.
func (t *Table) PortMoves(p frame.PortID) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ports[p].moves
}

// VIDLen is the number of entries of v, static ones included.
func (t *Table) VIDLen(v frame.VID) int { return int(t.vids[v&0xfff].Load()) }

// SetPortLimit bounds the dynamic entries of p; 0 = no bound. Entries beyond a
// new bound stay until they age.
func (t *Table) SetPortLimit(p frame.PortID, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ports[p].limit = max(0, n)
}

// SetLimit bounds the entries of the table, to at least 1 and at most the limit
// it was opened with. Entries beyond a new bound are evicted by the following
// Sweeps.
func (t *Table) SetLimit(n int) { t.limit.Store(int64(max(1, min(n, t.opened)))) }

// SetAgeing sets the ageing time of a VLAN, at most MaxAgeing; 0 means never.
// The ages of entries that never go are noted as with DefaultAgeing.
func (t *Table) SetAgeing(v frame.VID, d time.Duration) {
	ticks := ticksOf(d)
	t.ageing[v&0xfff].Store(ticks)
	if ticks == 0 {
		ticks = ticksOf(DefaultAgeing)
	}
	t.refresh[v&0xfff].Store(ticks / 8)
}

// Counters returns the totals.
func (t *Table) Counters() Counters {
	return Counters{
		Moves:   t.sums.moves.Load(),
		Evicted: t.sums.evicted.Load(),
		Aged:    t.sums.aged.Load(),
		Full:    t.sums.full.Load(),
	}
}
