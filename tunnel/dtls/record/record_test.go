package record_test

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// pair are the two ends of an association.
func pair(t testing.TB, limit uint64) (s [2]*record.Sealer, o [2]*record.Opener) {
	t.Helper()
	for i := range 2 {
		secrets := &record.Secrets{Suite: record.ECDHEWithAES128GCM, Master: bytes.Repeat([]byte{9}, 48), Client: i == 0, Epoch: 1}
		var err error
		if s[i], o[i], err = record.New(secrets, 1, limit); err != nil {
			t.Fatal(err)
		}
	}
	return s, o
}

func seal(t testing.TB, s *record.Sealer, plain string) []byte {
	t.Helper()
	var w record.Writer
	b := make([]byte, len(plain)+record.Overhead)
	copy(b[record.Headroom:], plain)
	if !w.Reserve(s, 1) || !w.Seal(record.ApplicationData, b) {
		t.Fatal("not sealed")
	}
	return b
}

func open(o []*record.Opener, b []byte) (string, int, record.Verdict) {
	h, ok := record.Parse(b)
	if !ok {
		return "", 0, record.Bad
	}
	plain, which, v := new(record.Reader).Open(o, h, b)
	return string(plain), which, v
}

func TestSealerEndsAtItsLimit(t *testing.T) {
	s, _ := pair(t, 10)
	var w record.Writer
	if !w.Reserve(s[0], 7) {
		t.Fatal("7 of 10 refused")
	}
	if w.Reserve(s[0], 4) {
		t.Error("4 of 3 granted")
	}
	if w.Seal(record.ApplicationData, make([]byte, 100)) {
		t.Error("sealed without a number")
	}
	if got := s[0].Left(); got != 3 {
		t.Errorf("left %d, want 3", got)
	}
	if !w.Reserve(s[0], 3) || s[0].Left() != 0 || s[0].Sealed() != 10 {
		t.Errorf("last 3 not granted, or left %d, sealed %d", s[0].Left(), s[0].Sealed())
	}
	if w.Reserve(s[0], 1) {
		t.Error("an 11th granted")
	}
}

