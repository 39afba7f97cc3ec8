package record

import "sync/atomic"

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
