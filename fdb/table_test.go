package fdb_test

import (
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// open returns a new table with memory of its own.
func open(t testing.TB, limit int) *fdb.Table {
	t.Helper()
	return reopen(t, make([]byte, fdb.Size(limit)), limit)
}

func reopen(t testing.TB, mem []byte, limit int) *fdb.Table {
	t.Helper()
	tab, err := fdb.Open(mem, limit)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// station is the i-th test station of VLAN 10.
func station(i int) fdb.Key { return inVLAN(10, i) }

func inVLAN(v frame.VID, i int) fdb.Key {
	return fdb.MakeKey(v, frame.MACFromUint64(0x02_0000_0000_00+uint64(i)))
}

// ticks is d in ticks.
func ticks(d time.Duration) fdb.Tick { return fdb.TickAt(d) }

func learn(t *testing.T, tab *fdb.Table, k fdb.Key, p frame.PortID, now fdb.Tick, want fdb.Outcome, wantOld frame.PortID) {
	t.Helper()
	got, old := tab.Learn(k, p, now, nil)
	if got != want || old != wantOld {
		t.Fatalf("Learn(%v, port %d) = %d, %d; want %d, %d", k.MAC(), p, got, old, want, wantOld)
	}
}

func lookup(t *testing.T, tab *fdb.Table, k fdb.Key, want frame.PortID) {
	t.Helper()
	if got, ok := tab.Lookup(k); got != want || ok != (want != 0) {
		t.Fatalf("Lookup(%v) = %d, %v; want %d", k.MAC(), got, ok, want)
	}
}

func TestKey(t *testing.T) {
	m := frame.MustParseMAC("02:1a:2b:3c:4d:5e")
	k := fdb.MakeKey(4094, m)
	if k.MAC() != m || k.VID() != 4094 {
		t.Errorf("MakeKey(4094, %v) = %v in VLAN %v", m, k.MAC(), k.VID())
	}
	if k := fdb.MakeKey(1, frame.MAC{}); k == 0 {
		t.Error("a valid key is 0")
	}
}

func TestLearnMoveForget(t *testing.T) {
	tab := open(t, 10)
	k := station(1)
	lookup(t, tab, k, 0)
	learn(t, tab, k, 1, 0, fdb.Inserted, 0)
	learn(t, tab, k, 1, 0, fdb.Known, 0)
	lookup(t, tab, k, 1)
	lookup(t, tab, inVLAN(11, 1), 0) // independent learning
	learn(t, tab, k, 2, 0, fdb.Moved, 1)
	lookup(t, tab, k, 2)
	if tab.Len() != 1 || tab.PortLen(1) != 0 || tab.PortLen(2) != 1 || tab.VIDLen(10) != 1 {
		t.Errorf("counts %d, %d, %d, %d; want 1, 0, 1, 1", tab.Len(), tab.PortLen(1), tab.PortLen(2), tab.VIDLen(10))
	}
	if !tab.Delete(k) || tab.Delete(k) {
		t.Error("Delete: want true once")
	}
	lookup(t, tab, k, 0)
	if got := tab.Counters().Moves; got != 1 {
		t.Errorf("moves %d, want 1", got)
	}
}

func TestStatic(t *testing.T) {
	tab := open(t, 4)
	k := station(1)
	learn(t, tab, k, 1, 0, fdb.Inserted, 0)
	for range 2 { // the second changes nothing
		if err := tab.AddStatic(k, 2); err != nil {
			t.Fatal(err)
		}
	}
	learn(t, tab, k, 2, 1e6, fdb.Known, 0)
	learn(t, tab, k, 3, 1e6, fdb.Static, 2)
	if tab.Len() != 1 || tab.PortLen(1) != 0 || tab.PortLen(2) != 0 {
		t.Errorf("counts %d, %d, %d; want 1, 0, 0", tab.Len(), tab.PortLen(1), tab.PortLen(2))
	}
	tab.Sweep(1e7, tab.Places())
	tab.Flush(fdb.Filter{})
	lookup(t, tab, k, 2)
	if e, ok := tab.Entry(k); !ok || !e.Static || e.Age(1e7) != 0 {
		t.Errorf("entry %+v, want a static one of age 0", e)
	}
	if got := len(tab.HistoryOf(k.MAC())); got != 2 {
		t.Errorf("%d records, want 2", got)
	}
	// A static entry takes the place of a dynamic one, and nothing of a static one.
	for i := 2; i <= 4; i++ {
		learn(t, tab, station(i), 1, 0, fdb.Inserted, 0)
	}
	for i := 5; i <= 7; i++ {
		if err := tab.AddStatic(station(i), 3); err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.AddStatic(station(8), 3); err == nil {
		t.Error("fifth static entry of four: want an error")
	}
	learn(t, tab, station(9), 1, 0, fdb.Full, 0)
	if got := tab.Counters(); got.Full != 1 || got.Evicted != 3 {
		t.Errorf("counters %+v, want full 1, evicted 3", got)
	}
}

func TestAgeing(t *testing.T) {
	tab := open(t, 100)
	tab.SetAgeing(20, 10*time.Second)
	tab.SetAgeing(30, 0)
	for v, life := range map[frame.VID]time.Duration{10: fdb.DefaultAgeing, 20: 10 * time.Second, 30: 0} {
		k := inVLAN(v, 1)
		learn(t, tab, k, 1, 1000, fdb.Inserted, 0)
		if life == 0 {
			tab.Sweep(1000+ticks(fdb.MaxAgeing), tab.Places())
			lookup(t, tab, k, 1)
			continue
		}
		tab.Sweep(1000+ticks(life)-1, tab.Places())
		lookup(t, tab, k, 1)
		tab.Sweep(1000+ticks(life), tab.Places())
		lookup(t, tab, k, 0)
	}
	if got := tab.Counters().Aged; got != 2 {
		t.Errorf("aged %d, want 2", got)
	}
}

// TestRefreshAnEighth notes a source only when its tick is older than an eighth
// of the ageing time.
func TestRefreshAnEighth(t *testing.T) {
	tab := open(t, 10)
	k := station(1)
	const eighth = 300 // ticks, of 300 s
	learn(t, tab, k, 1, 0, fdb.Inserted, 0)
	learn(t, tab, k, 1, eighth, fdb.Known, 0)
	learn(t, tab, k, 1, eighth+1, fdb.Refreshed, 0)
	learn(t, tab, k, 1, eighth+2, fdb.Known, 0)
	learn(t, tab, k, 1, eighth-9, fdb.Known, 0) // a loop that is late
	if e, _ := tab.Entry(k); e.Age(eighth+9) != time.Second {
		t.Errorf("age %v, want 1s", e.Age(eighth+9))
	}
}

// TestTicksComeRound has an entry that never ages outlive the ticks' range.
func TestTicksComeRound(t *testing.T) {
	tab := open(t, 10)
	tab.SetAgeing(10, 0)
	learn(t, tab, station(1), 1, 5, fdb.Inserted, 0)
	for day := range 60 {
		now := 5 + ticks(time.Duration(day)*24*time.Hour)
		tab.Sweep(now, tab.Places())
		e, ok := tab.Entry(station(1))
		if want := time.Duration(min(day, 10)) * 24 * time.Hour; !ok || e.Age(now) < want {
			t.Fatalf("day %d: age %v, want at least %v", day, e.Age(now), want)
		}
	}
	learn(t, tab, station(1), 1, ticks(60*24*time.Hour), fdb.Refreshed, 0)
}

func TestMoveCountStops(t *testing.T) {
	tab := open(t, 10)
	for i := range 300 {
		tab.Learn(station(1), frame.PortID(1+i%2), 0, nil)
	}
	if e, _ := tab.Entry(station(1)); e.Moves != 255 {
		t.Errorf("moves %d, want 255", e.Moves)
	}
}

// TestNoteNotGone has no entry look as if it was leaving.
func TestNoteNotGone(t *testing.T) {
	const last = 1<<24 - 1
	if got, want := fdb.AtOf(last, 255), uint32((last-1)<<8|255); got != want {
		t.Errorf("got %#x, want %#x, a tick older", got, want)
	}
	if got, want := fdb.AtOf(last, 254), uint32(last<<8|254); got != want {
		t.Errorf("got %#x, want %#x", got, want)
	}
}

func TestFlush(t *testing.T) {
	fill := func() *fdb.Table {
		tab := open(t, 100)
		for i := range 12 {
			tab.Learn(inVLAN(frame.VID(10+i%2), i/2), frame.PortID(1+i%3), 0, nil)
		}
		return tab
	}
	for _, c := range []struct {
		f    fdb.Filter
		want int
	}{
		{fdb.Filter{}, 12},
		{fdb.Filter{VID: 10}, 6},
		{fdb.Filter{Port: 2}, 4},
		{fdb.Filter{MAC: station(3).MAC()}, 2},
		{fdb.Filter{VID: 11, MAC: station(3).MAC()}, 1},
		{fdb.Filter{VID: 12}, 0},
	} {
		tab := fill()
		if got := tab.Flush(c.f); got != c.want || tab.Len() != 12-c.want {
			t.Errorf("Flush(%+v) = %d, %d left; want %d", c.f, got, tab.Len(), c.want)
		}
	}
}

func TestWalkStops(t *testing.T) {
	tab := open(t, 10)
	for i := range 5 {
		tab.Learn(station(i), 1, 0, nil)
	}
	n := 0
	tab.Walk(func(fdb.Entry) bool { n++; return n < 3 })
	if n != 3 {
		t.Errorf("called %d times, want 3", n)
	}
}

func TestLookup(t *testing.T) {
	tab := open(t, 1000)
	tab.Learn(station(1), 1, 0, nil)
	noAllocs(t, func() { tab.Lookup(station(1)); tab.Lookup(station(2)) })
}

func TestLearn(t *testing.T) {
	tab := open(t, 1000)
	now := fdb.Tick(0)
	teach := &fdb.Teacher{Wall: 1, Len: 60, Head: make([]byte, 60)}
	i := 0
	noAllocs(t, func() {
		now += 1000
		i++
		tab.Learn(station(1), 1, now, teach) // refreshed
		tab.Learn(station(1), 1, now, teach) // known
		tab.Learn(station(i), 1, now, teach) // new
		tab.Learn(station(i), 2, now, teach) // moved
		tab.Learn(station(1), 1, now, teach) // moved back, once
		tab.Lookup(station(i))
	})
}

func noAllocs(t *testing.T, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(200, f); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
