package fdb_test

import (
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// TestGreediestLoses has one port spray a table that quiet ports share.
func TestGreediestLoses(t *testing.T) {
	const limit, quiet = 10_000, 50
	tab := open(t, limit)
	for i := range 20 * quiet {
		tab.Learn(station(i), frame.PortID(2+i%quiet), 0, nil)
	}
	for i := range 5 * limit {
		if got, _ := tab.Learn(station(1e6+i), 1, fdb.Tick(i), nil); got != fdb.Inserted {
			t.Fatalf("spray %d: got %d, want inserted", i, got)
		}
	}
	for i := range 20 * quiet {
		lookup(t, tab, station(i), frame.PortID(2+i%quiet))
	}
	for i := range 1000 { // newcomers on quiet ports find room too
		learn(t, tab, station(1e5+i), frame.PortID(2+i%quiet), 0, fdb.Inserted, 0)
	}
	if tab.Len() != limit || tab.PortLen(1) != limit-2000 {
		t.Errorf("length %d, sprayer %d; want %d, %d", tab.Len(), tab.PortLen(1), limit, limit-2000)
	}
	// The spray has not pushed the others out of the history.
	if n := len(tab.HistoryOf(station(7).MAC())); n != 1 {
		t.Errorf("station of a quiet port has %d records, want 1", n)
	}
}

func TestSetLimit(t *testing.T) {
	tab := open(t, 200)
	for i := range 200 {
		tab.Learn(station(i), frame.PortID(1+i%2), 0, nil)
	}
	tab.SetLimit(100)
	for range 2 {
		tab.Sweep(0, 8)
	}
	if tab.Len() != 100 || tab.Limit() != 100 || tab.PortLen(1) != 50 {
		t.Errorf("length %d, limit %d, port %d; want 100, 100, 50", tab.Len(), tab.Limit(), tab.PortLen(1))
	}
	tab.SetLimit(1000)
	if tab.Limit() != 200 {
		t.Errorf("limit %d, want the opened one, 200", tab.Limit())
	}
}

func TestPortLimit(t *testing.T) {
	tab := open(t, 100)
	tab.SetPortLimit(1, 2)
	learn(t, tab, station(1), 1, 0, fdb.Inserted, 0)
	learn(t, tab, station(2), 1, 0, fdb.Inserted, 0)
	learn(t, tab, station(3), 1, 0, fdb.PortLimit, 0)
	learn(t, tab, station(3), 2, 0, fdb.Inserted, 0)
	learn(t, tab, station(3), 1, 0, fdb.PortLimit, 2)
	lookup(t, tab, station(3), 2)
	tab.SetPortLimit(1, 0)
	learn(t, tab, station(3), 1, 0, fdb.Moved, 2)
}

// TestChurn lets stations come and go for the equivalent of years and then
// fills the table: removal has left nothing behind.
func TestChurn(t *testing.T) {
	const limit = 2000
	tab := open(t, limit)
	now := fdb.Tick(0)
	for i := range 150_000 {
		tab.Learn(station(i), frame.PortID(1+i%7), now, nil)
		if i%1000 == 999 {
			now += fdb.TickAt(200 * time.Second)
			tab.Sweep(now, tab.Places())
		}
	}
	tab.Flush(fdb.Filter{})
	for i := range limit {
		learn(t, tab, station(1e7+i), 1, now, fdb.Inserted, 0)
	}
	if c := tab.Counters(); tab.Len() != limit || c.Full != 0 {
		t.Errorf("length %d, counters %+v; want %d, none full", tab.Len(), c, limit)
	}
}

func TestHistory(t *testing.T) {
	tab := open(t, 100)
	k := station(1)
	head := []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 6}
	tab.Learn(k, 1, 0, &fdb.Teacher{Wall: 5e9, Len: 60, Head: head})
	tab.Learn(k, 2, 0, &fdb.Teacher{Wall: 6e9, Len: 70, Head: make([]byte, 100)})
	tab.Learn(station(2), 2, 0, &fdb.Teacher{Wall: 6e9})
	tab.Sweep(1e5, tab.Places())
	tab.Learn(k, 1, 0, nil)
	tab.Flush(fdb.Filter{MAC: k.MAC()})
	if err := tab.AddStatic(k, 3); err != nil {
		t.Fatal(err)
	}
	tab.Delete(k)
	var got []string
	for _, r := range tab.HistoryOf(k.MAC()) {
		got = append(got, r.Event.String())
	}
	want := []string{"learned", "moved", "aged", "learned", "flushed", "static", "removed"}
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("events %v, want %v", got, want)
		}
	}
	rs := tab.HistoryOf(k.MAC())
	if r := rs[0]; r.Wall != 5e9 || r.Len != 60 || string(r.Head) != string(head) || r.Port != 1 || r.VID != 10 {
		t.Errorf("learned: %+v", r)
	}
	if r := rs[1]; r.Old != 1 || r.Port != 2 || len(r.Head) != fdb.HeadLen {
		t.Errorf("moved: %+v", r)
	}
	if n := len(tab.History(3)); n != 3 {
		t.Errorf("History(3) has %d records", n)
	}
	if got := fdb.Event(200).String(); got != "event 200" {
		t.Errorf("unknown event %q", got)
	}
}

// TestHistoryQuota has a spray write an eighth of the ring, then one record a
// second, with the number of those left out.
func TestHistoryQuota(t *testing.T) {
	tab := open(t, 1000) // rings of 768 and 256 records
	spray := func(from, n int, wall int64) {
		for i := range n {
			tab.Learn(station(from+i), 1, 0, &fdb.Teacher{Wall: wall})
		}
	}
	spray(0, 500, 1e9)
	if n := len(tab.History(2000)); n != 96 {
		t.Errorf("%d records, want 96", n)
	}
	spray(500, 10, 2e9)
	rs := tab.History(2000)
	if r := rs[len(rs)-1]; len(rs) != 97 || r.Missed != 404 {
		t.Errorf("%d records, %d missed; want 97, 404", len(rs), r.Missed)
	}
	tab.Learn(station(3), 1, 0, &fdb.Teacher{Wall: 1e9})
	tab.Learn(station(3), 2, 0, &fdb.Teacher{Wall: 1e9}) // a move is not crowded out
	if r := tab.History(1)[0]; r.Event != fdb.EventMoved {
		t.Errorf("last event %v, want moved", r.Event)
	}
}
