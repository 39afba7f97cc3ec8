package fdb_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// slow is the table's readable twin.
type slow struct {
	rows      map[fdb.Key]row
	limit     int
	portLimit map[frame.PortID]int
}

type row struct {
	port   frame.PortID
	tick   fdb.Tick
	static bool
	moves  int
}

func (s *slow) owned(p frame.PortID) (n int) {
	for _, r := range s.rows {
		if r.port == p && !r.static {
			n++
		}
	}
	return n
}

func (s *slow) most() (n int) {
	for _, r := range s.rows {
		n = max(n, s.owned(r.port))
	}
	return n
}

// learn returns what is to happen, and whether somebody has to go for it.
func (s *slow) learn(k fdb.Key, p frame.PortID, now fdb.Tick) (o fdb.Outcome, evict bool) {
	r, ok := s.rows[k]
	full := s.portLimit[p] > 0 && s.owned(p) >= s.portLimit[p]
	switch {
	case ok && r.port == p:
		if r.static || now-r.tick <= fdb.TickAt(fdb.DefaultAgeing)/8 {
			return fdb.Known, false
		}
		r.tick = now
		s.rows[k] = r
		return fdb.Refreshed, false
	case ok && r.static:
		return fdb.Static, false
	case full:
		return fdb.PortLimit, false
	case ok:
		s.rows[k] = row{port: p, tick: now, moves: r.moves + 1}
		return fdb.Moved, false
	case len(s.rows) >= s.limit && s.most() == 0:
		return fdb.Full, false
	}
	return fdb.Inserted, len(s.rows) >= s.limit
}

// evicted finds out who has gone, and checks that it was the right one: of the
// greediest port, and of the learner p itself if that is one of them.
func (s *slow) evicted(t *rapid.T, tab *fdb.Table, p frame.PortID) {
	for k, r := range s.rows {
		if _, ok := tab.Lookup(k); ok {
			continue
		}
		if r.static || s.owned(r.port) != s.most() {
			t.Fatalf("port %d lost a row; it has %d, the most is %d", r.port, s.owned(r.port), s.most())
		}
		if s.owned(p) == s.most() && r.port != p {
			t.Fatalf("port %d lost a row to port %d, which has as many", r.port, p)
		}
		delete(s.rows, k)
		return
	}
	t.Fatal("nobody was evicted")
}

func (s *slow) compare(t *rapid.T, tab *fdb.Table) {
	got := map[fdb.Key]row{}
	tab.Walk(func(e fdb.Entry) bool {
		k := fdb.MakeKey(e.VID, e.MAC)
		got[k] = row{port: e.Port, tick: s.rows[k].tick, static: e.Static, moves: e.Moves}
		if age := e.Age(s.rows[k].tick); !e.Static && age != 0 {
			t.Fatalf("%v is %v too old", e.MAC, age)
		}
		return true
	})
	if len(got) != len(s.rows) || tab.Len() != len(s.rows) {
		t.Fatalf("%d rows, length %d, want %d", len(got), tab.Len(), len(s.rows))
	}
	for k, r := range s.rows {
		if got[k] != r {
			t.Fatalf("%v: got %+v, want %+v", k.MAC(), got[k], r)
		}
	}
	for p := range frame.PortID(6) {
		if tab.PortLen(p) != s.owned(p) {
			t.Fatalf("port %d: %d rows, want %d", p, tab.PortLen(p), s.owned(p))
		}
	}
	if _, n := tab.Greediest(); n != s.most() {
		t.Fatalf("the greediest has %d, want %d", n, s.most())
	}
}

func TestAgainstSlow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 14).Draw(t, "limit")
		tab, err := fdb.Open(make([]byte, fdb.Size(limit)), limit)
		if err != nil {
			t.Fatal(err)
		}
		s := &slow{rows: map[fdb.Key]row{}, limit: limit, portLimit: map[frame.PortID]int{}}
		now := fdb.Tick(0)
		key := func() fdb.Key {
			return inVLAN(frame.VID(rapid.IntRange(1, 2).Draw(t, "vid")), rapid.IntRange(0, 12).Draw(t, "mac"))
		}
		port := func() frame.PortID { return frame.PortID(rapid.IntRange(1, 5).Draw(t, "port")) }
		learn := func(t *rapid.T) {
			k, p := key(), port()
			foreseen, _ := tab.Foresee(k, p)
			want, evict := s.learn(k, p, now)
			switch {
			case want == foreseen || want == fdb.Refreshed && foreseen == fdb.Known || want == fdb.Full && foreseen == fdb.Inserted:
			default:
				t.Fatalf("Foresee: got %d, want %d", foreseen, want)
			}
			if got, _ := tab.Learn(k, p, now, nil); got != want {
				t.Fatalf("Learn: got %d, want %d", got, want)
			}
			if evict {
				s.evicted(t, tab, p)
			}
			if want == fdb.Inserted {
				s.rows[k] = row{port: p, tick: now}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"learn":  learn,
			"learn2": learn,
			"static": func(t *rapid.T) {
				k, p := key(), port()
				r, ok := s.rows[k]
				full := !ok && len(s.rows) >= limit
				err := tab.AddStatic(k, p)
				if (err != nil) != (full && s.most() == 0) {
					t.Fatalf("AddStatic: %v", err)
				}
				if err != nil {
					return
				}
				if full {
					s.evicted(t, tab, 0)
				}
				s.rows[k] = row{port: p, static: true, moves: r.moves}
			},
			"delete": func(t *rapid.T) {
				k := key()
				_, want := s.rows[k]
				if got := tab.Delete(k); got != want {
					t.Fatalf("Delete: got %v, want %v", got, want)
				}
				delete(s.rows, k)
			},
			"sweep": func(t *rapid.T) {
				tab.Sweep(now, tab.Places())
				for k, r := range s.rows {
					if !r.static && now-r.tick >= fdb.TickAt(fdb.DefaultAgeing) {
						delete(s.rows, k)
					}
				}
			},
			"wait": func(t *rapid.T) {
				now += fdb.TickAt(time.Duration(rapid.IntRange(1, 200).Draw(t, "seconds")) * time.Second)
			},
			"limit": func(t *rapid.T) {
				p, n := port(), rapid.IntRange(0, 4).Draw(t, "n")
				tab.SetPortLimit(p, n)
				s.portLimit[p] = n
			},
			"": func(t *rapid.T) { s.compare(t, tab) },
		})
	})
}
