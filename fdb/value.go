package fdb

import (
	"github.com/tapestry-net/tapestry/switch/frame"
)

// value is the second word of an entry, drawn in the package comment.
type value uint64

const (
	liveBit   value = 1 << 0
	staticBit value = 1 << 1

	reuseShift = 2
	movesShift = 18
	tickShift  = 26
	portShift  = 50

	reuseMask = 1<<16 - 1
	movesMask = 1<<8 - 1
	tickMask  = 1<<24 - 1
)

func (v value) live() bool         { return v&liveBit != 0 }
func (v value) static() bool       { return v&staticBit != 0 }
func (v value) reuse() uint64      { return uint64(v) >> reuseShift & reuseMask }
func (v value) moves() int         { return int(v >> movesShift & movesMask) }
func (v value) tick() uint32       { return uint32(v >> tickShift & tickMask) }
func (v value) port() frame.PortID { return frame.PortID(v >> portShift) }

// fresh is the value of a new owner of the place where v stands.
func (v value) fresh(p frame.PortID, now Tick) value {
	reuse := (v.reuse() + 1) & reuseMask
	return (value(reuse)<<reuseShift | liveBit).on(p).at(now)
}

// dead is what remains of v when its entry is removed: the reuse number.
func (v value) dead() value { return v & (reuseMask << reuseShift) }

func (v value) on(p frame.PortID) value {
	return v&(1<<portShift-1) | value(p)<<portShift
}

func (v value) at(now Tick) value {
	return v&^(tickMask<<tickShift) | value(now&tickMask)<<tickShift
}

func (v value) moved() value {
	if v.moves() == movesMask {
		return v
	}
	return v + 1<<movesShift
}

// ahead is how far an entry's tick may be in front of the reader's.
const ahead = 512 * 8

// age is how many ticks ago v was noted.
func (v value) age(now Tick) uint32 { return ageOf(v.tick(), now) }

func ageOf(tick uint32, now Tick) uint32 {
	d := (uint32(now) - tick) & tickMask
	if d > tickMask-ahead {
		return 0
	}
	return d
}

// find returns the bucket and place of k and its value, or no bucket.
func (t *Table) find(k Key) (*bucket, int, value) {
	x, y := t.hash(k)
	b := &t.buckets[x]
	if i, v, ok := b.find(k); ok {
		return b, i, v
	}
	b = &t.buckets[y]
	if i, v, ok := b.find(k); ok {
		return b, i, v
	}
	return nil, 0, 0
}

func (b *bucket) find(k Key) (int, value, bool) {
	for i := range b {
		if b[i].key.Load() == uint64(k) {
			if v, ok := b.read(i, k); ok {
				return i, v, true
			}
		}
	}
	return 0, 0, false
}

// read returns the value of k in place i, if k lives there. It goes round only
// when a writer has got further meanwhile.
func (b *bucket) read(i int, k Key) (value, bool) {
	v := value(b[i].val.Load())
	for v.live() {
		if b[i].key.Load() != uint64(k) {
			return 0, false
		}
		again := value(b[i].val.Load())
		if again == v {
			return v, true
		}
		v = again
	}
	return 0, false
}

// entryAt returns the entry in place i, whatever its key.
func (b *bucket) entryAt(i int) (Key, value, bool) {
	if !value(b[i].val.Load()).live() {
		return 0, 0, false
	}
	k := Key(b[i].key.Load())
	v, ok := b.read(i, k)
	return k, v, ok
}
