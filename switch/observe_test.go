package vswitch_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
)

func TestObserverSeesRefusedCopies(t *testing.T) {
	spec := bridge(4)
	spec.Ports[2].MTU = 40
	r := start(t, spec)
	watch := seen{make(chan outcome, 4)}
	r.sw.Observe(watch)
	r.ports[3].RefuseEvery(1, unix.ENOBUFS)
	r.send(1, eth(frame.Broadcast, mac(1)))
	want := outcome{frame.Flood, frame.BroadcastAddr, 0, []vswitch.Copy{
		{Port: 2}, {Port: 3, Refused: frame.MTUExceeded}, {Port: 4, Refused: frame.QueueFull},
	}}
	if d := cmp.Diff(want, <-watch.last); d != "" {
		t.Errorf("observed: want (-), got (+):\n%s", d)
	}
	other := seen{make(chan outcome, 4)}
	r.sw.Observe(other)
	r.sw.Unobserve(watch)
	r.send(1, eth(multicast, mac(1)))
	if got := (<-other.last).Reason; got != frame.MulticastAddr {
		t.Errorf("second observer: got %v, want multicast", got)
	}
	r.sw.Unobserve(other)
	r.send(1, eth(multicast, mac(1)))
	if n := len(watch.last) + len(other.last); n != 0 {
		t.Errorf("observations after Unobserve: got %d, want 0", n)
	}
}
