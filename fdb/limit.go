package fdb

import "github.com/tapestry-net/tapestry/switch/frame"

const (
	// firstFill is how full a key's first bucket gets before the second is tried:
	// a higher number spares lookups the second one, and leaves less room to
	// level out.
	firstFill = 5

	// victimPlaces bounds the search for one victim. A port that owns a
	// hundredth of a full table is missed once in 10^11 searches.
	victimPlaces = 4096
	// victimChoice is how many entries of the greediest port the oldest is
	// chosen from.
	victimChoice = 4
)

// count adds n, 1 or -1, to the sums that v of k belongs to.
func (t *Table) count(k Key, v value, n int) {
	t.entries.Add(int64(n))
	t.vids[k.VID()].Add(int32(n))
	if v.static() {
		return
	}
	t.ports[v.port()].count.Add(int32(n))
	t.sift(v.port())
}

// place returns an empty place for a new entry of k, learned on p (0 for a
// static one), evicting another entry if need be. It returns nil when none may
// be evicted.
func (t *Table) place(k Key, p frame.PortID, now Tick, teach *Teacher) (*bucket, int) {
	x, y := t.hash(k)
	b, i := t.emptier(x, y)
	if b == nil { // room elsewhere is of no use
		c := t.victim(now)
		t.consider(&c, x, p)
		t.consider(&c, y, p)
		if !t.evict(&c, teach) {
			return nil, 0
		}
		b, i = c.b, c.i
	}
	if t.entries.Load() >= t.limit.Load() {
		c := t.greedy(p, now)
		if !t.evict(&c, teach) {
			return nil, 0
		}
	}
	return b, i
}

// emptier returns an empty place: in the first bucket while it is not very
// full, then in the one that has more of them.
func (t *Table) emptier(x, y int) (*bucket, int) {
	bx, by := &t.buckets[x], &t.buckets[y]
	ix, nx := bx.empty()
	iy, ny := by.empty()
	switch {
	case nx == 0 && ny == 0:
		return nil, 0
	case nx > bucketLen-firstFill || nx >= ny:
		return bx, ix
	}
	return by, iy
}

// empty returns the first empty place and how many there are.
func (b *bucket) empty() (first, n int) {
	for i := bucketLen - 1; i >= 0; i-- {
		if !value(b[i].val.Load()).live() {
			first = i
			n++
		}
	}
	return first, n
}

// victim is the best candidate for eviction so far.
type victim struct {
	now   Tick
	b     *bucket
	i     int
	v     value
	floor int32 // a port with so many entries is as good as the greediest
	count int32 // entries of its port, at most floor
	age   uint32
}

// victim returns a search that has found nothing yet.
func (t *Table) victim(now Tick) victim {
	c := victim{now: now}
	if len(t.heap) > 0 {
		top := t.heapCount(1)
		c.floor = top - top/64
	}
	return c
}

// consider looks through bucket bi for a better victim: of a port with more
// entries, then older. A port with no more entries than the learner p is out
// of the question unless it is p. It returns how many entries of the greediest
// ports it met.
func (t *Table) consider(c *victim, bi int, p frame.PortID) (met int) {
	b := &t.buckets[bi]
	own := t.ports[p].count.Load()
	for i := range b {
		v := value(b[i].val.Load())
		if !v.live() || v.static() {
			continue
		}
		q := v.port()
		n := t.ports[q].count.Load()
		if q != p && n <= own {
			continue
		}
		if n >= c.floor {
			n = c.floor
			met++
		}
		if n < c.count {
			continue
		}
		if age := v.age(c.now); n > c.count || age > c.age {
			c.b, c.i, c.v, c.count, c.age = b, i, v, n, age
		}
	}
	return met
}

// greedy looks for a victim of the port with the most dynamic entries. Ports
// within a sixty-fourth of that number count as equal, so that the search is
// short when many ports share a table; a learner among the greediest finds its
// own entries before those of a port that has no more than it.
func (t *Table) greedy(p frame.PortID, now Tick) victim {
	c := t.victim(now)
	met := 0
	for range min(victimPlaces/bucketLen, len(t.buckets)) {
		met += t.consider(&c, t.hand, p)
		if t.hand++; t.hand == len(t.buckets) {
			t.hand = 0
		}
		if met >= victimChoice {
			break
		}
	}
	return c
}

// evict removes the victim and reports whether there was one.
func (t *Table) evict(c *victim, teach *Teacher) bool {
	if c.b == nil {
		return false
	}
	k := Key(c.b[c.i].key.Load())
	for !t.remove(c.b, c.i, c.v) {
		c.v = value(c.b[c.i].val.Load()) // refreshed meanwhile
	}
	t.sums.evicted.Add(1)
	t.record(EventEvicted, k, c.v.port(), 0, teach)
	return true
}

// sift puts p, whose count has changed by one, in its place in the heap of
// ports by count, the greediest first. A port without entries is not in it.
func (t *Table) sift(p frame.PortID) {
	q := &t.ports[p]
	n := q.count.Load()
	if q.pos == 0 {
		t.heap = append(t.heap, p)
		q.pos = len(t.heap)
	}
	for q.pos > 1 && n > t.ports[t.heap[q.pos/2-1]].count.Load() {
		t.exchange(q.pos, q.pos/2)
	}
	for {
		child := 2 * q.pos
		if child < len(t.heap) && t.heapCount(child+1) > t.heapCount(child) {
			child++
		}
		if child > len(t.heap) || n >= t.heapCount(child) {
			break
		}
		t.exchange(q.pos, child)
	}
	if n == 0 {
		t.dropLast(p)
	}
}

// heapCount is the count of the port at position pos, from 1.
func (t *Table) heapCount(pos int) int32 { return t.ports[t.heap[pos-1]].count.Load() }

// exchange swaps two positions of the heap.
func (t *Table) exchange(a, b int) {
	p, q := t.heap[a-1], t.heap[b-1]
	t.heap[a-1], t.heap[b-1] = q, p
	t.ports[p].pos, t.ports[q].pos = b, a
}

// dropLast takes p out of the heap. Its count is 0 and that of all others is
// not, so it has sunk to a leaf; the last leaf takes its position.
func (t *Table) dropLast(p frame.PortID) {
	pos, last := t.ports[p].pos, len(t.heap)
	t.exchange(pos, last)
	t.ports[p].pos = 0
	t.heap = t.heap[:last-1]
	if pos < last {
		t.sift(t.heap[pos-1])
	}
}
