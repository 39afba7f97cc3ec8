package fdb

import "sync/atomic"

// OnStore has f called behind each store into the memory.
func (t *Table) OnStore(f func()) { t.stored = f }

// Greediest returns the head of the heap of ports.
func (t *Table) Greediest() (p, n int) {
	if len(t.heap) == 0 {
		return 0, 0
	}
	return int(t.heap[0]), int(t.heapCount(1))
}

// Word returns the value word of a new owner of a place, n owners on.
func Word(n int) uint64 {
	v := value(0)
	for range n {
		v = v.dead().fresh(1, 1)
	}
	return uint64(v)
}

// Slot returns the words of k in t.
func (t *Table) Slot(k Key) (key, val *atomic.Uint64) {
	b, i, _ := t.find(k)
	return &b[i].key, &b[i].val
}