func TestNewRefuses(t *testing.T) {
	good := record.Secrets{Suite: record.PSKWithAES128GCM, Master: make([]byte, 48), Epoch: 1}
	for name, f := range map[string]func(*record.Secrets) (first, limit uint64){
		"epoch 0":    func(s *record.Secrets) (uint64, uint64) { s.Epoch = 0; return 0, 1 },
		"CBC suite":  func(s *record.Secrets) (uint64, uint64) { s.Suite = 0xc00a; return 0, 1 },
		"ECDHE_PSK":  func(s *record.Secrets) (uint64, uint64) { s.Suite = 0xc037; return 0, 1 },
		"no master":  func(s *record.Secrets) (uint64, uint64) { s.Master = nil; return 0, 1 },
		"wrap":       func(*record.Secrets) (uint64, uint64) { return 32, record.MaxSequence - 31 },
		"first past": func(*record.Secrets) (uint64, uint64) { return record.MaxSequence + 1, 0 },
	} {
		s := good
		first, limit := f(&s)
		if _, _, err := record.New(&s, first, limit); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestNumbersAreUsedOnce seals from several goroutines under one key.
func TestNumbersAreUsedOnce(t *testing.T) {
	const goroutines, batches, batch = 8, 200, 16
	s, _ := pair(t, goroutines*batches*batch-5)
	var seen sync.Map
	var sealed, refused atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			var w record.Writer
			b := make([]byte, record.Overhead)
			for range batches {
				if !w.Reserve(s[0], batch) {
					refused.Add(1)
					continue
				}
				for range batch {
					w.Seal(record.ApplicationData, b)
					h, _ := record.Parse(b)
					if n, ok := record.Number(h, b); !ok || n != 1<<48|h.Sequence {
						t.Errorf("explicit nonce %x of number %x", n, h.Sequence)
					}
					if _, twice := seen.LoadOrStore(h.Sequence, true); twice {
						t.Errorf("number %d twice", h.Sequence)
					}
					sealed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if refused.Load() != 1 || sealed.Load() != (goroutines*batches-1)*batch {
		t.Errorf("sealed %d, refused %d batches; want all but one", sealed.Load(), refused.Load())
	}
}

func TestOpenTriesOlderKeys(t *testing.T) {
	newS, newO := pair(t, 10)
	other := &record.Secrets{Suite: record.PSKWithAES128GCM, Master: make([]byte, 48), Client: true, Epoch: 1}
	oldS, _, err := record.New(other, 1, 10)
	if err != nil {
		t.Fatal(err)
	}
	other.Client = false
	_, oldO, _ := record.New(other, 1, 10)
	both := []*record.Opener{newO[1], oldO}
	if p, which, v := open(both, seal(t, newS[0], "new")); p != "new" || which != 0 || v != record.Opened {
		t.Errorf("new key: %q %d %v", p, which, v)
	}
	// The number of this record was seen with the new key, not with this one.
	old := seal(t, oldS, "old")
	again := bytes.Clone(old)
	if p, which, v := open(both, old); p != "old" || which != 1 || v != record.Opened {
		t.Errorf("old key: %q %d %v", p, which, v)
	}
	if _, _, v := open(both, again); v != record.Replayed {
		t.Errorf("again: %v, want replayed", v)
	}
	if _, _, v := open(nil, seal(t, newS[0], "x")); v != record.Bad {
		t.Errorf("no key: %v, want bad", v)
	}
}

// TestForgeriesChangeNothing sends records that nobody sealed, with numbers far
// ahead, and then honest ones.
func TestForgeriesChangeNothing(t *testing.T) {
	s, o := pair(t, 100)
	for i := range 50 {
		b := seal(t, s[0], "honest")
		forged := bytes.Clone(b)
		forged[5], forged[13] = 0x7f, byte(i) // number and nonce
		if _, _, v := open([]*record.Opener{o[1]}, forged); v != record.Bad {
			t.Fatalf("forged: %v, want bad", v)
		}
		if p, _, v := open([]*record.Opener{o[1]}, b); v != record.Opened || p != "honest" {
			t.Fatalf("honest: %q, %v", p, v)
		}
	}
}

// TestWindowIsTheStandards compares the ring with a set and an edge.
func TestWindowIsTheStandards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w record.Window
		seen, highest := map[uint64]bool{}, uint64(0)
		at := rapid.Uint64Range(0, record.MaxSequence-1<<20).Draw(t, "start")
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			n := at - min(at, rapid.Uint64Range(0, 2200).Draw(t, "back"))
			if rapid.IntRange(0, 2).Draw(t, "ahead") == 0 {
				at += rapid.Uint64Range(1, 3000).Draw(t, "step")
				n = at
			}
			want := !seen[n] && n+2032 > highest
			if got := !w.Seen(n); got != want {
				t.Fatalf("number %d, highest %d: new %v, want %v", n, highest, got, want)
			}
			if rapid.Bool().Draw(t, "mark") {
				if got := w.Mark(n); got != want {
					t.Fatalf("number %d, highest %d: marked %v, want %v", n, highest, got, want)
				}
				seen[n], highest = true, max(highest, n)
			}
		}
	})
}

