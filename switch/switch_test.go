package vswitch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
)

func TestApplyRefuses(t *testing.T) {
	q := openPort(t, mem.Options{})
	net := vswitch.Network{Name: "blue", VID: 10}
	ports := func(p ...vswitch.Port) vswitch.Spec {
		return vswitch.Spec{Networks: []vswitch.Network{net}, Ports: p}
	}
	networks := func(n ...vswitch.Network) vswitch.Spec { return vswitch.Spec{Networks: n} }
	tests := []struct {
		spec vswitch.Spec
		want string
	}{
		{networks(vswitch.Network{Name: "x"}), `network "x": VID 0`},
		{networks(vswitch.Network{Name: "x", VID: 4095}), "VID 4095"},
		{networks(net, vswitch.Network{Name: "x", VID: 10}), `"blue" has it already`},
		{networks(net, vswitch.Network{Name: "blue", VID: 11}), "two networks"},
		{networks(vswitch.Network{Name: "x", VID: 1, MTU: -1}), "MTU -1"},
		{networks(vswitch.Network{Name: "x", VID: 1, Ageing: -1}), "ageing"},
		{ports(vswitch.Port{Name: "a"}), `port "a": ID 0`},
		{ports(vswitch.Port{ID: 16384}), "ID 16384"},
		{ports(vswitch.Port{ID: 1, Name: "a"}, vswitch.Port{ID: 1, Name: "b"}), `"a" has it already`},
		{ports(vswitch.Port{ID: 1, Name: "a"}, vswitch.Port{ID: 2, Name: "a"}), "two ports"},
		{ports(vswitch.Port{ID: 1, MTU: 70000}), "MTU 70000"},
		{ports(vswitch.Port{ID: 1, Native: 11}), "native VID 11"},
		{ports(vswitch.Port{ID: 1, Tagged: []frame.VID{11}}), "tagged VID 11"},
		{ports(vswitch.Port{ID: 1, Tagged: []frame.VID{10, 10}}), "twice"},
		{ports(vswitch.Port{ID: 1, Mode: 4}), "mode 4"},
		{ports(vswitch.Port{ID: 1, MACPin: multicast}), "group"},
		{ports(vswitch.Port{ID: 1, Sources: []netip.Addr{{}}}), "source"},
		{ports(vswitch.Port{ID: 1, Name: "a", Queue: q}, vswitch.Port{ID: 2, Name: "b", Queue: q}), "shares descriptor"},
		{ports(vswitch.Port{ID: 1, Name: "a", Queue: closedQueue{q}}), `port a: poll`},
	}
	r := start(t, bridge(2))
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			if err := r.sw.Apply(tt.spec); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	r.expect("the former spec stands", 1, eth(frame.Broadcast, mac(1)), 2)
}

// closedQueue has a descriptor that cannot be polled.
type closedQueue struct{ *mem.Port }

func (closedQueue) FD() int { return 1 << 30 }

func TestApplyChangesNothingForOthers(t *testing.T) {
	r := start(t, bridge(3))
	r.send(1, eth(frame.Broadcast, mac(1)))
	r.send(3, eth(frame.Broadcast, mac(3)))
	if got := r.table.Len(); got != 2 {
		t.Fatalf("entries: got %d, want 2", got)
	}
	less := r.spec
	less.Ports = r.spec.Ports[:2]
	r.apply(less)
	if err := r.ports[2].Close(); err != nil {
		t.Fatal(err)
	}
	if got := r.table.Len(); got != 1 {
		t.Errorf("entries after port 3 went: got %d, want 1", got)
	}
	if _, ok := r.sw.PortStats(3); ok {
		t.Error("a removed port still has counters")
	}
	r.ports = r.ports[:2]
	r.heard()
	r.expect("after a removal", 2, eth(mac(3), mac(2)), 1)
	if s, _ := r.sw.PortStats(1); s.RX.Frames != 1 || s.TX.Frames != 2 {
		t.Errorf("counters of port 1: got %+v, want them to go on", s)
	}
	other := r.spec
	other.Networks = append(other.Networks, vswitch.Network{Name: "red", VID: 20})
	other.Ports = []vswitch.Port{r.spec.Ports[0], r.spec.Ports[1]}
	other.Ports[0].Native = 20
	r.apply(other)
	if got := r.table.PortLen(1); got != 0 {
		t.Errorf("entries of a port that changed its network: got %d, want 0", got)
	}
	r.conserve()
}

