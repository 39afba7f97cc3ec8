package fdb_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// recorder is the history's readable twin: it keeps the whole table as it was
// after every step.
type recorder struct {
	tab   *fdb.Table
	start time.Time
	walls []int64
	past  []map[fdb.Key]fdb.Entry
}

func newRecorder(tab *fdb.Table) *recorder {
	r := &recorder{tab: tab, start: time.Now()}
	r.note()
	return r
}

// note remembers the present and lets the clock go on.
func (r *recorder) note() {
	r.walls = append(r.walls, time.Now().UnixNano())
	r.past = append(r.past, contents(r.tab))
	time.Sleep(time.Millisecond)
}

func (r *recorder) tick() fdb.Tick { return fdb.TickAt(time.Since(r.start)) }

func (r *recorder) learn(k fdb.Key, p frame.PortID) {
	r.tab.Learn(k, p, r.tick(), &fdb.Teacher{Wall: time.Now().UnixNano(), Len: 60})
	r.note()
}

// check compares moment i: a row that At knows is right, and nothing is missing
// if no event was.
func (r *recorder) check(i int) error {
	wall := r.walls[i]
	p := r.tab.At(wall, 0, r.tick())
	sure := wall >= p.Reach
	whole := p.Reach <= r.walls[0] && r.tab.At(0, 0, 0).Missed == 0
	seen := map[fdb.Key]bool{}
	for e := range p.Rows() {
		k := fdb.MakeKey(e.VID, e.MAC)
		if seen[k] {
			return fmt.Errorf("moment %d: %v twice", i, e.MAC)
		}
		seen[k] = true
		want, ok := r.past[i][k]
		switch {
		case e.Heard > wall:
			return fmt.Errorf("moment %d: %v was heard %d ns after it", i, e.MAC, e.Heard-wall)
		case e.Known && !sure:
			return fmt.Errorf("moment %d: %v is known beyond the history's reach", i, e.MAC)
		case !e.Known && sure && whole:
			return fmt.Errorf("moment %d: %v isn't known, though nothing is missing", i, e.MAC)
		case !e.Known:
			continue
		case !ok:
			return fmt.Errorf("moment %d: %v was not there", i, e.MAC)
		case e.Port != want.Port || e.Static != want.Static:
			return fmt.Errorf("moment %d: got %+v, want %+v", i, e, want)
		case whole && e.Moves != want.Moves:
			return fmt.Errorf("moment %d: %v: %d moves, want %d", i, e.MAC, e.Moves, want.Moves)
		}
	}
	for k := range r.past[i] {
		if !seen[k] && sure && p.Missed == 0 {
			return fmt.Errorf("moment %d: %v is missing", i, k.MAC())
		}
	}
	return nil
}

// TestAtAgainstRecorder compares the rebuilt past with the recorded one, also
// where ports exceed their quota.
func TestAtAgainstRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// In a bubble nobody may ask for the test's deadline: it is hidden.
		rapid.Check(struct{ testing.TB }{t}, func(t *rapid.T) {
			limit := rapid.SampledFrom([]int{5, 500}).Draw(t, "limit")
			tab, err := fdb.Open(make([]byte, fdb.Size(limit)), limit)
			if err != nil {
				t.Fatal(err)
			}
			r := newRecorder(tab)
			key := func(t *rapid.T) fdb.Key {
				return inVLAN(frame.VID(rapid.IntRange(1, 2).Draw(t, "vid")), rapid.IntRange(0, 8).Draw(t, "mac"))
			}
			port := rapid.Map(rapid.IntRange(1, 3), func(i int) frame.PortID { return frame.PortID(i) })
			t.Repeat(map[string]func(*rapid.T){
				"learn":  func(t *rapid.T) { r.learn(key(t), port.Draw(t, "port")) },
				"learn2": func(t *rapid.T) { r.learn(key(t), port.Draw(t, "port")) },
				"burst": func(t *rapid.T) { // moves beyond the quota of 32
					k, n := key(t), rapid.IntRange(2, 60).Draw(t, "n")
					for i := range n {
						r.learn(k, frame.PortID(i%2+1))
					}
				},
				"static": func(t *rapid.T) {
					_ = tab.AddStatic(key(t), port.Draw(t, "port")) // the table may be full
					r.note()
				},
				"delete": func(t *rapid.T) { tab.Delete(key(t)); r.note() },
				"flush":  func(t *rapid.T) { tab.Flush(fdb.Filter{Port: port.Draw(t, "port")}); r.note() },
				"sweep":  func(t *rapid.T) { tab.Sweep(r.tick(), tab.Places()); r.note() },
				"wait":   func(t *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 400).Draw(t, "s")) * time.Second) },
			})
			for range 20 {
				i := rapid.IntRange(0, len(r.walls)-1).Draw(t, "moment")
				if err := r.check(i); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
}

