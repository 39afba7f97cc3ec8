package record

import (
	"math"
	"math/bits"
	"sync/atomic"
)

// The window is a ring of words. A word holds 16 neighbouring numbers, and the
// lap on which it is: the number divided by how many the ring holds.
//
//	63                       16 15                0
//	lap                        | one bit a number
const (
	wordBits  = 16
	words     = 128
	ringSize  = words * wordBits
	wordMask  = wordBits - 1
	lapShift  = wordBits
	windowLen = ringSize - wordBits
)

// Window remembers which sequence numbers were accepted. The zero Window has
// seen none.
type Window struct {
	highest atomic.Uint64 // accepted
	ring    [words]atomic.Uint64
}

// Seen reports whether n was accepted already, or is too old to tell. It is a
// hint: Mark decides.
//
// Hot path: no allocation.
func (w *Window) Seen(n uint64) bool {
	if n+windowLen <= w.highest.Load() {
		return true
	}
	word := w.ring[n/wordBits%words].Load()
	lap := n / ringSize
	return word>>lapShift > lap || word>>lapShift == lap && word&(1<<(n&wordMask)) != 0
}

// Mark accepts n, and reports false when it was accepted before or is too old.
// Of several goroutines that mark the same number, one is told true.
//
// Hot path: no allocation.
func (w *Window) Mark(n uint64) bool {
	if n+windowLen <= w.highest.Load() {
		return false
	}
	slot := &w.ring[n/wordBits%words]
	lap, bit := n/ringSize, uint64(1)<<(n&wordMask)
	for {
		old := slot.Load()
		word := old
		switch was := old >> lapShift; {
		case was > lap || was == lap && old&bit != 0:
			return false
		case was < lap:
			word = lap << lapShift
		}
		if slot.CompareAndSwap(old, word|bit) {
			break
		}
	}
	for h := w.highest.Load(); n > h && !w.highest.CompareAndSwap(h, n); h = w.highest.Load() {
	}
	return true
}

// retire makes w accept nothing any more, and returns what it has accepted.
func (w *Window) retire() (ring [words]uint64) {
	for i := range w.ring {
		ring[i] = w.ring[i].Swap(math.MaxUint64) // a lap that no number is on
	}
	return ring
}

// restore makes w, which is new, have accepted what retire returned. It reports
// false when no window can be like that.
func (w *Window) restore(ring *[words]uint64) bool {
	highest := uint64(0)
	for i, word := range ring {
		lap, seen := word>>lapShift, uint16(word)
		if lap > MaxSequence/ringSize {
			return false
		}
		w.ring[i].Store(word)
		if seen != 0 {
			highest = max(highest, lap*ringSize+uint64(i*wordBits+bits.Len16(seen)-1))
		}
	}
	w.highest.Store(highest)
	return true
}
