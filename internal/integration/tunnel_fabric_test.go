package integration_test

import (
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
)

// TestFabric is one file on every host: a third joins under traffic, which loses
// nothing; a container moves to another host; strangers are counted and teach
// nothing.
func TestFabric(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 4)
	one, two := f.up(1, f.file(false, 4789, 1, 2)), f.up(2, f.file(false, 4789, 1, 2))
	f.meet(1, 2)
	if p := one.peers(); len(p) != 1 || p["h2"].Networks[0] != "blue" {
		t.Errorf("peers of h1: %+v, want h2 alone", p)
	}
	flow := startFlow(t, f.hosts[0].container, f.hosts[1].container, "10.1.0.2")
	all := f.file(false, 4789, 1, 2, 3)
	three := f.up(3, all)
	for _, n := range []*node{one, two} {
		n.write(all)
		n.cli("apply", "-c", n.config)
		if out := n.cli("apply", "-c", n.config); !strings.Contains(out, "no change") {
			t.Errorf("applied twice: %s", out)
		}
	}
	f.meet(3, 1)
	f.meet(2, 3)
	flow.pass(100)
	flow.finish()
	f.exchange(1, 2)
	f.exchange(3, 1)

	for _, n := range []*node{one, two, three} {
		for peer := range n.peers() {
			n.sees(peer) // one that has only spoken yet is taken for a passive one
		}
		n.until("both peers are up", func() bool {
			var s api.Status
			n.json(&s, "status")
			return s.Peers.Up == 2 && s.Peers.Down == 0 && len(s.Problems) == 0
		})
		for name, p := range n.peers() {
			if p.State != "up" || p.Passive || p.Encryption != "none" || p.MTU != 1450 || p.RX.Frames == 0 || p.TX.Frames == 0 {
				t.Errorf("peer %s: %+v", name, p)
			}
		}
	}
	if out := f.hosts[0].container.Run("ip", "link", "show", "eth0"); !strings.Contains(out, "mtu 1450") {
		t.Errorf("a network without MTU over an underlay of 1500: %s", out)
	}
	f.strangers(one)
	f.conserved()
	f.moves(one, two, three)
}

// strangers sends what nobody configured.
func (f *fabric) strangers(n *node) {
	f.t.Helper()
	var before, after api.Stats
	n.json(&before, "stats")
	var table []api.Entry
	n.json(&table, "fdb", "ls")
	inner := append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x77\x08\x00"), make([]byte, 46)...)
	f.say(4, "192.0.2.1:4789", vxlan(10010, inner))
	f.say(2, "192.0.2.1:4789", vxlan(99, inner))
	n.until("both are counted", func() bool {
		n.json(&after, "stats")
		return after.Drops["unknown_peer"] == before.Drops["unknown_peer"]+1 && after.Drops["unknown_vni"] == before.Drops["unknown_vni"]+1
	})
	if after.Refused != before.Refused+2 {
		f.t.Errorf("tunnel_refused grew by %d, want 2", after.Refused-before.Refused)
	}
	if p := n.peers()["h2"]; p.Drops["unknown_vni"] != 1 {
		f.t.Errorf("drops of h2: %v", p.Drops)
	}
	var now []api.Entry
	n.json(&now, "fdb", "ls")
	for _, e := range now {
		if e.MAC.String() == "02:00:00:00:00:77" {
			f.t.Errorf("a refused frame taught %v", e)
		}
	}
}

// moves takes station 1 from h1 to h3: h2 follows it by its first frame.
func (f *fabric) moves(one, two, three *node) {
	f.t.Helper()
	at := func() (peer string) {
		var list []api.Entry
		two.json(&list, "fdb", "ls")
		for _, e := range list {
			if e.MAC.String() == "02:00:00:00:00:01" {
				return e.Peer
			}
		}
		return ""
	}
	f.meet(1, 2)
	if got := at(); got != "h1" {
		f.t.Errorf("station 1 is at peer %q, want h1", got)
	}
	one.cli("detach", "netns:"+f.hosts[0].container.Name())
	f.attach(3, 1)
	f.meet(1, 2)
	if got := at(); got != "h3" {
		f.t.Errorf("station 1 is at peer %q after its move, want h3", got)
	}
	if why := two.cli("fdb", "why", "02:00:00:00:00:01"); !strings.Contains(why, "peer/h1 → peer/h3") {
		f.t.Errorf("the history does not tell of the move:\n%s", why)
	}
	f.meet(1, 3)
}

// TestFabricPeerRestarts ends a host without a word: its peer goes down and takes
// its addresses along, and comes back by itself. A restarted worker knows its
// stations still.
func TestFabricPeerRestarts(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	config := f.file(true, 8472, 1, 2)
	one, two := f.up(1, config), f.up(2, config)
	f.meet(1, 2)
	f.exchange(1, 2)
	one.sees("h2")

	die(t, one.workerPID())
	f.meet(1, 2)
	var w api.Why
	one.json(&w, "fdb", "why", "02:00:00:00:00:02")
	if len(w.Entries) != 1 || w.Entries[0].Peer != "h2" {
		t.Errorf("after the worker's restart: %+v", w.Entries)
	}
	one.sees("h2")

	two.kill()
	one.until("h2 is down, and its addresses are gone", func() bool { p := one.peers()["h2"]; return p.State == "down" && p.Entries == 0 })
	var s api.Status
	one.json(&s, "status")
	if s.Peers.Down != 1 || len(s.Problems) != 1 || s.Problems[0].Hint == "" {
		t.Errorf("status: %+v", s)
	}
	two.up()
	f.meet(2, 1)
	one.sees("h2")
}
