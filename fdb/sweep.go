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
		b := &t.buckets[t.sweep]
		if t.sweep++; t.sweep == len(t.buckets) {
			t.sweep = 0
		}
		for i := range b {
			k, v, ok := b.entryAt(i)
			if !ok || v.static() {
				continue
			}
			age, limit := v.age(now), t.ageing[k.VID()].Load()
			switch {
			case limit != 0 && age >= limit:
				if !t.remove(b, i, v) {
					continue // its source has just spoken
				}
				if aged++; aged == 1 {
					clock.Wall = time.Now().UnixNano()
				}
				t.record(EventAged, k, v.port(), 0, &clock)
			case age > holdAge:
				t.swap(&b[i].val, v, v.at(now-heldAge))
			}
		}
	}
	t.sums.aged.Add(uint64(aged))
	t.trim(now)
	return aged
}

// trim evicts some of the entries beyond the table limit.
func (t *Table) trim(now Tick) {
	for range min(t.entries.Load()-t.limit.Load(), trimLen) {
		c := t.greedy(0, now)
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

func (f Filter) match(k Key, v value) bool {
	return (f.VID == 0 || f.VID == k.VID()) &&
		(f.Port == 0 || f.Port == v.port()) &&
		(f.MAC.IsZero() || f.MAC == k.MAC())
}

// Flush removes the dynamic entries that f selects and returns how many. It
// takes the lock for one entry at a time.
func (t *Table) Flush(f Filter) int {
	clock := Teacher{Wall: time.Now().UnixNano()}
	n := 0
	for bi := range t.buckets {
		b := &t.buckets[bi]
		for i := range b {
			k, v, ok := b.entryAt(i)
			if ok && !v.static() && f.match(k, v) && t.flush(k, f, &clock) {
				n++
			}
		}
	}
	return n
}

// flush removes the entry of k if f still selects it.
func (t *Table) flush(k Key, f Filter, clock *Teacher) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		b, i, v := t.find(k)
		if b == nil || v.static() || !f.match(k, v) {
			return false
		}
		if t.remove(b, i, v) {
			t.record(EventFlushed, k, v.port(), 0, clock)
			return true
		}
	}
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
// and comes may appear twice.
func (t *Table) Walk(f func(Entry) bool) {
	for bi := range t.buckets {
		b := &t.buckets[bi]
		for i := range b {
			k, v, ok := b.entryAt(i)
			if ok && !f(entryOf(k, v)) {
				return
			}
		}
	}
}

// Entry returns the row of k.
func (t *Table) Entry(k Key) (Entry, bool) {
	b, _, v := t.find(k)
	return entryOf(k, v), b != nil
}

func entryOf(k Key, v value) Entry {
	return Entry{VID: k.VID(), MAC: k.MAC(), Port: v.port(), Static: v.static(), Moves: v.moves(), tick: v.tick()}
}
