package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	// tableLimit is the default fdb_limit, and how many entries are looked up in.
	tableLimit = 1 << 20
	// tableLearner is the port whose station count grows in fdbLookup. It owns
	// half the table, so that what it learns displaces its own stations and the
	// others stay to be found.
	tableLearner = frame.PortID(1)

	benchVID = frame.VID(10)
)

// table is a filtering database in memory like that of a running switch.
type table struct {
	*fdb.Table
	mem []byte
}

// newTable opens a table in a memfd, as the keeper makes it. The caller closes it.
func newTable(limit int) (*table, error) {
	size := fdb.Size(limit)
	fd, err := unix.MemfdCreate("bench-fdb", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make table memory: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, fmt.Errorf("make table memory: %w", err)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map table memory: %w", err)
	}
	t, err := fdb.Open(mem, limit)
	if err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	return &table{t, mem}, nil
}

func (t *table) close() { _ = unix.Munmap(t.mem) }

// station is the nth address of a made-up population.
func station(n int) frame.MAC {
	// An odd multiplier permutes the numbers, so that neighbours in learning
	// order share no prefix. The first octet is locally administered unicast.
	return frame.MACFromUint64(0x02<<40 | uint64(n)*0x9e3779b1&0xff_ffff_ffff)
}

// full fills the table and returns the keys to look for, in an order that has
// nothing to do with where they are.
func (t *table) full() []fdb.Key {
	var keys []fdb.Key
	for i := range tableLimit {
		k, port := fdb.MakeKey(benchVID, station(i)), tableLearner
		if i%2 == 1 {
			port = frame.PortID(2 + i/2%3)
			keys = append(keys, k)
		}
		t.Learn(k, port, 0, nil)
	}
	rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys
}

// teach learns new stations on tableLearner as fast as it can until stopped.
func (t *table) teach(stopped *atomic.Bool, learned *atomic.Int64) {
	teacher := &fdb.Teacher{Wall: 1, Len: 60, Head: make([]byte, 60)}
	for i := tableLimit; !stopped.Load(); i++ {
		t.Learn(fdb.MakeKey(benchVID, station(i)), tableLearner, 0, teacher)
		learned.Add(1)
	}
}

// lookUp looks for the keys round and round for d and returns the time of one
// look-up in ns, and how many found nothing.
func (t *table) lookUp(keys []fdb.Key, d time.Duration) (each float64, missed int) {
	const stretch = 4096 // look-ups between two readings of the clock
	n, at := 0, 0
	begin := time.Now()
	for time.Since(begin) < d {
		for range stretch {
			if _, ok := t.Lookup(keys[at]); !ok {
				missed++
			}
			if at++; at == len(keys) {
				at = 0
			}
		}
		n += stretch
	}
	return float64(time.Since(begin).Nanoseconds()) / float64(n), missed
}

func fdbLookup() workload {
	return workload{
		name: "fdb-lookup", what: "FDB look-up among 1,048,576 entries, while learning", unit: "ns", target: value("<=", 25),
		ours: func(_ context.Context, _ *rig, p plan) (Sample, error) {
			t, err := newTable(tableLimit)
			if err != nil {
				return Sample{}, err
			}
			defer t.close()
			keys := t.full()
			var stopped atomic.Bool
			var learned atomic.Int64
			var done sync.WaitGroup
			done.Go(func() { t.teach(&stopped, &learned) })
			each, missed := t.lookUp(keys, p.window)
			stopped.Store(true)
			done.Wait()
			if missed > 0 {
				return Sample{}, fmt.Errorf("%d look-ups found nothing", missed)
			}
			return Sample{
				Value:     each,
				LearnRate: float64(learned.Load()) / p.window.Seconds() / 1e6,
				BareRead:  bareRead(len(t.mem), p.window/4),
			}, nil
		},
		note: func(rounds []Round) string {
			return fmt.Sprintf("while another thread learned %s M new stations/s; a bare random read of as much memory takes %s ns",
				figure(ours(rounds, func(s Sample) float64 { return s.LearnRate })), figure(ours(rounds, func(s Sample) float64 { return s.BareRead })))
		},
	}
}

// bareRead is the time in ns of one random 8-octet read from memory of the
// given size, independent of the read before it: what a look-up can't beat.
func bareRead(size int, d time.Duration) float64 {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		return 0
	}
	defer unix.Munmap(mem)
	at := make([]uint32, 1<<19)
	for i := range at {
		at[i] = rand.Uint32N(uint32(size))
	}
	var sum byte
	n, begin := 0, time.Now()
	for time.Since(begin) < d {
		for _, i := range at {
			sum += mem[i]
		}
		n += len(at)
	}
	ns := float64(time.Since(begin).Nanoseconds()) / float64(n)
	runtime.KeepAlive(sum)
	return ns
}

func fdbMemory() workload {
	return workload{
		name: "fdb-memory", what: "FDB memory for 1,048,576 entries", unit: "MB", target: value("<=", 32), once: true,
		ours: func(context.Context, *rig, plan) (Sample, error) {
			before := heap()
			t, err := newTable(tableLimit)
			if err != nil {
				return Sample{}, err
			}
			defer t.close()
			t.full()
			after := heap()
			runtime.KeepAlive(t)
			return Sample{Value: (float64(len(t.mem)) + float64(after) - float64(before)) / 1e6}, nil
		},
		note: func([]Round) string { return "with its history and what the process keeps besides" },
	}
}

// heap is what the process keeps on its heap, in octets.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
