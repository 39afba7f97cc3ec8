package vswitch_test

import (
	"math/rand/v2"
	"testing"
	"time"

	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
)

func TestStormControl(t *testing.T) {
	clock, advance := manualClock()
	spec := bridge(2)
	spec.Ports[0].Storm = vswitch.Storm{Broadcast: 80, Unknown: 80, Multicast: 80}
	r := start(t, spec, clock)
	for _, dst := range []frame.MAC{frame.Broadcast, mac(99), multicast} {
		for range 20 {
			r.send(1, eth(dst, mac(1)))
		}
	}
	if got, want := r.drops(1, frame.Storm), uint64(3*10); got != want {
		t.Errorf("storm drops of 20 frames a class, 10 of them in the bucket: got %d, want %d", got, want)
	}
	if e := r.event(vswitch.EventStorm); e.Port != 1 || e.Class != frame.BroadcastAddr {
		t.Errorf("event: got %+v, want a broadcast storm of port 1", e)
	}
	advance(50 * time.Millisecond)
	for range 10 {
		r.send(1, eth(frame.Broadcast, mac(1)))
	}
	if got, want := r.drops(1, frame.Storm), uint64(30+6); got != want {
		t.Errorf("storm drops after 50 ms, worth 4 frames: got %d, want %d", got, want)
	}
	r.send(2, eth(frame.Broadcast, mac(2)))
	r.send(1, eth(mac(2), mac(1)))
	if got := r.drops(1, frame.Storm); got != 36 {
		t.Errorf("known unicast met storm control: %d drops, want 36", got)
	}
	r.conserve()
}

func TestStormCountsSegments(t *testing.T) {
	clock, advance := manualClock()
	spec := bridge(2)
	spec.Ports[0].Storm.Broadcast = 80
	r := start(t, spec, clock)
	super := frame.Frame{Data: append(eth(frame.Broadcast, mac(1)), make([]byte, 6000)...), GSO: frame.GSO{Type: frame.GSOUDP, HdrLen: 42, Size: 301}}
	r.sendFrames(1, super) // 20 segments: the bucket of 10 goes into debt
	advance(100 * time.Millisecond)
	r.send(1, eth(frame.Broadcast, mac(1)))
	if got := r.drops(1, frame.Storm); got != 1 {
		t.Errorf("storm drops while in debt: got %d, want 1", got)
	}
	advance(time.Second)
	r.send(1, eth(frame.Broadcast, mac(1)))
	if got := r.drops(1, frame.Storm); got != 1 {
		t.Errorf("storm drops when the debt is paid: got %d, want 1", got)
	}
}

func TestLabHasNoGuards(t *testing.T) {
	spec := bridge(3)
	spec.Lab = true
	for i := range spec.Ports {
		spec.Ports[i].LoopGuard, spec.Ports[i].Storm.Broadcast = true, 1
	}
	r := start(t, spec)
	for i := range 60 {
		r.send(1+i%2, eth(frame.Broadcast, mac(1)))
	}
	if got := r.sw.Stats().Verdicts[frame.Drop]; got != 0 {
		t.Errorf("dropped: got %d, want 0", got)
	}
}

