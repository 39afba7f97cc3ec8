package udpio_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/tapestry-net/tapestry/internal/udpio"
)

func TestPool(t *testing.T) {
	p := udpio.NewPool()
	if s := p.Pick(1); s != nil {
		t.Fatalf("empty pool gave %v", s.Addr())
	}
	<-p.Wanted()
	want := p.TakeWanted()
	if len(want) != 1 {
		t.Fatalf("wanted %v, want one slot", want)
	}
	lo := netip.MustParseAddr("127.0.0.1")
	open := func(slot int) *udpio.Socket { return sender(t, udpio.SenderOptions{Local: lo, Slot: slot}) }
	first := open(want[0])
	if before := p.Put(want[0], first); before != nil {
		t.Errorf("slot held %v", before.Addr())
	}
	if got := p.Pick(1); got != first {
		t.Errorf("Pick = %v, want the socket put there", got)
	}
	// A flow of another slot leaves by the first socket until it has its own.
	for h := uint32(2); len(p.TakeWanted()) == 0; h++ {
		if got := p.Pick(h); got != first {
			t.Fatalf("Pick(%d) = %v, want the spare socket", h, got)
		}
	}
	second := open(want[0])
	if before := p.Put(want[0], second); before != first {
		t.Errorf("Put returned %v, want the socket it replaces", before)
	}
	if got := p.Pick(1); got != second {
		t.Errorf("Pick = %v, want the second socket", got)
	}
	p.Put((want[0]+1)%udpio.Slots, second)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// TestPoolSpread picks for few flows, whose hashes differ in low, in high or in
// random bits: 64 flows use 48 ports or more, and a flow always the same.
func TestPoolSpread(t *testing.T) {
	p := udpio.NewPool()
	lo := netip.MustParseAddr("127.0.0.1")
	for slot := range udpio.Slots {
		p.Put(slot, sender(t, udpio.SenderOptions{Local: lo, Slot: slot}))
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for name, hash := range map[string]func(i uint32) uint32{
		"low bits":    func(i uint32) uint32 { return i },
		"middle bits": func(i uint32) uint32 { return i << 12 },
		"random":      func(uint32) uint32 { return rnd.Uint32() },
	} {
		ports := map[uint16]bool{}
		for i := range uint32(64) {
			h := hash(i)
			s := p.Pick(h)
			if again := p.Pick(h); again != s {
				t.Errorf("%s: a flow changed its port", name)
			}
			ports[s.Addr().Port()] = true
		}
		if len(ports) < 48 {
			t.Errorf("%s: 64 flows on %d ports, want 48 or more", name, len(ports))
		}
	}
}

// TestPick is that the hot path allocates nothing.
func TestPick(t *testing.T) {
	p := udpio.NewPool()
	p.Put(0, sender(t, udpio.SenderOptions{Local: netip.MustParseAddr("127.0.0.1")}))
	h := uint32(0)
	if n := testing.AllocsPerRun(1000, func() { h++; p.Pick(h) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// TestPoolConcurrent lets flows ask while slots are filled.
func TestPoolConcurrent(t *testing.T) {
	p := udpio.NewPool()
	lo := netip.MustParseAddr("127.0.0.1")
	var flows sync.WaitGroup
	for range 2 {
		flows.Go(func() {
			for h := range uint32(1 << 14) {
				p.Pick(h)
			}
		})
	}
	done := make(chan struct{})
	go func() { flows.Wait(); close(done) }()
	var filled []int
	for open := true; open; {
		select {
		case <-p.Wanted():
		case <-done:
			open = false
		}
		for _, slot := range p.TakeWanted() {
			fd, err := udpio.OpenSender(udpio.SenderOptions{Local: lo, Slot: slot})
			if err != nil {
				t.Fatal(err)
			}
			s, err := udpio.NewSocket(fd)
			if err != nil {
				t.Fatal(err)
			}
			p.Put(slot, s)
			filled = append(filled, slot)
		}
	}
	slices.Sort(filled)
	if n := len(slices.Compact(filled)); n != udpio.Slots || n != len(filled) {
		t.Errorf("%d slots filled, %d different; want %d", len(filled), n, udpio.Slots)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
