package fdb_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// TestReadersSeeNoMixture has readers and refreshers while writers use every
// place again and again. Station i is only ever behind ports i*2+1 and i*2+2.
func TestReadersSeeNoMixture(t *testing.T) {
	const stations, rounds = 64, 10_000
	tab := open(t, 8) // few places, used again at once
	var stop atomic.Bool
	var readers, writers sync.WaitGroup
	wrong := func(i int, p frame.PortID) bool { return p != frame.PortID(i*2+1) && p != frame.PortID(i*2+2) }
	for range 2 {
		readers.Go(func() {
			for i := 0; !stop.Load(); i = (i + 1) % stations {
				if p, ok := tab.Lookup(station(i)); ok && wrong(i, p) {
					t.Errorf("station %d behind port %d", i, p)
					return
				}
				tab.Walk(func(e fdb.Entry) bool {
					j := int(e.MAC.Uint64() - station(0).MAC().Uint64())
					if wrong(j, e.Port) {
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
				tab.Learn(station(i), frame.PortID(i*2+1+n%2), fdb.Tick(n*400), nil)
				switch n % 16 {
				case 3:
					tab.Delete(station(i))
				case 9:
					tab.Sweep(fdb.Tick(n*400), 16)
				case 12:
					tab.Flush(fdb.Filter{MAC: station(n % stations).MAC()})
				}
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
	if n := len(contents(tab)); n != tab.Len() || n > 8 {
		t.Errorf("%d entries, length %d", n, tab.Len())
	}
}

// TestReuseNumber holds the word of a place's next owners apart.
func TestReuseNumber(t *testing.T) {
	seen := map[uint64]bool{}
	for n := 1; n <= 1<<16; n += 1023 {
		if w := fdb.Word(n); seen[w] {
			t.Fatalf("owner %d has the word of a former one", n)
		} else {
			seen[w] = true
		}
	}
}
