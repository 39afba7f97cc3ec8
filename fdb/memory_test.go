package fdb_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
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
				if before[k] != e && after[k] != e && halfMoved(before[k], after[k]) != e {
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

// halfMoved is an entry that has been noted to move, and has not moved yet.
func halfMoved(before, after fdb.Entry) fdb.Entry {
	after.Port, after.Static = before.Port, before.Static
	return after
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
	learn := func(n int, k func(i int) fdb.Key) func([]byte) {
		return func(m []byte) {
			for i := range n {
				reopen(t, m, limit).Learn(k(i), 1, 0, nil)
			}
		}
	}
	word, _ := tab.WordOf(station(3))
	records := len(mem) - 1024*96
	for name, damage := range map[string]func([]byte){
		"magic":        flip(0),
		"checksum":     flip(8),
		"version":      flip(16),
		"limit":        flip(24),
		"seed":         flip(32),
		"not live":     flip(word + 1),
		"no port":      func(m []byte) { m[word], m[word+1] = 0, m[word+1]&^0x3f },
		"no VLAN":      learn(1, func(int) fdb.Key { return inVLAN(0, 1) }),
		"no station":   learn(1, func(int) fdb.Key { return fdb.MakeKey(1, frame.Broadcast) }),
		"twice":        func(m []byte) { copy(m[word^8:][:8], m[word:word+8]) },
		"too many":     func(m []byte) { learn(5, station)(m); relimit(m, 4) },
		"record order": func(m []byte) { copy(m[records+96:][:8], m[records:]) },
		"record event": flip(records + 24),
	} {
		c := bytes.Clone(mem)
		damage(c)
		n := limit
		if name == "too many" {
			n = 4
		}
		if _, err := fdb.Open(c, n); err == nil {
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

// relimit writes another limit into a header.
func relimit(m []byte, limit uint64) {
	binary.LittleEndian.PutUint64(m[24:], limit)
	binary.LittleEndian.PutUint64(m[8:], 1<<32|uint64(crc32.ChecksumIEEE(m[16:128])))
}

// TestUsageDamaged loses no entry when the note of which pages are used does
// not hold.
func TestUsageDamaged(t *testing.T) {
	const limit = 1000
	mem := make([]byte, fdb.Size(limit))
	tab := reopen(t, mem, limit)
	for i := range 50 {
		tab.Learn(station(i), 1, 0, nil)
	}
	for name, damage := range map[string]func([]byte){
		"flipped": func(m []byte) { m[128] ^= 0x40 },
		"zeroed":  func(m []byte) { clear(m[128:][:32]) },
		"all set": func(m []byte) { copy(m[128:][:8], "\xff\xff\xff\xff\xff\xff\xff\xff") },
	} {
		c := bytes.Clone(mem)
		damage(c)
		if got := reopen(t, c, limit); got.Len() != 50 || len(contents(got)) != 50 {
			t.Errorf("%s: %d entries, length %d, want 50", name, len(contents(got)), got.Len())
		}
	}
}

// TestKilledGivingWay opens the memory as it is behind every store of an entry's
// way into its second bucket: no other one is lost, and none is there twice.
func TestKilledGivingWay(t *testing.T) {
	const limit = 100
	mem := make([]byte, fdb.Size(limit))
	tab := reopen(t, mem, limit)
	low, high := colliding(tab, 0, 9), colliding(tab, 1, 8)
	for _, k := range append(low[:8:8], high...) {
		tab.Learn(k, 1, 5, nil)
	}
	want := contents(tab)
	var copies [][]byte
	tab.OnStore(func() { copies = append(copies, bytes.Clone(mem)) })
	tab.Learn(low[8], 2, 5, nil) // one of high gives way to it
	want[low[8]], _ = tab.Entry(low[8])
	tab.Learn(station(1), 3, 5, nil)
	want[station(1)], _ = tab.Entry(station(1))
	for i, c := range copies {
		got := reopen(t, c, limit)
		for k, e := range contents(got) {
			if want[k] != e {
				t.Fatalf("store %d: %+v, want %+v", i, e, want[k])
			}
		}
		if n := len(contents(got)); n < 16 || n > 18 || n != got.Len() {
			t.Fatalf("store %d: %d entries, length %d", i, n, got.Len())
		}
	}
	if n := len(contents(tab)); n != 18 {
		t.Errorf("%d entries, want 18", n)
	}
	lookup(t, tab, low[8], 2)
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
	f.Add(uint32(16), uint64(1), uint32(17), uint64(1<<40))
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
		tab.Flush(fdb.Filter{})
		tab.History(100)
	})
}
