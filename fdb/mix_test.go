package fdb_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// colliding returns n stations with one first bucket, and the one behind it as
// their second.
func colliding(tab *fdb.Table, bucket uint64, n int) []fdb.Key {
	var keys []fdb.Key
	for rest := uint64(0); len(keys) < n; rest++ {
		if k, ok := tab.KeyAt(bucket, rest); ok {
			keys = append(keys, k)
		}
	}
	return keys
}

// TestWordTellsKey has every word in every bucket give back its key.
func TestWordTellsKey(t *testing.T) {
	for _, limit := range []int{1, 50_000, 1 << 20} {
		tab := open(t, limit)
		rapid.Check(t, func(t *rapid.T) {
			k := fdb.Key(rapid.Uint64Range(0, 1<<60-1).Draw(t, "key"))
			first, second, x, y := tab.Homes(k)
			if first != k || second != k {
				t.Fatalf("%#x: got %#x from the first bucket, %#x from the second", k, first, second)
			}
			if n := uint64(tab.Places() / 8); x == y || x >= n || y >= n {
				t.Fatalf("buckets %d and %d of %d", x, y, n)
			}
		})
	}
}

// TestSpread fills tables with stations that differ in few bits. Nearly all fit
// into its last place, and nearly all into the first of their two buckets. There
// are secrets that suit a set of stations badly, but few: most tables do well.
func TestSpread(t *testing.T) {
	const limit, tables = 48_000, 9
	for name, key := range map[string]func(i int) fdb.Key{
		"counting": station,
		"vendors": func(i int) fdb.Key {
			return fdb.MakeKey(1, frame.MACFromUint64(uint64(i>>15)<<41|uint64(i&0x7fff)<<25))
		},
		"strides": func(i int) fdb.Key { return inVLAN(1, i<<12) },
		"VLANs":   func(i int) fdb.Key { return inVLAN(frame.VID(1+i%4094), i/4094) },
		"halves":  func(i int) fdb.Key { return inVLAN(1, i%256<<30+i/256) },
	} {
		var bad []string
		for range tables {
			tab := open(t, limit)
			second := 0
			for i := range limit {
				k := key(i)
				tab.Learn(k, 1, 0, nil)
				if _, bucket := tab.WordOf(k); bucket != tab.First(k) {
					second++
				}
			}
			c := tab.Counters()
			if tab.Len() < limit-3 || c.Full+c.Evicted > 3 || second > limit/10 {
				bad = append(bad, fmt.Sprintf("length %d, counters %+v, %d in their second bucket", tab.Len(), c, second))
			}
		}
		if len(bad) > tables/2 {
			t.Errorf("%s: %d of %d tables:\n%s", name, len(bad), tables, strings.Join(bad, "\n"))
		}
	}
}

// TestBucketsFull teaches a station whose two buckets are full of others that
// cannot give way: one of them goes, though the table has room.
func TestBucketsFull(t *testing.T) {
	tab := open(t, 100)
	var all []fdb.Key
	for b := range uint64(3) {
		all = append(all, colliding(tab, b, 9)...)
	}
	for _, i := range []int{18, 19, 20, 21, 22, 23, 24, 25} { // bucket 2
		if err := tab.AddStatic(all[i], 5); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 8 {
		learn(t, tab, all[9+i], 1, fdb.Tick(i), fdb.Inserted, 0) // bucket 1
		learn(t, tab, all[i], 2, fdb.Tick(i), fdb.Inserted, 0)   // bucket 0
	}
	learn(t, tab, station(0), 2, 0, fdb.Inserted, 0)
	learn(t, tab, all[8], 3, 100, fdb.Inserted, 0)
	lookup(t, tab, all[0], 0) // the oldest of port 2, which has most
	lookup(t, tab, all[8], 3)
	if c := tab.Counters(); c.Evicted != 1 || tab.Len() != 25 {
		t.Errorf("length %d, counters %+v", tab.Len(), c)
	}
}