func TestPortWithoutQueueIsDown(t *testing.T) {
	r := start(t, bridge(3))
	r.spec.Ports[2].Queue = nil
	r.apply(r.spec)
	r.expect("flood", 1, eth(frame.Broadcast, mac(1)), 2)
	if got := r.drops(3, frame.EgressDown); got != 1 {
		t.Errorf("egress_down: got %d, want 1", got)
	}
	r.conserve()
}

func TestDeadPortIsToldOnceAndHealed(t *testing.T) {
	r := start(t, bridge(3))
	gone := errors.New("device deleted")
	r.ports[1].Fail(gone)
	if e := r.event(vswitch.EventPortDown); e.Port != 2 || !errors.Is(e.Err, gone) {
		t.Errorf("event: got %+v, want port 2 and the cause", e)
	}
	if s, _ := r.sw.PortStats(2); !errors.Is(s.Down, gone) {
		t.Errorf("state: got down %v, want %v", s.Down, gone)
	}
	wakeups := r.sw.Stats().Wakeups
	r.expect("past the dead port", 1, eth(frame.Broadcast, mac(1)), 3)
	if got := r.drops(2, frame.EgressDown); got != 1 {
		t.Errorf("egress_down: got %d, want 1", got)
	}
	if got := r.sw.Stats().Wakeups - wakeups; got > 3 {
		t.Errorf("wake-ups for one frame beside a dead descriptor: got %d, want 3 or fewer", got)
	}
	r.apply(r.spec)
	r.ports[1] = openPort(t, mem.Options{})
	r.spec.Ports[1].Queue = r.ports[1]
	r.apply(r.spec)
	r.expect("healed", 1, eth(frame.Broadcast, mac(1)), 2, 3)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) != 0 {
		t.Errorf("further events: %+v", r.events)
	}
}

// mute polls readable for ever and delivers nothing.
type mute struct {
	*mem.Port
	pipe int
}

func (m mute) FD() int                      { return m.pipe }
func (m mute) Receive(b *frame.Batch) error { return nil }

func TestSilentPortIsTakenOut(t *testing.T) {
	for _, hangup := range []bool{true, false} {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[0])
		if !hangup {
			defer unix.Close(fds[1])
			if _, err := unix.Write(fds[1], []byte{1}); err != nil {
				t.Fatal(err)
			}
		} else {
			unix.Close(fds[1])
		}
		spec := bridge(3)
		spec.Ports[1].Queue = mute{openPort(t, mem.Options{}), fds[0]}
		r := start(t, spec)
		if e := r.event(vswitch.EventPortDown); e.Port != 2 || e.Err == nil {
			t.Errorf("event: got %+v, want port 2 and a cause", e)
		}
		r.expect("the others", 1, eth(frame.Broadcast, mac(1)), 3)
	}
}

func TestTransmitErrors(t *testing.T) {
	for err, want := range map[error]frame.Reason{
		unix.EAGAIN: frame.QueueFull, unix.ENOBUFS: frame.QueueFull,
		unix.EIO: frame.EgressDown, unix.ENETDOWN: frame.EgressDown,
		unix.EINVAL: frame.TransmitRefused, errors.New("no errno"): frame.TransmitRefused,
	} {
		t.Run(fmt.Sprint(err), func(t *testing.T) {
			r := start(t, bridge(3))
			r.ports[1].RefuseEvery(2, err)
			for range 10 {
				r.send(1, eth(frame.Broadcast, mac(1)))
			}
			if got := r.drops(2, want); got != 5 {
				t.Errorf("%v: got %d, want 5", want, got)
			}
			if s, _ := r.sw.PortStats(2); s.TX.Frames != 5 || s.TX.Bytes != 5*60 {
				t.Errorf("sent: got %+v, want 5 frames of 60 octets", s.TX)
			}
			r.conserve()
		})
	}
}

