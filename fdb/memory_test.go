package fdb_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

func contents(tab *fdb.Table) map[fdb.Key]fdb.Entry {
	m := map[fdb.Key]fdb.Entry{}
	tab.Walk(func(e fdb.Entry) bool {
		m[fdb.MakeKey(e.VID, e.MAC)] = e
		return true
	})
	return m
}

// TestReopen has a second process know what the first one did.
func TestReopen(t *testing.T) {
	const limit = 5000
	mem := make([]byte, fdb.Size(limit))
	tab := reopen(t, mem, limit)
	for i := range limit + 100 {
		tab.Learn(station(i), frame.PortID(i%3+1), 7, &fdb.Teacher{Wall: int64(i + 1), Len: 60, Head: []byte{1, 2}})
	}
	tab.Learn(station(limit), 9, 8, nil)
	if err := tab.AddStatic(station(1), 4); err != nil {
		t.Fatal(err)
	}
	again := reopen(t, mem, limit)
	want := contents(tab)
	for k, e := range contents(again) {
		if want[k] != e {
			t.Fatalf("%v: got %+v, want %+v", k.MAC(), e, want[k])
		}
		delete(want, k)
	}
	if len(want) != 0 || again.Len() != tab.Len() || again.VIDLen(10) != tab.VIDLen(10) {
		t.Errorf("%d entries lost, length %d, want %d", len(want), again.Len(), tab.Len())
	}
	for p := range frame.PortID(10) {
		if again.PortLen(p) != tab.PortLen(p) {
			t.Errorf("port %d: %d entries, want %d", p, again.PortLen(p), tab.PortLen(p))
		}
	}
	got, old := again.History(10000), tab.History(10000)
	if len(got) != len(old) || got[len(got)-1].Event != fdb.EventStatic || got[0].MAC != old[0].MAC {
		t.Errorf("history of %d records, want %d", len(got), len(old))
	}
	again.Delete(station(1))
	if r := again.History(1)[0]; r.Event != fdb.EventRemoved {
		t.Errorf("last event %v, want removed", r.Event)
	}
}

// TestKilledAtAnyStore opens a copy of the memory as it is behind every store
// of a run that does everything, and compares it with the table before and
// after the operation that the store belongs to.
func TestKilledAtAnyStore(t *testing.T) {
	const limit = 12
	mem := make([]byte, fdb.Size(limit))
	tab := reopen(t, mem, limit)
	tab.SetPortLimit(3, 4)
	var copies [][]byte
	tab.OnStore(func() { copies = append(copies, bytes.Clone(mem)) })
	for i := range 120 {
		before := contents(tab)
		k := station(i * 7 % 19)
		switch i % 10 {
		case 7:
			tab.Delete(k)
		case 8:
			if i%4 == 0 {
				_ = tab.AddStatic(k, 2) // full is fine
			}
		case 9:
			tab.Sweep(fdb.Tick(i*20), 64)
		default:
			tab.Learn(k, frame.PortID(1+i%3), fdb.Tick(i*20), nil)
		}
		after := contents(tab)
		for n, c := range copies {
			got := reopen(t, c, limit)
			if got.Len() != len(contents(got)) {
				t.Fatalf("step %d store %d: length %d, want %d", i, n, got.Len(), len(contents(got)))
			}
			for k, e := range contents(got) {
				if before[k] != e && after[k] != e {
					t.Fatalf("step %d store %d: %v is %+v, never was", i, n, k.MAC(), e)
				}
			}
			for k, e := range before {
				if _, ok := got.Lookup(k); !ok && after[k] == e {
					t.Fatalf("step %d store %d: %v is lost", i, n, k.MAC())
				}
			}
			got.Learn(station(99), 1, 0, nil) // goes on working
			got.History(10)
		}
		copies = copies[:0]
	}
}

func TestOpenRefuses(t *testing.T) {
	const limit = 20
	mem := make([]byte, fdb.Size(limit))
	tab := reopen(t, mem, limit)
	for i := range 5 {
		tab.Learn(station(i), 1, 0, nil)
	}
	flip := func(off int) func([]byte) {
		return func(m []byte) { m[off] ^= 0xff }
	}
	key := bytes.Index(mem, binary.LittleEndian.AppendUint64(nil, uint64(station(3))))
	for name, damage := range map[string]func([]byte){
		"magic":    flip(0),
		"checksum": flip(8),
		"version":  flip(16),
		"limit":    flip(24),
		"seed":     flip(32),
		"key":      flip(key + 7),
		"wrong bucket": func(m []byte) {
			for b := range 6 { // in all but two it is wrong
				copy(m[128+128*b:][:16], m[key:key+16])
			}
		},
		"no VLAN":      func(m []byte) { clear(m[key : key+8]) },
		"no port":      func(m []byte) { m[key+15], m[key+14] = 0, m[key+14]&3 },
		"twice":        func(m []byte) { copy(m[key^16:][:16], m[key:key+16]) },
		"record order": func(m []byte) { r := m[len(m)-1024*96:]; copy(r[96:104], r[:8]) },
		"record event": flip(len(mem) - 1024*96 + 24),
	} {
		c := bytes.Clone(mem)
		damage(c)
		if _, err := fdb.Open(c, limit); err == nil {
			t.Errorf("%s damaged: want an error", name)
		}
	}
	for _, n := range []int{0, -1, fdb.MaxLimit + 1, limit - 1} {
		if _, err := fdb.Open(mem, n); err == nil {
			t.Errorf("limit %d: want an error", n)
		}
	}
	odd := make([]byte, len(mem)+1)
	if _, err := fdb.Open(odd[1:], limit); err == nil {
		t.Error("odd address: want an error")
	}
	// A maker that died before it wrote the magic has made a good header.
	clear(mem[:8])
	reopen(t, mem, limit)
}

// FuzzOpen changes octets of a good memory. What Open accepts must work.
func FuzzOpen(f *testing.F) {
	const limit = 8
	good := make([]byte, fdb.Size(limit))
	tab, err := fdb.Open(good, limit)
	if err != nil {
		f.Fatal(err)
	}
	for i := range 12 {
		tab.Learn(station(i), frame.PortID(1+i%3), 0, &fdb.Teacher{Wall: 1, Len: 99, Head: make([]byte, 60)})
	}
	f.Add(uint32(0), uint64(1), uint32(200), uint64(1))
	f.Add(uint32(24), uint64(0), uint32(900), uint64(1<<60))
	f.Fuzz(func(t *testing.T, o1 uint32, x1 uint64, o2 uint32, x2 uint64) {
		mem := bytes.Clone(good)
		for _, d := range []struct {
			o uint32
			x uint64
		}{{o1, x1}, {o2, x2}} {
			at := mem[int(d.o)%(len(mem)/8)*8:][:8]
			binary.LittleEndian.PutUint64(at, binary.LittleEndian.Uint64(at)^d.x)
		}
		tab, err := fdb.Open(mem, limit)
		if err != nil {
			return
		}
		if tab.Len() != len(contents(tab)) || tab.Len() > limit {
			t.Fatalf("length %d of %d entries", tab.Len(), len(contents(tab)))
		}
		for i := range 30 {
			tab.Learn(station(i), frame.PortID(1+i%5), 9, nil)
		}
		tab.Sweep(1e6, tab.Places())
		tab.History(100)
	})
}
