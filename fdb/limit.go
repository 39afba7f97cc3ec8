package fdb

import "github.com/tapestry-net/tapestry/switch/frame"

const (
	// victimEntries bounds the search for one victim. A port that owns a
	// hundredth of a full table is missed once in 10^11 searches, and in a table
	// of no more entries than this never.
	victimEntries = 2560
	// victimChoice is how many entries of the greediest ports the oldest is
	// chosen from.
	victimChoice = 4
)

// count adds n, 1 or -1, to the sums that word w of k belongs to.
func (t *Table) count(k Key, w word, n int) {
	t.entries.Add(int64(n))
	t.vids[k.VID()].Add(int32(n))
	if w.static() {
		return
	}
	t.owned[w.port()].Add(int32(n))
	t.sift(w.port())
}

// place returns an empty place for a new entry of k, learned on p (0 for a
// static one), and the word of k there. It evicts another entry if need be and
// reports whether it could.
func (t *Table) place(k Key, p frame.PortID, now Tick, teach *Teacher) (place, word, bool) {
	x, wx := t.first(k)
	y, wy := t.second(x, wx)
	at, w, ok := t.room(x, y, wx, wy)
	if ok && t.entries.Load() < t.limit.Load() {
		return at, w, true
	}
	c := t.victim(p, now)
	t.consider(&c, x)
	t.consider(&c, y)
	if ok {
		t.search(&c)
	}
	if !t.evict(&c, teach) {
		return place{}, 0, false
	}
	if ok {
		return at, w, true
	}
	if c.at.bucket == x { // room elsewhere is of no use
		return c.at, wx, true
	}
	return c.at, wy, true
}

// room returns an empty place in bucket x, the first of a key, or else in y, its
// second, with the word of the key there, wx or wy. If both are full, it makes
// room.
func (t *Table) room(x, y uint64, wx, wy word) (place, word, bool) {
	if i := t.buckets[x].empty(); i >= 0 {
		return place{x, i}, wx, true
	}
	if i := t.buckets[y].empty(); i >= 0 {
		return place{y, i}, wy, true
	}
	for i := range bucketLen {
		if p := (place{x, i}); t.giveWay(p) {
			return p, wx, true
		}
	}
	for i := range bucketLen {
		if p := (place{y, i}); t.giveWay(p) {
			return p, wy, true
		}
	}
	return place{}, 0, false
}

// giveWay moves the entry in place p from its first bucket to the second, if
// there is room. Only this direction is safe: a reader looks into the second
// bucket after the first, and finds the entry in one of them at least. Walk may
// miss it on its way, which is why static entries and those that are being
// flushed stay where they are.
func (t *Table) giveWay(p place) bool {
	w := word(t.word(p).Load())
	if w.static() || w&secondBit != 0 || t.flushing != nil && t.flushing.match(t.key(p.bucket, w), w) {
		return false
	}
	y, wy := t.second(p.bucket, w)
	i := t.buckets[y].empty()
	if i < 0 {
		return false
	}
	to := place{y, i}
	t.use(y)
	for {
		n := note(t.note(p).Load())
		t.storeNote(to, n)
		t.storeWord(to, wy)
		if t.swapNote(p, n, gone) {
			break // otherwise refreshed meanwhile
		}
	}
	t.storeWord(p, 0)
	return true
}

// victim is the best candidate for eviction so far.
type victim struct {
	now   Tick
	port  frame.PortID // of the learner
	own   int32        // its entries
	equal bool         // the learner is one of the greediest, which may take from each other
	floor int32        // a port with so many entries is as good as the greediest
	seen  int          // entries looked at
	met   int          // those of them that belong to the greediest ports

	at    place
	w     word  // 0 = none found
	count int32 // entries of its port, at most floor
	age   uint32
}

// victim returns a search for the learner p that has found nothing yet.
func (t *Table) victim(p frame.PortID, now Tick) victim {
	c := victim{now: now, port: p, own: t.owned[p].Load()}
	if len(t.heap) > 0 {
		top := t.heapCount(1)
		c.floor = top - top/64
		c.equal = c.floor < top && c.own >= c.floor
	}
	return c
}

// consider looks through bucket bi for a better victim: of a port with more
// entries, then older. A port with no more entries than the learner is out of
// the question, unless it is the learner or both are among the greediest.
func (t *Table) consider(c *victim, bi uint64) {
	b := &t.buckets[bi]
	for i := range b {
		w := word(b[i].Load())
		if w == 0 || w.static() {
			continue
		}
		c.seen++
		n := t.owned[w.port()].Load()
		most := n >= c.floor
		if n <= c.own && w.port() != c.port && !(most && c.equal) {
			continue
		}
		if most {
			n = c.floor
			c.met++
		}
		if n < c.count {
			continue
		}
		age := note(t.notes[bi][i].Load()).age(c.now)
		if c.w == 0 || n > c.count || age > c.age {
			c.at, c.w, c.count, c.age = place{bi, i}, w, n, age
		}
	}
}

// search goes on where the last one has stopped, until it has a choice of
// entries of the greediest ports. Ports within a sixty-fourth of the most count
// as equal, so that the search is short when many ports share a table.
func (t *Table) search(c *victim) {
	for range t.buckets {
		if c.met >= victimChoice || c.seen >= victimEntries {
			return
		}
		if t.used(t.hand) {
			t.consider(c, t.hand)
		}
		if t.hand++; t.hand == t.n() {
			t.hand = 0
		}
	}
}

// evict removes the victim and reports whether there was one.
func (t *Table) evict(c *victim, teach *Teacher) bool {
	if c.w == 0 {
		return false
	}
	k := t.key(c.at.bucket, c.w)
	t.remove(c.at, k, c.w)
	t.sums.evicted.Add(1)
	t.record(EventEvicted, k, c.w.port(), 0, teach)
	return true
}

// sift puts p, whose count has changed by one, in its place in the heap of
// ports by count, the greediest first. A port without entries is not in it.
func (t *Table) sift(p frame.PortID) {
	q := &t.ports[p]
	n := t.owned[p].Load()
	if q.pos == 0 {
		t.heap = append(t.heap, p)
		q.pos = len(t.heap)
	}
	for q.pos > 1 && n > t.heapCount(q.pos/2) {
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
func (t *Table) heapCount(pos int) int32 { return t.owned[t.heap[pos-1]].Load() }

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
