package integration_test

import (
	"testing"
)

// TestTunnelUpgrade replaces the workers of both hosts under numbered datagrams
// over a tunnel. What is promised: none is lost, none comes twice, and the order
// stays, since datagrams wait in the socket and frames in the TAPs.
func TestTunnelUpgrade(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	config := f.file(false, 4789, 1, 2)
	one, two := f.up(1, config), f.up(2, config)
	f.meet(1, 2)
	flow := startFlow(t, f.hosts[0].container, f.hosts[1].container, "10.1.0.2")
	for _, n := range []*node{two, one, two} {
		before := n.workerPID()
		n.cli("upgrade")
		if n.workerPID() == before {
			t.Error("the worker is the former one")
		}
		flow.pass(50)
	}
	flow.finish()
	if at := one.where(2); at != "h2" {
		t.Errorf("the station of h2 is at %q after the upgrades", at)
	}
	f.exchange(1, 2)
	f.conserved()
}

// TestTunnelKill kills the workers of both hosts under numbered datagrams. What
// is promised: a worker takes with it what it had read and not yet sent, a batch
// at most; whatever else there is comes once and in order. Killed while nothing
// is on its way, it takes nothing.
func TestTunnelKill(t *testing.T) {
	t.Parallel()
	const batch = 64
	f := newFabric(t, 2)
	config := f.file(false, 4789, 1, 2)
	one, two := f.up(1, config), f.up(2, config)
	f.meet(1, 2)
	flow := startFlow(t, f.hosts[0].container, f.hosts[1].container, "10.1.0.2")
	for _, n := range []*node{two, one} {
		pid := n.workerPID()
		flow.between(func() { die(t, pid) })
		flow.pass(50)
	}
	sent, got := flow.sent.Load(), flow.got.Load()
	flow.between(func() { sent, got = flow.sent.Load(), flow.got.Load() })
	if sent != got {
		t.Errorf("killed between two datagrams, the workers took %d of %d", sent-got, sent)
	}
	const kills = 2
	for _, n := range []*node{two, one} {
		die(t, n.workerPID())
		flow.pass(50)
	}
	if lost := flow.settle(); lost > kills*batch {
		t.Errorf("%d of %d datagrams are lost after %d kills, want a batch of %d each at most", lost, flow.sent.Load(), kills, batch)
	} else {
		t.Logf("%d of %d datagrams lost", lost, flow.sent.Load())
	}
	if at := one.where(2); at != "h2" {
		t.Errorf("the station of h2 is at %q after the kills", at)
	}
	f.exchange(1, 2)
	f.conserved()
}
