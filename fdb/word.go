package fdb

import (
	"sync/atomic"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// word is an entry as Lookup needs it, drawn in the package comment. 0 is an
// empty place.
type word uint64

const (
	staticBit word = 1 << 14
	liveBit   word = 1 << 15
	secondBit word = 1 << 16

	// told is beyond the bits that an entry does not share with the word that
	// its key asks for: port and static.
	told word = 1 << 15

	portMask  = 1<<14 - 1
	restShift = 17
)

func (w word) static() bool       { return w&staticBit != 0 }
func (w word) port() frame.PortID { return frame.PortID(w & portMask) }

func (w word) on(p frame.PortID) word { return w&^portMask | word(p) }

// note is what else there is to know about an entry, drawn in the package
// comment.
type note uint32

const (
	tickShift = 8
	tickMask  = 1<<24 - 1
	movesMask = 1<<8 - 1

	// gone is the note of an entry that is just leaving its place, for good or
	// for its other bucket: who wants to refresh it has to take the lock.
	gone note = 1<<32 - 1
)

func (n note) moves() int   { return int(n & movesMask) }
func (n note) tick() uint32 { return uint32(n >> tickShift) }

// at is n of now. What would look like gone becomes a tick older.
func (n note) at(now Tick) note {
	n = note(now&tickMask)<<tickShift | n&movesMask
	if n == gone {
		n -= 1 << tickShift
	}
	return n
}

func (n note) moved() note {
	if n.moves() == movesMask {
		return n
	}
	return n + 1
}

// ahead is how far an entry's tick may be in front of the reader's.
const ahead = 512 * 8

// age is how many ticks ago n was noted.
func (n note) age(now Tick) uint32 { return ageOf(n.tick(), now) }

func ageOf(tick uint32, now Tick) uint32 {
	d := (uint32(now) - tick) & tickMask
	if d > tickMask-ahead {
		return 0
	}
	return d
}

// bucket is the words of one cache line, and notes are the notes beside them.
type (
	bucket [bucketLen]atomic.Uint64
	notes  [bucketLen]atomic.Uint32
)

// index returns the place of w, which probe has found, or -1 if it has changed
// since.
func (b *bucket) index(w word) int {
	for i := range b {
		if word(b[i].Load()) == w {
			return i
		}
	}
	return -1
}

// empty returns the first empty place, or -1.
func (b *bucket) empty() int { return b.index(0) }

// place is where an entry is.
type place struct {
	bucket uint64
	index  int
}

func (t *Table) word(p place) *atomic.Uint64 { return &t.buckets[p.bucket][p.index] }
func (t *Table) note(p place) *atomic.Uint32 { return &t.notes[p.bucket][p.index] }

// read returns word and note in place p, which belong together, or ok = false
// if nobody lives there. It goes round only when a writer has got further
// meanwhile.
func (t *Table) read(p place) (w word, n note, ok bool) {
	at := t.word(p)
	w = word(at.Load())
	for w != 0 {
		n = note(t.note(p).Load())
		again := word(at.Load())
		if again == w {
			return w, n, n != gone || w.static()
		}
		w = again
	}
	return 0, 0, false
}

// probe returns the bucket and the word of k, or word 0.
//
// Hot path: it compares all words of a bucket without a branch, and the nearest
// one differs from the wanted one in port and static bit alone if the entry is
// there. The first branch that depends on the table then nearly always goes the
// same way, so that the processor runs on to the next frame's lookup while it
// waits for memory. For the same reason all is in this one function.
func (t *Table) probe(k Key) (bi uint64, w word) {
	l, r := t.mix(k)
	bi, want := t.home(l, r)
	b := &t.buckets[bi]
	for {
		w := uint64(want)
		d0, d1, d2, d3 := b[0].Load()^w, b[1].Load()^w, b[2].Load()^w, b[3].Load()^w
		d4, d5, d6, d7 := b[4].Load()^w, b[5].Load()^w, b[6].Load()^w, b[7].Load()^w
		d := word(min(min(min(d0, d1), min(d2, d3)), min(min(d4, d5), min(d6, d7))))
		if d < told {
			return bi, want ^ d
		}
		if want&secondBit != 0 {
			return 0, 0
		}
		bi, want = t.second(bi, want)
		b = &t.buckets[bi]
	}
}

// find returns the place and the word of k, or word 0.
func (t *Table) find(k Key) (place, word) {
	for {
		bi, w := t.probe(k)
		if w == 0 {
			return place{}, 0
		}
		if i := t.buckets[bi].index(w); i >= 0 {
			return place{bi, i}, w
		}
		// It has moved to another port, or left, this very moment.
	}
}