// cabled gives two switches of one station port each a wire for every pair.
func cabled(t *testing.T, wires int, edit ...func(*vswitch.Options)) (a, b *rig) {
	t.Helper()
	left, right := bridge(1+wires), bridge(1+wires)
	for i := range wires {
		x, y, err := mem.Pair(mem.Options{Offloads: ^frame.Offloads(0)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { x.Close(); y.Close() })
		left.Ports[1+i].Queue, right.Ports[1+i].Queue = x, y
	}
	for i := range left.Ports {
		left.Ports[i].LoopGuard, right.Ports[i].LoopGuard = true, true
	}
	return start(t, left, edit...), start(t, right, edit...)
}

func TestLoopIsCut(t *testing.T) {
	a, b := cabled(t, 2)
	a.ports[0].Inject(eth(frame.Broadcast, mac(1)))
	var cut vswitch.Event
	a.until("a cut", func() bool {
		for _, r := range []*rig{a, b} {
			r.mu.Lock()
			for _, e := range r.events {
				if e.Kind == vswitch.EventLoopCut {
					cut = e
				}
			}
			r.mu.Unlock()
		}
		return cut.Kind != 0
	})
	if cut.Port != 2 && cut.Port != 3 {
		t.Errorf("cut port %d, want one of the wires, 2 or 3", cut.Port)
	}
	if cut.For < 10*time.Second || cut.For > 13*time.Second {
		t.Errorf("cut for %v, want 10 s and up to a quarter more", cut.For)
	}
	// The frame must die out: no frame comes in for a thousand looks.
	base := a.sw.Stats().RxFrames + b.sw.Stats().RxFrames
	for still, last := 0, uint64(0); still < 1000; still++ {
		if n := a.sw.Stats().RxFrames + b.sw.Stats().RxFrames; n != last {
			still, last = 0, n
		}
		if last > base+100_000 {
			t.Fatal("the storm goes on behind the cut")
		}
	}
	if a.drops(1, frame.Loop)+b.drops(1, frame.Loop) != 0 {
		t.Error("a station port was cut")
	}
	a.conserve()
	b.conserve()
}

func TestReflectorIsCutAndTriedAgain(t *testing.T) {
	clock, advance := manualClock()
	spec := bridge(3)
	for i := range spec.Ports {
		spec.Ports[i].LoopGuard = true
	}
	r := start(t, spec, clock)
	storm := func() (seen int) {
		for seen = range 20 {
			advance(100 * time.Millisecond)
			f := eth(frame.Broadcast, mac(1))
			f[20] = byte(seen)
			r.send(1, f)
			r.send(2, f) // port 2 sends everything back
			if r.drops(2, frame.Loop) > 0 {
				break
			}
		}
		return seen
	}
	if n := storm(); n < 3 || n > 9 {
		t.Errorf("cut after %d echoes a tenth of a second apart, want 4 to 10", n+1)
	}
	first := r.event(vswitch.EventLoopCut)
	if first.Port != 2 || first.MAC != mac(1) || first.VID != 10 {
		t.Errorf("event: got %+v, want port 2, station 1, VLAN 10", first)
	}
	if s, _ := r.sw.PortStats(2); !s.Cut {
		t.Error("the state of port 2 does not say that it is cut")
	}
	r.heard()
	advance(time.Second)
	r.expect("to a cut port", 1, eth(frame.Broadcast, mac(1)), 3)
	r.expect("from a cut port", 2, eth(frame.Broadcast, mac(2)))
	if x := r.sw.Explain(2, frame.Frame{Data: eth(frame.Broadcast, mac(2))}); x.Verdict.Reason != frame.Loop {
		t.Errorf("explained: got %v, want loop", x.Verdict.Reason)
	}
	advance(13 * time.Second)
	if e := r.event(vswitch.EventLoopOpened); e.Port != 2 {
		t.Errorf("opened port %d, want 2", e.Port)
	}
	r.expect("from the opened port", 2, eth(frame.Broadcast, mac(2)), 1, 3)
	storm = func() int {
		for i := range 20 {
			advance(100 * time.Millisecond)
			f := eth(frame.Broadcast, mac(1))
			f[21] = byte(i + 1)
			r.send(1, f)
			r.send(2, f)
		}
		return 0
	}
	storm()
	if e := r.event(vswitch.EventLoopCut); e.For < 20*time.Second {
		t.Errorf("second cut: for %v, want twice as long as the first or more", e.For)
	}
	r.conserve()
}

func TestLoopGuardLeavesOthersAlone(t *testing.T) {
	clock, advance := manualClock()
	spec := bridge(6)
	for i := range spec.Ports {
		spec.Ports[i].LoopGuard = true
	}
	spec.Ports[3].Hairpin = true
	spec.Ports[4].Mode = vswitch.ModeVEPA
	spec.Ports[5].Uplink = true
	r := start(t, spec, clock)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range 400 {
		advance(time.Millisecond)
		// Stations stay on their ports and say the same again and again.
		p := 1 + random.IntN(4)
		r.send(p, eth(frame.Broadcast, mac(p*100+random.IntN(3))))
		// The VEPA port's frames come back by the uplink.
		f := eth(multicast, mac(500))
		r.send(5, f)
		r.send(6, f)
		if i%100 == 0 { // one station moves to and fro and announces itself
			advance(time.Second)
			r.send(1+i/100%2, eth(frame.Broadcast, mac(900)))
			r.send(1+i/100%2, eth(frame.Broadcast, mac(900)))
		}
		r.heard()
	}
	if got := r.sw.Stats().Drops[frame.Loop]; got != 0 {
		t.Errorf("loop drops: got %d, want 0", got)
	}
}
