//go:build linux

package fdb_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// benchTable returns a table of n entries on 32 quiet ports, and their keys in
// random order.
func benchTable(b *testing.B, n, limit int) (*fdb.Table, []fdb.Key) {
	b.Helper()
	t := reopen(b, sharedMem(b, limit), limit)
	keys := make([]fdb.Key, n)
	for i := range keys {
		keys[i] = station(i)
		t.Learn(keys[i], frame.PortID(1+i%32), 0, nil)
	}
	rand.Shuffle(n, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return t, keys
}

// sharedMem returns memory as a worker has it: shared, in small pages.
func sharedMem(b *testing.B, limit int) []byte {
	b.Helper()
	mem, err := syscall.Mmap(-1, 0, fdb.Size(limit), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_ANON)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { syscall.Munmap(mem) })
	return mem
}

var names = map[int]string{10: "10", 1000: "1k", 100_000: "100k", 1 << 20: "1M"}

// BenchmarkLookup looks up known stations in random order. Keys is the time for
// reading the order alone, which all of these benchmarks include.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000, 1 << 20} {
		b.Run(names[n], func(b *testing.B) {
			t, keys := benchTable(b, n, 1<<20)
			b.ReportAllocs()
			lookups(b, t, keys)
		})
	}
	b.Run("keys", func(b *testing.B) {
		keys := make([]fdb.Key, 1<<20)
		for i := range keys {
			keys[i] = station(i)
		}
		var sum fdb.Key
		i := 0
		for b.Loop() {
			sum += keys[i]
			if i++; i == len(keys) {
				i = 0
			}
		}
		_ = sum
	})
}

// BenchmarkLookupMiss looks for stations that are not there.
func BenchmarkLookupMiss(b *testing.B) {
	t, keys := benchTable(b, 1<<20, 1<<20)
	for i := range keys {
		keys[i] ^= 1 << 40
	}
	lookups(b, t, keys)
}

func lookups(b *testing.B, t *fdb.Table, keys []fdb.Key) {
	b.Helper()
	found := 0
	i := 0
	for b.Loop() {
		if _, ok := t.Lookup(keys[i]); ok {
			found++
		}
		if i++; i == len(keys) {
			i = 0
		}
	}
	b.ReportMetric(float64(found)/float64(b.N), "found/op")
}

// BenchmarkLookupWhileLearning looks up known stations of quiet ports in a full
// table of 1,048,576 entries, while another goroutine teaches it new ones on a
// port that owns a sixteenth of it and replaces its own.
func BenchmarkLookupWhileLearning(b *testing.B) {
	for _, miss := range []bool{false, true} {
		b.Run(map[bool]string{false: "1M", true: "1M/miss"}[miss], func(b *testing.B) {
			t, keys := benchTable(b, 15<<16, 1<<20)
			if miss {
				for i := range keys {
					keys[i] ^= 1 << 40
				}
			}
			for i := range 1 << 16 {
				t.Learn(inVLAN(11, i), 100, 0, nil)
			}
			stop, done := make(chan struct{}), sync.WaitGroup{}
			learned := 0
			done.Go(func() {
				teach := &fdb.Teacher{Wall: 1e18, Len: 60, Head: make([]byte, 60)}
				for ; ; learned++ {
					select {
					case <-stop:
						return
					default:
						t.Learn(inVLAN(11, 1<<16+learned), 100, 0, teach)
					}
				}
			})
			lookups(b, t, keys)
			close(stop)
			done.Wait()
			b.ReportMetric(float64(learned)/b.Elapsed().Seconds(), "learned/s")
		})
	}
}

func BenchmarkLearnKnown(b *testing.B) {
	t, keys := benchTable(b, 1000, 1<<20)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		t.Learn(keys[i], frame.PortID(i%4+1), 0, nil)
		if i++; i == len(keys) {
			i = 0
		}
	}
}

// BenchmarkLearnNew teaches new stations: spare into a table with room, full
// into one where each has to evict another.
func BenchmarkLearnNew(b *testing.B) {
	teach := &fdb.Teacher{Wall: 1e18, Len: 60, Head: make([]byte, 60)}
	b.Run("spare", func(b *testing.B) {
		t := reopen(b, sharedMem(b, 1<<20), 1<<20)
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			if n&(1<<20-1) == 1<<20-1 {
				b.StopTimer()
				t = open(b, 1<<20)
				b.StartTimer()
			}
			t.Learn(station(n), frame.PortID(n%4+1), 0, teach)
			n++
		}
	})
	for _, ports := range []int{4, 1000} {
		b.Run(fmt.Sprintf("full/ports=%d", ports), func(b *testing.B) {
			t := reopen(b, sharedMem(b, 1<<20), 1<<20)
			for i := range 1 << 20 {
				t.Learn(station(i), frame.PortID(i%ports+1), 0, teach)
			}
			b.ReportAllocs()
			n := 1 << 20
			for b.Loop() {
				t.Learn(station(n), frame.PortID(n%ports+1), 0, teach)
				n++
			}
		})
	}
}

// BenchmarkSweep is one slice of 4,096 places of a full table: young where
// nothing has aged, old where everything has.
func BenchmarkSweep(b *testing.B) {
	b.Run("young", func(b *testing.B) {
		t, _ := benchTable(b, 1<<20, 1<<20)
		for b.Loop() {
			t.Sweep(0, 4096)
		}
	})
	b.Run("old", func(b *testing.B) {
		t, keys := benchTable(b, 1<<20, 1<<20)
		i := 0
		for b.Loop() {
			t.Sweep(1<<20, 4096)
			if i++; i == t.Places()/4096 {
				b.StopTimer()
				for j, k := range keys {
					t.Learn(k, frame.PortID(j%4+1), 0, nil)
				}
				i = 0
				b.StartTimer()
			}
		}
	})
}
