package fdb

import (
	"iter"
	"math/bits"
)

// regionLen buckets are a region: their words fill a page of 4 KiB. A region
// is noted as used before its first entry is written and stays so. Nobody walks
// through the pages of the others, so that they need no memory.
const regionLen = 64

// A word of the usage has a bit for each of 32 regions in its lower half, and
// the same inverted in the upper half. Where the halves disagree it is damaged,
// as it is when the memory has been zeroed, and all of its regions count as
// used: that costs memory but no entry.
const (
	usageBits = 32
	noneUsed  = 1<<64 - 1<<usageBits
	allUsed   = 1<<usageBits - 1
)

// usageLen is the number of words for the usage of so many buckets.
func usageLen(buckets int) int {
	return (buckets/regionLen + usageBits - 1) / usageBits
}

func goodUsage(u uint64) bool { return uint32(u) == ^uint32(u>>usageBits) }

// mend replaces the words of the usage that are damaged.
func (t *Table) mend() {
	for i := range t.usage {
		if !goodUsage(t.usage[i].Load()) {
			t.usage[i].Store(allUsed)
		}
	}
}

// used reports whether the region of bucket bi is used.
func (t *Table) used(bi uint64) bool {
	region := bi / regionLen
	return t.usage[region/usageBits].Load()>>(region%usageBits)&1 != 0
}

// use notes that the region of bucket bi is used. The caller holds the lock.
func (t *Table) use(bi uint64) {
	if t.used(bi) {
		return
	}
	region := bi / regionLen
	bit := uint64(1) << (region % usageBits)
	t.usage[region/usageBits].Add(bit - bit<<usageBits)
	t.didStore()
}

// places yields all places in used regions.
func (t *Table) places() iter.Seq[place] {
	return func(yield func(place) bool) {
		for i := range t.usage {
			for u := uint32(t.usage[i].Load()); u != 0; u &= u - 1 {
				region := uint64(i*usageBits + bits.TrailingZeros32(u))
				if !t.placesIn(region, yield) {
					return
				}
			}
		}
	}
}

// placesIn yields the places of a region. A damaged usage may name one beyond
// the last.
func (t *Table) placesIn(region uint64, yield func(place) bool) bool {
	for bi := region * regionLen; bi < min((region+1)*regionLen, t.n()); bi++ {
		for i := range bucketLen {
			if !yield(place{bi, i}) {
				return false
			}
		}
	}
	return true
}
