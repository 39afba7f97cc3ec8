//go:build linux

package fdb_test

import (
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// benchTable returns a table of n entries on four ports, and their keys in an
// order that has nothing to do with their places.
func benchTable(b *testing.B, n, limit int) (*fdb.Table, []fdb.Key) {
	b.Helper()
	t := reopen(b, hugeMem(b, limit), limit)
	keys := make([]fdb.Key, n)
	for i := range keys {
		keys[i] = station(i)
		t.Learn(keys[i], frame.PortID(i%4+1), 0, nil)
	}
	return t, keys
}

// hugeMem returns memory in huge pages, if the machine has them.
func hugeMem(b *testing.B, limit int) []byte {
	b.Helper()
	size := fdb.Size(limit)
	mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { syscall.Munmap(mem) })
	_ = syscall.Madvise(mem, syscall.MADV_HUGEPAGE) // small pages do too
	return mem
}

var names = map[int]string{10: "10", 1000: "1k", 100_000: "100k", 1 << 20: "1M"}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000, 1 << 20} {
		b.Run(names[n], func(b *testing.B) {
			t, keys := benchTable(b, n, 1<<20)
			b.ReportAllocs()
			lookups(b, t, keys)
		})
	}
}

// BenchmarkLookupMiss looks for stations that are not there.
func BenchmarkLookupMiss(b *testing.B) {
	t, keys := benchTable(b, 1<<20, 1<<20)
	for i := range keys {
		keys[i] = station(i + 1<<20)
	}
	lookups(b, t, keys)
}

func lookups(b *testing.B, t *fdb.Table, keys []fdb.Key) {
	b.Helper()
	var sum frame.PortID
	i := 0
	for b.Loop() {
		p, _ := t.Lookup(keys[i])
		sum += p
		if i++; i == len(keys) {
			i = 0
		}
	}
	_ = sum
}

// BenchmarkLookupWhileLearning looks up while another goroutine teaches a full
// table new stations as fast as it can.
func BenchmarkLookupWhileLearning(b *testing.B) {
	b.Run("1M", func(b *testing.B) {
		t, keys := benchTable(b, 1<<20, 1<<20)
		stop, done := make(chan struct{}), sync.WaitGroup{}
		done.Go(func() {
			teach := &fdb.Teacher{Wall: 1e18, Len: 60, Head: make([]byte, 60)}
			for i := 1 << 20; ; i++ {
				select {
				case <-stop:
					return
				default:
					t.Learn(station(i), 1, 0, teach)
				}
			}
		})
		lookups(b, t, keys)
		close(stop)
		done.Wait()
	})
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
		t := open(b, 1<<20)
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
			t := open(b, 1<<20)
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
