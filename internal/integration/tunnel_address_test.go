package integration_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// TestTunnelStationMoves has a station speak behind one host and then behind
// another: one frame there is enough for every host to follow it. (TestFabric
// moves a container.)
func TestTunnelStationMoves(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 3)
	config := f.file(false, 4789, 1, 2, 3)
	one, two, three := f.up(1, config), f.up(2, config), f.up(3, config)
	for _, to := range [][2]int{{1, 2}, {1, 3}, {2, 3}} {
		f.meet(to[0], to[1])
	}
	mac := switchtest.Station4(77).MAC
	speak := switchtest.EthFrame(frame.Broadcast, mac, 0x88b5, make([]byte, 46))
	found := func(places map[*node]string) {
		t.Helper()
		for n, want := range places {
			n.until("the station is found", func() bool { return n.where(77) == want })
		}
	}
	f.raw(1)(speak)
	found(map[*node]string{one: "c1", two: "h1", three: "h1"})
	f.raw(3)(speak)
	found(map[*node]string{one: "h3", two: "h3", three: "c3"})

	if why := two.cli("fdb", "why", mac.String()); !strings.Contains(why, "peer/h1 → peer/h3") {
		t.Errorf("fdb why does not tell of the move:\n%s", why)
	}
	var history []api.Taught
	two.json(&history, "fdb", "history")
	moves := 0
	for _, e := range history {
		if e.MAC == mac && e.Event == "moved" && e.OldPort == "peer/h1" && e.Port == "peer/h3" {
			moves++
		}
	}
	if moves != 1 {
		t.Errorf("fdb history tells of %d moves from h1 to h3, want 1: %+v", moves, history)
	}
	wires := []*sniffer{f.sniff(1), f.sniff(3)}
	const mark = "to where it is now"
	f.raw(2)(switchtest.EthFrame(mac, switchtest.Station4(2).MAC, 0x88b5, append(make([]byte, 50), mark...)))
	two.until("a frame to it arrives", func() bool { return len(wires[1].arriving(mark)) == 1 })
	f.meet(2, 1)
	if got := len(wires[0].arriving(mark)); got != 0 {
		t.Errorf("%d copies went to the host where it was", got)
	}
	f.conserved()
}

// TestTunnelPeerAddress has a host change its address: the others follow it by
// the file alone, and what comes from the former address is a stranger's.
func TestTunnelPeerAddress(t *testing.T) {
	t.Parallel()
	const former, new = "192.0.2.2", "192.0.2.77"
	f := newFabric(t, 2)
	config := f.file(false, 4789, 1, 2)
	one, two := f.up(1, config), f.up(2, config)
	f.meet(1, 2)
	one.sees("h2")
	id := one.peers()["h2"].ID
	// The former address stays as a second one, which nobody sends from by itself.
	under := f.hosts[1].underlay
	under.Run("ip", "-4", "addr", "flush", "dev", wiretest.Interface)
	under.Run("ip", "addr", "add", new+"/24", "dev", wiretest.Interface)
	under.Run("ip", "addr", "add", former+"/24", "dev", wiretest.Interface)
	config = strings.Replace(config, former+":4789", new+":4789", 1)
	for _, n := range []*node{one, two} {
		n.write(config)
		n.cli("apply", "-c", n.config)
	}
	wire := f.sniff(1)
	if p := one.peers()["h2"]; p.Address != new+":4789" || p.ID != id {
		t.Errorf("peer after the change: %+v, want address %s and number %d", p, new, id)
	}
	f.meet(1, 2)
	f.meet(2, 1)
	f.exchange(1, 2)
	one.sees("h2")
	for _, o := range wire.leaving("") {
		if o.dst.Addr().String() != new {
			t.Fatalf("a datagram still leaves for %v", o.dst)
		}
	}
	b := vxlan(10010, switchtest.EthFrame(frame.Broadcast, switchtest.Station4(9).MAC, 0x88b5, make([]byte, 46)))
	before := one.stats().Drops["unknown_peer"]
	sayFrom(t, under, former+":0", "192.0.2.1:4789", b)
	one.until("a datagram of the former address is counted", func() bool { return one.stats().Drops["unknown_peer"] == before+1 })
	if at := one.where(9); at != "" {
		t.Errorf("it taught station 9 at %s", at)
	}
	sayFrom(t, under, new+":0", "192.0.2.1:4789", b)
	one.until("one of the new address teaches", func() bool { return one.where(9) == "h2" })
	f.conserved()
}

// TestTunnelPorts has hosts that listen on different ports, over both families.
func TestTunnelPorts(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprint("ipv6 ", v6), func(t *testing.T) {
			t.Parallel()
			f := newFabric(t, 3)
			ports := []int{4789, 8472, 9000}
			config := func(own int) string {
				var b strings.Builder
				listen, rest, _ := strings.Cut(f.file(v6, ports[own-1]), "  peers:\n")
				b.WriteString(listen + "  peers:\n" + rest)
				for i, p := range ports {
					if address := fmt.Sprintf("%s:%d", underlayAddr(i+1, v6), p); p != 4789 {
						fmt.Fprintf(&b, "    h%d: {address: %q}\n", i+1, address)
					} else {
						fmt.Fprintf(&b, "    h%d: {address: %q}\n", i+1, strings.Trim(underlayAddr(i+1, v6), "[]"))
					}
				}
				return b.String()
			}
			mtu := 1450
			if v6 {
				mtu = 1430
			}
			for i := range ports {
				f.up(i+1, config(i+1))
			}
			for i := range ports {
				n, to := f.hosts[i].node, (i+1)%3+1
				f.meet(i+1, to)
				f.exchange(i+1, to)
				if p := n.peers(); len(p) != 2 || p[fmt.Sprint("h", to)].MTU != mtu {
					t.Errorf("peers of h%d: %+v, want two, with an MTU of %d", i+1, p, mtu)
				}
				if out := f.hosts[i].container.Run("ip", "link", "show", "eth0"); !strings.Contains(out, fmt.Sprintf("mtu %d ", mtu)) {
					t.Errorf("the container's interface, want an MTU of %d: %s", mtu, out)
				}
			}
			f.conserved()
		})
	}
}

// TestTunnelOwnEntry: a host finds itself in the list by its address, whenever
// that comes, and by its name where no interface has the address that others
// know it by.
func TestTunnelOwnEntry(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	config := f.file(false, 4789, 1, 2)
	under := f.hosts[0].underlay
	// Host 1 starts before its address is there.
	under.Run("ip", "addr", "flush", "dev", wiretest.Interface)
	one := f.up(1, config)
	f.up(2, config)
	under.Run("ip", "addr", "add", "192.0.2.1/24", "dev", wiretest.Interface)
	one.until("it knows its entry by the address", func() bool { p := one.peers(); return len(p) == 1 && p["h2"].Name == "h2" })
	f.meet(1, 2)
	one.sees("h2")

	// Behind a translator the others know it by an address that it hasn't.
	one.down()
	one.write(strings.Replace("host: h1\n"+config, "192.0.2.1:", "203.0.113.1:", 1))
	one.up()
	f.attach(1, 1)
	if p := one.peers(); len(p) != 1 || p["h2"].Name != "h2" {
		t.Errorf("peers of host h1: %+v, want h2 alone", p)
	}
	f.meet(1, 2)
}