// TestWindowAcceptsOnce offers each number from several goroutines.
func TestWindowAcceptsOnce(t *testing.T) {
	const goroutines, n = 4, 20000
	var w record.Window
	var accepted [n]atomic.Int32
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range n {
				k := (i ^ g*7) % n
				if w.Mark(uint64(k)) {
					accepted[k].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for i := range accepted {
		if got := accepted[i].Load(); got > 1 {
			t.Fatalf("number %d accepted %d times", i, got)
		}
	}
}

func TestSealAllocatesNothing(t *testing.T) {
	s, _ := pair(t, 1<<40)
	var w record.Writer
	b := make([]byte, 1400+record.Overhead)
	if n := testing.AllocsPerRun(100, func() {
		w.Reserve(s[0], 1)
		w.Seal(record.ApplicationData, b)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestOpenAllocatesNothing(t *testing.T) {
	s, o := pair(t, 1<<40)
	_, strange := pair(t, 1)
	openers := []*record.Opener{strange[0], o[1]}
	var w record.Writer
	var r record.Reader
	b := make([]byte, 1400+record.Overhead)
	if n := testing.AllocsPerRun(100, func() {
		w.Reserve(s[0], 1)
		w.Seal(record.ApplicationData, b)
		h, _ := record.Parse(b)
		if _, _, v := r.Open(openers, h, b); v != record.Opened {
			t.Fatal("not opened")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// FuzzOpen gives the opener what the network may: nothing but what was sealed
// opens, and nothing opens twice.
func FuzzOpen(f *testing.F) {
	s, _ := pair(f, 100)
	f.Add(seal(f, s[0], "a frame"))
	f.Add(seal(f, s[0], ""))
	f.Add([]byte{23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, o := pair(t, 100)
		sealed := seal(t, s[0], "a frame")
		openers := []*record.Opener{o[0], o[1]} // o[0] opens nothing of s[0]
		genuine := bytes.HasPrefix(b, sealed)
		p, _, v := open(openers, bytes.Clone(b))
		if v == record.Opened && !genuine {
			if slowOpens(b) {
				return // the seed corpus holds records of the same key
			}
			t.Fatalf("opened %q", p)
		}
		_, _, v = open(openers, bytes.Clone(sealed))
		if want := map[bool]record.Verdict{false: record.Opened, true: record.Replayed}[genuine]; v != want {
			t.Fatalf("the genuine record: %v, want %v", v, want)
		}
	})
}

// slowOpens tells by the readable twin whether b is a record of pair's client.
func slowOpens(b []byte) bool {
	client, _ := slowKeys(&record.Secrets{Suite: record.ECDHEWithAES128GCM, Master: bytes.Repeat([]byte{9}, 48), Epoch: 1})
	_, v := client.open(bytes.Clone(b))
	return v == record.Opened
}

func benchmarkSeal(b *testing.B, size int) {
	s, _ := pair(b, record.MaxSequence/2)
	var w record.Writer
	buf := make([]byte, size+record.Overhead)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		w.Reserve(s[0], 1)
		w.Seal(record.ApplicationData, buf)
	}
}

func BenchmarkSeal1400(b *testing.B) { benchmarkSeal(b, 1400) }
func BenchmarkSeal64(b *testing.B)   { benchmarkSeal(b, 64) }

// benchmarkOpen seals ahead, so that opening alone is timed.
func benchmarkOpen(b *testing.B, size int) {
	const ahead = 1024
	s, o := pair(b, record.MaxSequence/2)
	openers := []*record.Opener{o[1]}
	var w record.Writer
	var r record.Reader
	records := make([]byte, ahead*(size+record.Overhead))
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i %= ahead; i == 0 {
			b.StopTimer()
			w.Reserve(s[0], ahead)
			for k := range ahead {
				w.Seal(record.ApplicationData, records[k*(size+record.Overhead):][:size+record.Overhead])
			}
			b.StartTimer()
		}
		one := records[i*(size+record.Overhead):][:size+record.Overhead]
		h, _ := record.Parse(one)
		if _, _, v := r.Open(openers, h, one); v != record.Opened {
			b.Fatal("not opened")
		}
	}
}

func BenchmarkOpen1400(b *testing.B) { benchmarkOpen(b, 1400) }
func BenchmarkOpen64(b *testing.B)   { benchmarkOpen(b, 64) }
