package vswitch_test

import (
	"fmt"
	"slices"
	"testing"

	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
)

func TestIsolation(t *testing.T) {
	spec := bridge(4)
	spec.Ports[0].Isolated, spec.Ports[1].Isolated = true, true
	r := start(t, spec)
	for i := 1; i <= 4; i++ {
		r.send(i, eth(frame.Broadcast, mac(i)))
	}
	r.heard()
	r.expect("isolated, broadcast", 1, eth(frame.Broadcast, mac(1)), 3, 4)
	r.expect("open, broadcast", 3, eth(frame.Broadcast, mac(3)), 1, 2, 4)
	r.expect("isolated to open", 1, eth(mac(3), mac(1)), 3)
	r.expect("open to isolated", 3, eth(mac(1), mac(3)), 1)
	r.expect("isolated to isolated", 1, eth(mac(2), mac(1)))
	if got := r.drops(1, frame.Isolated); got != 1 {
		t.Errorf("isolated drops: got %d, want 1", got)
	}
	r.conserve()
}

func TestAllIsolatedFloodIsDroppedAsIsolated(t *testing.T) {
	spec := bridge(3)
	for i := range spec.Ports {
		spec.Ports[i].Isolated = true
	}
	r := start(t, spec)
	r.expect("flood", 1, eth(frame.Broadcast, mac(1)))
	if got := r.drops(1, frame.Isolated); got != 1 {
		t.Errorf("isolated drops: got %d, want 1", got)
	}
}

func TestSplitHorizonGroup(t *testing.T) {
	spec := bridge(4)
	spec.Ports[2].Group, spec.Ports[3].Group = 1, 1
	r := start(t, spec)
	for i := 1; i <= 4; i++ {
		r.send(i, eth(frame.Broadcast, mac(i)))
	}
	r.heard()
	r.expect("from the group", 3, eth(frame.Broadcast, mac(3)), 1, 2)
	r.expect("into the group", 1, eth(frame.Broadcast, mac(1)), 2, 3, 4)
	r.expect("inside the group", 3, eth(mac(4), mac(3)))
	if got := r.drops(3, frame.SplitHorizon); got != 1 {
		t.Errorf("split_horizon drops: got %d, want 1", got)
	}
}

func TestHairpin(t *testing.T) {
	spec := bridge(2)
	spec.Ports[0].Hairpin = true
	r := start(t, spec)
	r.expect("broadcast", 1, eth(frame.Broadcast, mac(1)), 1, 2)
	r.expect("to a neighbour on the port", 1, eth(mac(1), mac(5)), 1)
	r.expect("without hairpin", 2, eth(frame.Broadcast, mac(2)), 1)
}

// Ports of the mode tests: two siblings, a second pair when the mode allows it,
// and the uplink with a station beyond it.
const (
	sibling1, sibling2, uplink = 1, 2, 3
	outside                    = 77
)

// TestModes is macvlan's truth table: what each mode does with each kind of
// frame, and what comes of it when the neighbour of the uplink reflects.
func TestModes(t *testing.T) {
	known, broadcast, group := mac(sibling2), frame.Broadcast, multicast
	tests := []struct {
		mode vswitch.Mode
		dst  frame.MAC
		// direct: who hears a frame of sibling 1. reflected: who hears the same
		// frame when it comes in again by the uplink.
		direct, reflected []int
	}{
		{vswitch.ModeVEPA, known, []int{uplink}, []int{sibling2}},
		{vswitch.ModeVEPA, broadcast, []int{uplink}, []int{sibling2}},
		{vswitch.ModeVEPA, group, []int{uplink}, []int{sibling2}},
		{vswitch.ModeVEPA, mac(outside), []int{uplink}, nil},
		{vswitch.ModePrivate, known, []int{uplink}, nil},
		{vswitch.ModePrivate, broadcast, []int{uplink}, nil},
		{vswitch.ModePrivate, group, []int{uplink}, nil},
		{vswitch.ModePrivate, mac(outside), []int{uplink}, nil},
		{vswitch.ModeBridge, known, []int{sibling2}, nil},
		{vswitch.ModeBridge, broadcast, []int{sibling2, uplink}, nil},
		{vswitch.ModeBridge, group, []int{sibling2, uplink}, nil},
		{vswitch.ModeBridge, mac(outside), []int{uplink}, nil},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("mode %d to %v", tt.mode, tt.dst), func(t *testing.T) {
			spec := bridge(3)
			spec.Ports[0].Mode, spec.Ports[1].Mode = tt.mode, tt.mode
			spec.Ports[2].Uplink = true
			r := start(t, spec)
			r.send(sibling1, eth(frame.Broadcast, mac(sibling1)))
			r.send(sibling2, eth(frame.Broadcast, mac(sibling2)))
			r.send(uplink, eth(frame.Broadcast, mac(outside)))
			if got := r.heard(); !slices.Contains(got, sibling1) || !slices.Contains(got, sibling2) {
				t.Errorf("broadcast from outside: heard by %v, want both siblings", got)
			}
			f := eth(tt.dst, mac(sibling1))
			r.expect("direct", sibling1, f, tt.direct...)
			r.expect("from outside to a sibling", uplink, eth(known, mac(outside)), sibling2)
			if tt.mode == vswitch.ModeBridge {
				return // what comes in again is a move there, as in any bridge
			}
			r.expect("reflected", uplink, f, tt.reflected...)
			r.expect("the reflection moved nobody", uplink, eth(mac(sibling1), mac(outside)), sibling1)
			r.conserve()
		})
	}
}