func TestMTU(t *testing.T) {
	spec := bridge(3)
	spec.Networks[0].MTU, spec.Ports[2].MTU = 1500, 1000
	r := start(t, spec)
	frameOf := func(l3 int) []byte { return append(eth(frame.Broadcast, mac(1))[:14], make([]byte, l3)...) }
	r.expect("within both", 1, frameOf(1000), 2, 3)
	r.expect("above the port's", 1, frameOf(1001), 2)
	r.expect("above the network's", 1, frameOf(1501))
	super := frame.Frame{Data: frameOf(30000), GSO: frame.GSO{Type: frame.GSOUDP, HdrLen: 42, Size: 1400}}
	r.sendFrames(1, super)
	if got := r.drops(2, frame.MTUExceeded); got != 1 {
		t.Errorf("mtu_exceeded at port 2: got %d, want 1: segments of a GSO frame count, not its length", got)
	}
	if got := r.drops(3, frame.MTUExceeded); got != 3 {
		t.Errorf("mtu_exceeded at port 3: got %d, want 3", got)
	}
	r.conserve()
}

func TestStopHoldsFramesAndResumeLosesNone(t *testing.T) {
	r := start(t, bridge(2))
	if err := r.sw.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.ports[0].Inject(eth(frame.Broadcast, mac(1)), eth(frame.Broadcast, mac(1)))
	r.apply(r.spec)
	if got := r.sw.Stats().RxFrames; got != 0 {
		t.Errorf("frames read while stopped: got %d, want 0", got)
	}
	if err := r.sw.Resume(); err != nil {
		t.Fatal(err)
	}
	r.sent = 2
	r.settle()
	if got := len(r.ports[1].Drain()); got != 2 {
		t.Errorf("after resume: got %d frames, want 2", got)
	}
	if err := r.sw.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := r.sw.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{r.sw.Apply(r.spec), r.sw.Stop(context.Background()), r.sw.Resume()} {
		if !errors.Is(err, vswitch.ErrClosed) {
			t.Errorf("after close: got %v, want ErrClosed", err)
		}
	}
}

// TestConservation drives random traffic through two loops while ports refuse,
// fail and come and go.
func TestConservation(t *testing.T) {
	spec := bridge(8)
	spec.Networks = append(spec.Networks, vswitch.Network{Name: "red", VID: 20, MTU: 100, Ageing: time.Minute})
	for i := range spec.Ports {
		p := &spec.Ports[i]
		switch i % 4 {
		case 1:
			p.Tagged = []frame.VID{20}
		case 2:
			p.Native, p.Tagged = 20, []frame.VID{10}
		}
		p.Isolated = i < 3
		p.LoopGuard, p.Storm.Multicast = i%2 == 0, 1000
	}
	r := start(t, spec, func(o *vswitch.Options) { o.Loops, o.Spin = 2, 20*time.Microsecond })
	watch := counting{}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var injected [8]uint64
	var wg sync.WaitGroup
	for i, p := range r.ports {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for range 3000 {
				dst := mac(random.IntN(40))
				if random.IntN(4) == 0 {
					dst = frame.Broadcast
				}
				f := append(eth(dst, mac(random.IntN(40))), make([]byte, random.IntN(80))...)
				if random.IntN(3) == 0 {
					f = tagged(f, frame.MakeTag([]frame.VID{0, 10, 20, 30, 4095}[random.IntN(5)], 3, false))
				}
				injected[i] += uint64(p.Inject(f))
				if random.IntN(8) == 0 {
					p.Drain()
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 40 {
			r.ports[i%8].RefuseEvery(i%4, unix.EIO)
			s := r.spec
			if i%2 == 0 {
				s.Ports = s.Ports[:7] // the last one comes and goes
			}
			if err := r.sw.Apply(s); err != nil {
				t.Error(err)
			}
			r.sw.Observe(&watch)
			r.sw.Unobserve(&watch)
		}
	})
	wg.Wait()
	for _, n := range injected {
		r.sent += n
	}
	r.apply(r.spec)
	r.settle()
	if err := r.sw.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.conserve()
	if got := r.sw.Stats().RxFrames; got != r.sent {
		t.Errorf("received: got %d, want %d as injected: no Apply loses a frame", got, r.sent)
	}
}

type counting struct {
	mu sync.Mutex
	n  int
}

func (c *counting) Observe(o *vswitch.Observation) { c.mu.Lock(); c.n++; c.mu.Unlock() }
