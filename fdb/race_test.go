package fdb_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// TestReadersSeeNoMixture has readers and refreshers while writers use every
// place again and again, and entries give way to each other. Station i is only
// ever behind ports i*2+1 and i*2+2.
func TestReadersSeeNoMixture(t *testing.T) {
	const rounds = 10_000
	tab := open(t, 20) // three buckets of eight places
	keys := append(colliding(tab, 0, 16), colliding(tab, 1, 16)...)
	stations := len(keys)
	number := map[fdb.Key]int{}
	for i, k := range keys {
		number[k] = i
	}
	var stop atomic.Bool
	var readers, writers sync.WaitGroup
	wrong := func(i int, p frame.PortID) bool { return p != frame.PortID(i*2+1) && p != frame.PortID(i*2+2) }
	for range 2 {
		readers.Go(func() {
			for i := 0; !stop.Load(); i = (i + 1) % stations {
				if p, ok := tab.Lookup(keys[i]); ok && wrong(i, p) {
					t.Errorf("station %d behind port %d", i, p)
					return
				}
				if e, ok := tab.Entry(keys[i]); ok && (wrong(i, e.Port) || fdb.MakeKey(e.VID, e.MAC) != keys[i]) {
					t.Errorf("entry of station %d: %+v", i, e)
				}
				tab.Walk(func(e fdb.Entry) bool {
					if j, ok := number[fdb.MakeKey(e.VID, e.MAC)]; !ok || wrong(j, e.Port) {
						t.Errorf("walk: station %d behind port %d", j, e.Port)
					}
					return true
				})
			}
		})
	}
	for w := range 2 {
		writers.Go(func() {
			for n := range rounds {
				i := (n*7 + w) % stations
				tab.Learn(keys[i], frame.PortID(i*2+1+n%2), fdb.Tick(n*400), nil)
				switch n % 16 {
				case 3:
					tab.Delete(keys[i])
				case 9:
					tab.Sweep(fdb.Tick(n*400), 32)
				case 12:
					tab.Flush(fdb.Filter{MAC: keys[n%stations].MAC()})
				}
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
	if n := len(contents(tab)); n != tab.Len() || n > 20 {
		t.Errorf("%d entries, length %d", n, tab.Len())
	}
}

// TestNeverLostOnTheWay looks a station up while it is driven from its first
// bucket into the second.
func TestNeverLostOnTheWay(t *testing.T) {
	tab := open(t, 100)
	low, high := colliding(tab, 0, 9), colliding(tab, 1, 8)
	for round := range 2000 {
		for _, k := range append(low[:8:8], high...) {
			tab.Learn(k, 1, 0, nil)
		}
		var reader sync.WaitGroup
		start := make(chan struct{})
		reader.Go(func() {
			close(start)
			for range 20 {
				for _, k := range high {
					if _, ok := tab.Lookup(k); !ok {
						t.Errorf("round %d: a known station is not found", round)
						return
					}
				}
			}
		})
		<-start
		tab.Learn(low[8], 1, 0, nil)
		reader.Wait()
		tab.Flush(fdb.Filter{})
	}
}

// TestRefreshNotLost has a station speak at the moment it is to age: it stays,
// or comes again, and its age is the new one.
func TestRefreshNotLost(t *testing.T) {
	tab := open(t, 100)
	k := station(1)
	for round := range 5000 {
		now := fdb.Tick(100_000 + round*10_000)
		tab.Learn(k, 1, now-ticks(fdb.DefaultAgeing), nil)
		var speaker sync.WaitGroup
		outcome := fdb.Known
		speaker.Go(func() { outcome, _ = tab.Learn(k, 1, now, nil) })
		tab.Sweep(now, tab.Places())
		speaker.Wait()
		if e, ok := tab.Entry(k); !ok || e.Age(now) != 0 {
			t.Fatalf("round %d: outcome %d, then age %v, found %v", round, outcome, e.Age(now), ok)
		}
	}
}