func TestMixedModes(t *testing.T) {
	spec := bridge(5)
	modes := []vswitch.Mode{vswitch.ModeBridge, vswitch.ModeBridge, vswitch.ModeVEPA, vswitch.ModePrivate, vswitch.ModeBridge}
	for i, m := range modes {
		spec.Ports[i].Mode = m
	}
	spec.Ports[4].Uplink = true
	r := start(t, spec)
	for i := 1; i <= 4; i++ {
		r.send(i, eth(frame.Broadcast, mac(i)))
	}
	r.heard()
	r.expect("bridge, broadcast", 1, eth(frame.Broadcast, mac(1)), 2, 5)
	r.expect("bridge, reflected", 5, eth(frame.Broadcast, mac(1)), 3)
	r.expect("vepa, broadcast", 3, eth(frame.Broadcast, mac(3)), 5)
	r.expect("vepa, reflected", 5, eth(frame.Broadcast, mac(3)), 1, 2)
	r.expect("private, reflected", 5, eth(frame.Broadcast, mac(4)))
	r.expect("bridge to vepa", 1, eth(mac(3), mac(1)), 5)
	r.expect("bridge to vepa, reflected", 5, eth(mac(3), mac(1)), 3)
	r.expect("from outside", 5, eth(frame.Broadcast, mac(outside)), 1, 2, 3, 4)
	r.conserve()
}

func TestVEPAWithoutUplink(t *testing.T) {
	spec := bridge(2)
	spec.Ports[0].Mode, spec.Ports[1].Mode = vswitch.ModeVEPA, vswitch.ModeVEPA
	r := start(t, spec)
	r.send(2, eth(frame.Broadcast, mac(2)))
	r.expect("broadcast", 1, eth(frame.Broadcast, mac(1)))
	r.expect("unicast", 1, eth(mac(2), mac(1)))
	if got := r.drops(1, frame.SplitHorizon); got != 2 {
		t.Errorf("split_horizon drops: got %d, want 2", got)
	}
}

func TestVEPAWithTwoUplinks(t *testing.T) {
	spec := bridge(4)
	spec.Ports[0].Mode, spec.Ports[1].Mode = vswitch.ModeVEPA, vswitch.ModeVEPA
	spec.Ports[2].Uplink, spec.Ports[3].Uplink = true, true
	r := start(t, spec)
	r.send(2, eth(frame.Broadcast, mac(2)))
	r.heard()
	r.expect("to the sibling", 1, eth(mac(2), mac(1)), 3, 4)
}

func TestPassthruIsAlone(t *testing.T) {
	spec := bridge(2)
	spec.Ports[0].Mode, spec.Ports[1].Uplink = vswitch.ModePassthru, true
	r := start(t, spec)
	r.expect("out", 1, eth(mac(5), mac(1)), 2)
	r.expect("in, to any address", 2, eth(mac(6), mac(5)), 1)
	spec.Ports = append(spec.Ports, vswitch.Port{ID: 3, Name: "third", Native: 10})
	if err := r.sw.Apply(spec); err == nil {
		t.Error("a third port beside one in passthru mode was accepted")
	}
}
