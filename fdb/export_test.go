package fdb

// OnStore has f called behind each store into the memory.
func (t *Table) OnStore(f func()) { t.stored = f }

// Greediest returns the head of the heap of ports.
func (t *Table) Greediest() (p, n int) {
	if len(t.heap) == 0 {
		return 0, 0
	}
	return int(t.heap[0]), int(t.heapCount(1))
}

// KeyAt returns the key whose first bucket is bucket and whose rest is rest, or
// false if there is no such station.
func (t *Table) KeyAt(bucket, rest uint64) (Key, bool) {
	w := word(rest)<<restShift | liveBit
	k := t.key(bucket, w)
	bi, again := t.first(k)
	return k, bi == bucket && again == w && k.valid() && !k.MAC().IsGroup()
}

// WordOf returns where k is, as an offset in the memory, and its bucket.
func (t *Table) WordOf(k Key) (off int, bucket uint64) {
	p, _ := t.find(k)
	return frontLen(len(t.buckets)) + (int(p.bucket)*bucketLen+p.index)*8, p.bucket
}

// Homes returns the buckets of k, and what its words there say is its key.
func (t *Table) Homes(k Key) (first, second Key, x, y uint64) {
	x, wx := t.first(k)
	y, wy := t.second(x, wx)
	return t.key(x, wx), t.key(y, wy), x, y
}

// First returns the first bucket of k.
func (t *Table) First(k Key) uint64 {
	x, _ := t.first(k)
	return x
}

// AtOf returns the words of a note: made at now, after so many moves.
func AtOf(now Tick, moves int) uint32 { return uint32(note(moves).at(now)) }
