package tunnel_test

import (
	"net/netip"
	"testing"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
	"github.com/tapestry-net/tapestry/tunnel"
)

// TestForgedProbes sends probes in the name of a peer that answers none, as the
// kernel's VTEP: it stays reachable, whether it is sending or not.
func TestForgedProbes(t *testing.T) {
	c := newClocked(t)
	reachable := func() {
		t.Helper()
		n := c.sw.Stats().RxFrames
		c.q.Inject(switchtest.Padded(switchtest.ARPFrame(alice, bob.Addr)))
		c.p.hear()
		until(t, "the frame to be counted", func() bool { return c.sw.Stats().RxFrames == n+1 })
	}
	c.frame()
	c.pass()
	for range 20 {
		c.outgoing() // asks the tunnel in the peer's name
		c.frame()
		c.pass()
		c.want(tunnel.Up, true)
		reachable()
	}
	for range 20 {
		c.outgoing()
		c.pass()
		reachable()
	}
	c.want(tunnel.Connecting, false)
	c.frame()
	c.pass()
	c.want(tunnel.Up, true)
	c.outgoing()
	c.seconds(1)
	c.want(tunnel.Up, false) // it does answer
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.events {
		if e.State == tunnel.Down {
			t.Errorf("told that the peer is down: %+v", e)
		}
	}
}

// TestDownPeerTeachesNothing cuts the way to a peer, whose frames keep coming:
// they are delivered, and what is for their station isn't sent where nothing
// arrives.
func TestDownPeerTeachesNothing(t *testing.T) {
	c := newClocked(t)
	bobKnown := func() bool {
		_, known := c.table.Lookup(fdb.MakeKey(blue, bob.MAC))
		return known
	}
	c.seconds(2)
	if c.frame(); !bobKnown() {
		t.Fatal("a peer that is up teaches nothing")
	}
	for range 4 {
		c.pass()
	}
	c.want(tunnel.Down, false)
	c.table.Flush(fdb.Filter{Port: c.id}) // as who is told of it does
	c.q.Drain()
	for range 3 {
		c.frame()
		c.pass()
		if got := c.q.Drain(); len(got) != 1 || bobKnown() {
			t.Errorf("peer down: %d frames delivered, want 1; station known: %v", len(got), bobKnown())
		}
	}
	c.seconds(1)
	c.want(tunnel.Up, false)
	if c.frame(); !bobKnown() {
		t.Error("a peer that is back teaches nothing")
	}
	c.conserve()
}

// TestPeerMovesToNobody has a peer in use change its address to one where nobody
// is, while what it has sent from the old one still comes.
func TestPeerMovesToNobody(t *testing.T) {
	c := newClocked(t)
	for range 2 { // of our kind, and passive
		c.frame()
		c.pass()
		c.want(tunnel.Up, true)
		c.peers[0].Address = netip.MustParseAddrPort("127.0.0.9:4789")
		c.apply()
		before := c.tun.Refused()[frame.UnknownPeer]
		c.p.send(in(blueVNI, hello))
		until(t, "the old address to be a stranger's", func() bool { return c.tun.Refused()[frame.UnknownPeer] > before })
		for range 3 {
			c.pass()
			c.want(tunnel.Connecting, false)
		}
		c.peers[0].Address = netip.MustParseAddrPort(c.p.at())
		c.apply()
	}
}