// TestAtBeyondReach has both rings go round several times.
func TestAtBeyondReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := open(t, 40)
		r := newRecorder(tab)
		rnd := rand.New(rand.NewPCG(1, 2))
		for range 4000 {
			r.learn(station(rnd.IntN(60)), frame.PortID(rnd.IntN(12)+1))
			time.Sleep(time.Second)
		}
		p := tab.At(r.walls[0], 0, r.tick())
		if got := tab.Reach(); got != p.Reach || got <= r.walls[0] || got >= r.walls[len(r.walls)-1] {
			t.Fatalf("reach %d, At says %d: want a moment between %d and %d", got, p.Reach, r.walls[0], r.walls[len(r.walls)-1])
		}
		known := 0
		for i := range r.walls {
			if r.walls[i] >= p.Reach {
				known++
			}
			if i%9 != 0 {
				continue
			}
			if err := r.check(i); err != nil {
				t.Fatal(err)
			}
		}
		if known < 200 {
			t.Errorf("%d moments are within reach, want more", known)
		}
	})
}

// TestAtOneVLAN asks for the rows of one VLAN, in order.
func TestAtOneVLAN(t *testing.T) {
	tab := open(t, 100)
	for i := range 9 {
		tab.Learn(inVLAN(frame.VID(i%3+1), 8-i), 1, 0, nil)
	}
	var got []int
	p := tab.At(time.Now().UnixNano(), 2, 0)
	for e := range p.Rows() {
		if e.VID != 2 {
			t.Errorf("VLAN %d among the rows of VLAN 2", e.VID)
		}
		got = append(got, int(e.MAC.Uint64()&0xff))
	}
	if want := []int{1, 4, 7}; !slices.Equal(got, want) {
		t.Errorf("stations %v, want %v", got, want)
	}
	for range p.Rows() {
		break // a reader may have enough
	}
}

// TestFlaps tells a station that flaps from those that only move.
func TestFlaps(t *testing.T) {
	tab := open(t, 1000)
	const second = int64(time.Second)
	now := 1000 * second
	at := func(k fdb.Key, p frame.PortID, ago int64) {
		tab.Learn(k, p, 0, &fdb.Teacher{Wall: now - ago*second})
	}
	for i := range int64(9) { // old flapping is over
		at(station(1), frame.PortID(i%2+1), 200-i)
	}
	for i := range int64(9) {
		at(station(2), frame.PortID(i%2+1), 50-i)
		at(station(3), frame.PortID(i%2+1), 50-i)
	}
	at(station(3), 5, 2)
	for i := range int64(8) { // carried about
		at(station(4), frame.PortID(i+1), 50-i)
	}
	at(station(5), 1, 5) // failover and back
	at(station(5), 2, 4)
	at(station(5), 1, 3)

	got := tab.Flaps(now)
	if len(got) != 2 {
		t.Fatalf("%d stations flap, want 2: %+v", len(got), got)
	}
	if f := got[0]; f.MAC != station(3).MAC() || f.Moves != 9 || !slices.Equal(f.Ports, []frame.PortID{1, 2, 5}) ||
		f.VID != 10 || f.First != now-49*second || f.Last != now-2*second || f.Least || f.PerMinute() != 9 {
		t.Errorf("first: %+v", f)
	}
	if f := got[1]; f.MAC != station(2).MAC() || f.Moves != 8 {
		t.Errorf("second: %+v", f)
	}
	if n := tab.PortMoves(5); n != 2 {
		t.Errorf("%d stations moved to port 5, want 2", n)
	}
	for i := range 200 { // more than the history takes
		tab.Learn(station(6), frame.PortID(i%2+1), 0, &fdb.Teacher{Wall: now})
	}
	tab.Learn(station(6), 1, 0, &fdb.Teacher{Wall: now + second})
	if f := tab.Flaps(now + second)[0]; f.MAC != station(6).MAC() || !f.Least {
		t.Errorf("after a burst: %+v", f)
	}
}
