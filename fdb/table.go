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
	seed    [2]uint64
	opened  int                    // the limit of Open
	ageing  [1 << 12]atomic.Uint32 // by VID, ticks; 0 = never
	refresh [1 << 12]atomic.Uint32 // by VID: an entry this many ticks old stays as it is
	limit   atomic.Int64           // entries in all
	entries atomic.Int64           // live entries
	vids    [1 << 12]atomic.Int32  // live entries by VID
	sums    struct{ moves, evicted, aged, full atomic.Uint64 }

	mu     sync.Mutex // taken by everything that adds, moves or removes
	ports  []port     // by PortID
	heap   []frame.PortID
	rings  [2]ring
	order  uint64 // of the last record
	sweep  int    // next bucket to age
	hand   int    // next bucket to look for a victim in
	stored func() // called behind each store that shapes an entry or record; nil outside tests
}

// port is what the table knows about one port.
type port struct {
	count atomic.Int32 // dynamic entries
	limit int          // of count; 0 = none
	pos   int          // index in heap plus one; 0 = not there
	quota [2]quota     // by ring
}

// Lookup returns the port behind which k was last seen.
//
// Hot path: lock-free, at most sixteen keys are read.
func (t *Table) Lookup(k Key) (frame.PortID, bool) {
	b, _, v := t.find(k)
	return v.port(), b != nil
}

// Learn notes that k was seen on port p at now. It returns what it did, and the
// port that the entry names, or named before, when that is another one. teach
// is read only when the table changes; nil = no frame to remember.
//
// Hot path: lock-free as long as the outcome is Known, Refreshed or Static.
func (t *Table) Learn(k Key, p frame.PortID, now Tick, teach *Teacher) (Outcome, frame.PortID) {
	b, i, v := t.find(k)
	switch {
	case b == nil:
		return t.change(k, p, now, teach)
	case v.port() != p && v.static():
		return Static, v.port()
	case v.port() != p:
		return t.change(k, p, now, teach)
	case v.static() || v.age(now) <= t.refresh[k.VID()].Load():
		return Known, 0
	case b[i].val.CompareAndSwap(uint64(v), uint64(v.at(now))):
		return Refreshed, 0
	}
	return t.change(k, p, now, teach) // another loop was quicker, or it has just gone
}

// change is Learn under the lock.
func (t *Table) change(k Key, p frame.PortID, now Tick, teach *Teacher) (Outcome, frame.PortID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		b, i, v := t.find(k)
		switch {
		case b == nil:
			return t.insert(k, p, now, teach), 0
		case v.port() == p:
			return Known, 0
		case v.static():
			return Static, v.port()
		case t.atLimit(p):
			return PortLimit, v.port()
		}
		if !t.swap(&b[i].val, v, v.on(p).at(now).moved()) {
			continue // a refresh came between
		}
		t.count(k, v, -1)
		t.count(k, v.on(p), 1)
		t.sums.moves.Add(1)
		t.record(EventMoved, k, p, v.port(), teach)
		return Moved, v.port()
	}
}

// insert adds a dynamic entry for k, which is not there.
func (t *Table) insert(k Key, p frame.PortID, now Tick, teach *Teacher) Outcome {
	if t.atLimit(p) {
		return PortLimit
	}
	b, i := t.place(k, p, now, teach)
	if b == nil {
		t.sums.full.Add(1)
		return Full
	}
	v := value(b[i].val.Load()).fresh(p, now)
	t.put(b, i, k, v)
	t.record(EventLearned, k, p, 0, teach)
	return Inserted
}

// put writes a live entry into an empty place.
func (t *Table) put(b *bucket, i int, k Key, v value) {
	t.store(&b[i].key, uint64(k))
	t.store(&b[i].val, uint64(v))
	t.count(k, v, 1)
}

// remove takes the live entry v in place i away, and reports whether it was
// still as the caller has read it. The caller holds the lock, so that the key
// stands still.
func (t *Table) remove(b *bucket, i int, v value) bool {
	k := Key(b[i].key.Load())
	if !t.swap(&b[i].val, v, v.dead()) {
		return false
	}
	t.store(&b[i].key, 0)
	t.count(k, v, -1)
	return true
}

func (t *Table) atLimit(p frame.PortID) bool {
	q := &t.ports[p]
	if q.limit == 0 || int(q.count.Load()) < q.limit {
		return false
	}
	t.sums.full.Add(1)
	return true
}

func (t *Table) store(w *atomic.Uint64, v uint64) {
	w.Store(v)
	if t.stored != nil {
		t.stored()
	}
}

func (t *Table) swap(w *atomic.Uint64, old, new value) bool {
	ok := w.CompareAndSwap(uint64(old), uint64(new))
	if t.stored != nil {
		t.stored()
	}
	return ok
}

var errNoRoom = errors.New("the table is full of static entries; raise fdb_limit")

// AddStatic adds a static entry, or turns a dynamic one into it. A full table
// gives up a dynamic entry for it; the error says that there is none.
func (t *Table) AddStatic(k Key, p frame.PortID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		b, i, v := t.find(k)
		if b == nil {
			if b, i = t.place(k, 0, 0, nil); b == nil {
				return fmt.Errorf("add static entry %v in VLAN %v: %w", k.MAC(), k.VID(), errNoRoom)
			}
			t.put(b, i, k, value(b[i].val.Load()).fresh(p, 0)|staticBit)
			t.record(EventStatic, k, p, 0, nil)
			return nil
		}
		next := v.on(p).at(0) | staticBit
		if v == next {
			return nil
		}
		if t.swap(&b[i].val, v, next) {
			t.count(k, v, -1)
			t.count(k, next, 1)
			t.record(EventStatic, k, p, v.port(), nil)
			return nil
		}
	}
}

// Delete removes the entry of k, static or dynamic, and reports whether there
// was one.
func (t *Table) Delete(k Key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		b, i, v := t.find(k)
		if b == nil {
			return false
		}
		if t.remove(b, i, v) {
			t.record(EventRemoved, k, v.port(), 0, nil)
			return true
		}
	}
}

// Len is the number of entries, static ones included.
func (t *Table) Len() int { return int(t.entries.Load()) }

// Limit is how many entries the table may have.
func (t *Table) Limit() int { return int(t.limit.Load()) }

// PortLen is the number of dynamic entries that p owns.
func (t *Table) PortLen(p frame.PortID) int { return int(t.ports[p].count.Load()) }

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
