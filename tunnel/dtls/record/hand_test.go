package record_test

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// handOver hands an end over and takes it again.
func handOver(t interface{ Fatal(...any) }, suite record.Suite, s *record.Sealer, o *record.Opener) (*record.Sealer, *record.Opener) {
	b := record.Hand([]byte("before"), s, o)
	s, o, rest, err := record.Take(suite, append(b, "behind"...)[len("before"):])
	if err != nil || string(rest) != "behind" {
		t.Fatal(string(rest), err)
	}
	return s, o
}

// TestHandedGoesOn draws an association of which one end or the other is handed
// over now and then: what is sealed comes out, once, and no number comes again.
func TestHandedGoesOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secrets := drawSecrets(t)
		var s [2]*record.Sealer
		var o [2]*record.Opener
		for i := range 2 {
			secrets.Client = i == 0
			var err error
			if s[i], o[i], err = record.New(secrets, 7, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		var last, sealed [2]uint64
		var old [2][][]byte
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, 1).Draw(t, "end")
			if rapid.IntRange(0, 4).Draw(t, "hand") == 0 {
				was := s[i]
				s[i], o[i] = handOver(t, secrets.Suite, s[i], o[i])
				var w record.Writer
				if w.Reserve(was, 1) || was.Left() != 0 {
					t.Fatal("what was handed over still seals")
				}
				if got := s[i].Sealed(); got < sealed[i] {
					t.Fatalf("%d numbers given away, before it was %d", got, sealed[i])
				}
				continue
			}
			text := fmt.Sprint("text ", i, len(old[i]))
			b := sealWith(t, s[i], text)
			old[i] = append(old[i], bytes.Clone(b))
			if h, _ := record.Parse(b); h.Sequence <= last[i] && last[i] != 0 {
				t.Fatalf("number %d after %d", h.Sequence, last[i])
			} else {
				last[i] = h.Sequence
			}
			sealed[i] = s[i].Sealed()
			if plain, _, v := open(o[1-i:][:1], b); v != record.Opened || plain != text {
				t.Fatalf("%q: %v", plain, v)
			}
			again := old[i][rapid.IntRange(0, len(old[i])-1).Draw(t, "again")]
			if _, _, v := open(o[1-i:][:1], bytes.Clone(again)); v != record.Replayed {
				t.Fatalf("again: %v, want replayed", v)
			}
		}
	})
}

func sealWith(t *rapid.T, s *record.Sealer, plain string) []byte {
	var w record.Writer
	b := make([]byte, len(plain)+record.Overhead)
	copy(b[record.Headroom:], plain)
	if !w.Reserve(s, 1) || !w.Seal(record.ApplicationData, b) {
		t.Fatal("not sealed")
	}
	return b
}

// TestRetiredGivesNoNumberTwice hands a Sealer over, again and again, while
// goroutines reserve numbers of it.
func TestRetiredGivesNoNumberTwice(t *testing.T) {
	const goroutines, hands, batch = 4, 200, 16
	sealers, openers := pair(t, 1<<40)
	s, o := sealers[0], openers[0]
	var inUse atomic.Pointer[record.Sealer]
	inUse.Store(s)
	var seen sync.Map
	var sealed atomic.Int64
	var wg sync.WaitGroup
	quit := make(chan struct{})
	for range goroutines {
		wg.Go(func() {
			var w record.Writer
			b := make([]byte, record.Overhead)
			for {
				select {
				case <-quit:
					return
				default:
				}
				if !w.Reserve(inUse.Load(), batch) {
					continue
				}
				for w.Seal(record.ApplicationData, b) {
					h, _ := record.Parse(b)
					if _, twice := seen.LoadOrStore(h.Sequence, true); twice {
						t.Errorf("number %d twice", h.Sequence)
					}
					sealed.Add(1)
				}
			}
		})
	}
	for i := range int64(hands) {
		for sealed.Load() < i*batch { // the goroutines are in the middle of it
			runtime.Gosched()
		}
		s, o = handOver(t, record.ECDHEWithAES128GCM, s, o)
		inUse.Store(s)
	}
	close(quit)
	wg.Wait()
}

// TestHandedOpensOnce has two goroutines open the same records while the Opener
// is handed over: each is accepted once, before or after.
func TestHandedOpensOnce(t *testing.T) {
	const records = 2000
	for range 20 {
		s, o := pair(t, records)
		var accepted [records]atomic.Int32
		var inUse atomic.Pointer[record.Opener]
		inUse.Store(o[1])
		sealed := make([][]byte, records)
		for i := range sealed {
			sealed[i] = seal(t, s[0], "x")
		}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for i := range sealed {
					if _, _, v := open([]*record.Opener{inUse.Load()}, bytes.Clone(sealed[i])); v == record.Opened {
						accepted[i].Add(1)
					}
				}
			})
		}
		_, next := handOver(t, record.ECDHEWithAES128GCM, s[1], o[1])
		inUse.Store(next)
		wg.Wait()
		for i := range sealed {
			if open([]*record.Opener{next}, sealed[i]); accepted[i].Load() > 1 {
				t.Fatalf("record %d was accepted %d times", i, accepted[i].Load())
			}
		}
	}
}

// TestHandedEnds hands a Sealer over that has few numbers left: the margin takes
// them, and the limit stays where it was.
func TestHandedEnds(t *testing.T) {
	s, o := pair(t, 1030)
	seal(t, s[0], "x")
	s[0], o[0] = handOver(t, record.ECDHEWithAES128GCM, s[0], o[0])
	if s[0].Left() != 5 || s[0].Sealed() != 1025 {
		t.Errorf("left %d, sealed %d, want 5 and 1025", s[0].Left(), s[0].Sealed())
	}
	s[0], o[0] = handOver(t, record.ECDHEWithAES128GCM, s[0], o[0])
	var w record.Writer
	if s[0].Left() != 0 || w.Reserve(s[0], 1) {
		t.Errorf("left %d, want none", s[0].Left())
	}
	// Handed over twice, the second has nothing.
	record.Hand(nil, s[1], o[1])
	if _, _, _, err := record.Take(record.ECDHEWithAES128GCM, record.Hand(nil, s[1], o[1])); err == nil {
		t.Error("what was handed over already was taken again")
	}
}

// FuzzTake takes anything: what it takes stays below the limit, and nothing makes it
// panic.
func FuzzTake(f *testing.F) {
	s, o := pair(f, 10)
	good := record.Hand(nil, s[0], o[0])
	for _, suite := range []record.Suite{record.ECDHEWithAES128GCM, record.ECDHEWithAES256GCM, record.PSKWithAES128GCM, 0} {
		f.Add(uint16(suite), good)
		f.Add(uint16(suite), good[:len(good)-1])
		f.Add(uint16(suite), append(bytes.Clone(good), good...))
	}
	f.Fuzz(func(t *testing.T, suite uint16, b []byte) {
		s, o, rest, err := record.Take(record.Suite(suite), b)
		if err != nil {
			return
		}
		if len(rest) >= len(b) || s.Left() > record.MaxSequence || s.Sealed() > record.MaxSequence {
			t.Errorf("rest %d of %d, left %d, sealed %d", len(rest), len(b), s.Left(), s.Sealed())
		}
		open([]*record.Opener{o}, b)
		again := record.Hand(nil, s, o)
		if _, _, _, err := record.Take(record.Suite(suite), again); err != nil {
			t.Errorf("handed over again: %v", err)
		}
	})
}
