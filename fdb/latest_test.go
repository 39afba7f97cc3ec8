package fdb_test

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// TestLatest: whatever happened to stations, the newest record of each is the
// last one that its history has.
func TestLatest(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		tab := open(t, 64)
		tick := fdb.Tick(0)
		for range rapid.IntRange(0, 200).Draw(r, "events") {
			k, p := station(rapid.IntRange(0, 9).Draw(r, "station")), frame.PortID(rapid.IntRange(1, 4).Draw(r, "port"))
			tick += fdb.Tick(rapid.IntRange(0, 3).Draw(r, "ticks"))
			switch rapid.IntRange(0, 9).Draw(r, "event") {
			case 0:
				tab.Delete(k)
			case 1:
				_ = tab.AddStatic(k, p) // refused where there is one
			case 2:
				tab.Flush(fdb.Filter{Port: p})
			default:
				tab.Learn(k, p, tick, &fdb.Teacher{Wall: int64(tick) + 1, Len: 60, Head: []byte{byte(p), 2}})
			}
		}
		for i := range rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 5000}).Draw(r, "others") { // push out what was before
			tab.Learn(station(100+i), frame.PortID(10+i%100), tick, nil)
		}
		for i := range 12 {
			k := station(i)
			var want fdb.Record
			for _, e := range tab.HistoryOf(k.MAC()) {
				if e.VID == k.VID() {
					want = e
				}
			}
			got, ok := tab.Latest(k)
			if d := gocmp.Diff(want, got); d != "" || ok != (want.Event != 0) {
				r.Fatalf("station %d, found %v (-last +latest):\n%s", i, ok, d)
			}
		}
	})
}

func BenchmarkLatest(b *testing.B) {
	tab := open(b, 1<<20)
	for i := range 1 << 16 { // more than the rings hold
		tab.Learn(station(i), frame.PortID(1+i%1000), 0, nil)
	}
	for name, k := range map[string]fdb.Key{"newest": station(1<<16 - 1), "none": station(1 << 20)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tab.Latest(k)
			}
		})
	}
}
