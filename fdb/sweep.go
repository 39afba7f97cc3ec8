package fdb

import (
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	// holdAge is the age beyond which Sweep sets an entry's tick anew, to an age
	// of heldAge: above MaxAgeing, and far enough from where ticks come round.
	holdAge = 12_000_000
	heldAge = 10_000_000

	// trimLen is how many entries one Sweep evicts at most when SetLimit has
	// left too many.
	trimLen = 64
)

// Sweep looks at the next budget places, round and round, removes the entries
// that are too old, and returns how many it removed. It holds the lock
// meanwhile: 4,096 places take less than a millisecond even when all are old.
func (t *Table) Sweep(now Tick, budget int) (aged int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var clock Teacher
	for range min((budget+bucketLen-1)/bucketLen, len(t.buckets)) {
		bi := t.sweep
		if t.sweep++; t.sweep == t.n() {
			t.sweep = 0
		}
		if !t.used(bi) {
			continue
		}
		for i := range bucketLen {
			k, gone := t.ageOut(place{bi, i}, now)
			if gone == 0 {
				continue
			}
			if aged++; aged == 1 {
				clock.Wall = time.Now().UnixNano()
			}
			t.record(EventAged, k, gone, 0, &clock)
		}
	}
	t.sums.aged.Add(uint64(aged))
	t.trim(now)
	return aged
}

// ageOut removes the entry in place at if it is too old, and returns its key
// and port then, otherwise port 0. A source that speaks at that very moment
// keeps its entry: its refresh and the note gone exclude each other.
func (t *Table) ageOut(at place, now Tick) (Key, frame.PortID) {
	w := word(t.word(at).Load())
	if w == 0 || w.static() {
		return 0, 0
	}
	n := note(t.note(at).Load())
	age := n.age(now)
	if age == 0 {
		return 0, 0
	}
	k := t.key(at.bucket, w)
	limit := t.ageing[k.VID()].Load()
	switch {
	case limit != 0 && age >= limit:
		if !t.swapNote(at, n, gone) {
			return 0, 0
		}
		t.remove(at, k, w)
		return k, w.port()
	case age > holdAge:
		t.swapNote(at, n, n.at(now-heldAge))
	}
	return 0, 0
}

// trim evicts some of the entries beyond the table limit.
func (t *Table) trim(now Tick) {
	for range min(t.entries.Load()-t.limit.Load(), trimLen) {
		c := t.victim(0, now)
		t.search(&c)
		if !t.evict(&c, nil) {
			return
		}
	}
}

// Places is how many places a whole round of Sweep has.
func (t *Table) Places() int { return len(t.buckets) * bucketLen }

// Filter selects entries; a zero field matches all.
type Filter struct {
	VID  frame.VID
	Port frame.PortID
	MAC  frame.MAC
}

func (f Filter) match(k Key, w word) bool {
	return (f.VID == 0 || f.VID == k.VID()) &&
		(f.Port == 0 || f.Port == w.port()) &&
		(f.MAC.IsZero() || f.MAC == k.MAC())
}

// Flush removes the dynamic entries that f selects and returns how many. It
// takes the lock for one entry at a time.
func (t *Table) Flush(f Filter) int {
	t.flush.Lock()
	defer t.flush.Unlock()
	t.setFlushing(&f)
	defer t.setFlushing(nil)
	clock := Teacher{Wall: time.Now().UnixNano()}
	n := 0
	for p := range t.places() {
		w, _, ok := t.read(p)
		if !ok || w.static() {
			continue
		}
		if k := t.key(p.bucket, w); f.match(k, w) && t.flushKey(k, f, &clock) {
			n++
		}
	}
	return n
}

func (t *Table) setFlushing(f *Filter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flushing = f
}

// flushKey removes the entry of k if f still selects it.
func (t *Table) flushKey(k Key, f Filter, clock *Teacher) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, w := t.find(k)
	if w == 0 || w.static() || !f.match(k, w) {
		return false
	}
	t.remove(at, k, w)
	t.record(EventFlushed, k, w.port(), 0, clock)
	return true
}

// Entry is one row of the table.
type Entry struct {
	VID    frame.VID
	MAC    frame.MAC
	Port   frame.PortID
	Static bool
	Moves  int // how often it changed its port; stops at 255

	tick uint32
}

// Age is how long ago the source was last noted, 0 for a static entry.
func (e Entry) Age(now Tick) time.Duration {
	if e.Static {
		return 0
	}
	return time.Duration(ageOf(e.tick, now)) * tickLen
}

// Walk calls f for every entry, in no order, until f returns false. It takes no
// lock: an entry that comes or goes meanwhile may be missing, and one that goes
// and comes, or changes its bucket, may be missing or appear twice.
func (t *Table) Walk(f func(Entry) bool) {
	for p := range t.places() {
		w, n, ok := t.read(p)
		if ok && !f(entryOf(t.key(p.bucket, w), w, n)) {
			return
		}
	}
}

// Entry returns the row of k.
func (t *Table) Entry(k Key) (Entry, bool) {
	for {
		p, found := t.find(k)
		if found == 0 {
			return Entry{}, false
		}
		// In a moment like this it may have left the place.
		if w, n, ok := t.read(p); ok && (w^found)&^(told-1) == 0 {
			return entryOf(k, w, n), true
		}
	}
}

func entryOf(k Key, w word, n note) Entry {
	return Entry{VID: k.VID(), MAC: k.MAC(), Port: w.port(), Static: w.static(), Moves: n.moves(), tick: n.tick()}
}
