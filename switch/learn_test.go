package vswitch_test

import (
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/fdb"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
)

func TestLearnsAndForwards(t *testing.T) {
	r := start(t, bridge(3))
	r.expect("unknown destination", 1, eth(mac(2), mac(1)), 2, 3)
	r.expect("reply", 2, eth(mac(1), mac(2)), 1)
	r.expect("known destination", 1, eth(mac(2), mac(1)), 2)
	r.expect("broadcast", 1, eth(frame.Broadcast, mac(1)), 2, 3)
	r.expect("multicast", 1, eth(multicast, mac(1)), 2, 3)
	r.expect("own address", 1, eth(mac(1), mac(1)))
	if got := r.drops(1, frame.SamePort); got != 1 {
		t.Errorf("same_port drops: got %d, want 1", got)
	}
	s := r.sw.Stats()
	if got := s.Reasons[frame.KnownUnicast]; got != 2 {
		t.Errorf("known_unicast: got %d, want 2", got)
	}
	if got, want := s.Decided, uint64(2+1+1+2+2); got != want {
		t.Errorf("copies decided: got %d, want %d", got, want)
	}
	r.conserve()
}

func TestAloneThereIsNoEgress(t *testing.T) {
	r := start(t, bridge(1))
	r.expect("flood", 1, eth(frame.Broadcast, mac(1)))
	if got := r.drops(1, frame.NoEgress); got != 1 {
		t.Errorf("no_egress drops: got %d, want 1", got)
	}
}

func TestAgeing(t *testing.T) {
	clock, advance := manualClock()
	r := start(t, bridge(3), clock)
	r.send(1, eth(frame.Broadcast, mac(1)))
	r.heard()
	r.expect("while young", 2, eth(mac(1), mac(2)), 1)
	advance(200 * time.Second)
	r.expect("while younger than the ageing time", 2, eth(mac(1), mac(2)), 1)
	advance(150 * time.Second)
	r.until("the silent station to age", func() bool {
		_, ok := r.table.Lookup(fdb.MakeKey(10, mac(1)))
		return !ok
	})
	if _, ok := r.table.Lookup(fdb.MakeKey(10, mac(2))); !ok {
		t.Error("the station that spoke in between has aged")
	}
	r.expect("when aged", 2, eth(mac(1), mac(2)), 1, 3)
}

func TestMoveIsToldOnce(t *testing.T) {
	clock, advance := manualClock()
	r := start(t, bridge(3), clock)
	advance(time.Second)
	r.send(1, eth(frame.Broadcast, mac(7)))
	r.send(2, eth(frame.Broadcast, mac(7)))
	e := r.event(vswitch.EventMove)
	if e.Port != 2 || e.Old != 1 || e.VID != 10 || e.MAC != mac(7) || e.Missed != 0 {
		t.Errorf("event: got %+v, want a move of station 7 from 1 to 2", e)
	}
	r.send(1, eth(frame.Broadcast, mac(7)))
	r.event(vswitch.EventMove) // the first to port 1
	r.send(2, eth(frame.Broadcast, mac(7)))
	r.send(1, eth(frame.Broadcast, mac(7)))
	advance(2 * time.Second)
	r.send(2, eth(frame.Broadcast, mac(7)))
	if e := r.event(vswitch.EventMove); e.Port != 2 || e.Missed != 1 {
		t.Errorf("event: got %+v, want port 2 and one missed move", e)
	}
	if got := r.sw.Stats().Moves; got != 5 {
		t.Errorf("moves: got %d, want 5", got)
	}
	r.heard()
	r.expect("after the moves", 3, eth(mac(7), mac(3)), 2)
}

func TestStaticEntryStays(t *testing.T) {
	r := start(t, bridge(3))
	if err := r.table.AddStatic(fdb.MakeKey(10, mac(9)), 3); err != nil {
		t.Fatal(err)
	}
	r.send(1, eth(frame.Broadcast, mac(9)))
	r.heard()
	r.expect("to the static entry", 2, eth(mac(9), mac(2)), 3)
	if got := r.sw.Stats().Moves; got != 0 {
		t.Errorf("moves: got %d, want 0", got)
	}
}

func TestPortLimit(t *testing.T) {
	spec := bridge(3)
	spec.Ports[0].FDBLimit = 4
	r := start(t, spec)
	for i := range 20 {
		r.send(1, eth(frame.Broadcast, mac(100+i)))
	}
	if got := r.table.PortLen(1); got != 4 {
		t.Errorf("entries of the limited port: got %d, want 4", got)
	}
	r.send(2, eth(frame.Broadcast, mac(2)))
	if got := r.table.PortLen(2); got != 1 {
		t.Errorf("entries of the other port: got %d, want 1", got)
	}
}

func TestBatchIsLearnedBeforeItIsLookedUp(t *testing.T) {
	r := start(t, bridge(3))
	r.send(2, eth(frame.Broadcast, mac(1)))
	r.heard()
	// Both frames come in one batch: the second moves station 1 to port 1, so
	// the first finds its destination behind its own port.
	r.sendFrames(1, frame.Frame{Data: eth(mac(1), mac(5))}, frame.Frame{Data: eth(frame.Broadcast, mac(1))})
	if got := r.drops(1, frame.SamePort); got != 1 {
		t.Errorf("same_port drops: got %d, want 1", got)
	}
}
