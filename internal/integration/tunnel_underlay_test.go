package integration_test

import (
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
)

// TestTunnelUnderlayGoes takes the underlay from a host and gives it back, in
// each way that this happens: both hosts say since when the other is down, forget
// its stations, and find each other again by themselves. It waits for all ways
// at once.
func TestTunnelUnderlayGoes(t *testing.T) {
	t.Parallel()
	const under = wiretest.Interface
	type row struct {
		name  string
		v6    bool
		takes []string
		*fabric
		both map[*node]string // the hosts, and whom they have for a peer
	}
	rows := []*row{
		{name: "interface down", takes: []string{"ip", "link", "set", under, "down"}},
		{name: "interface down, ipv6", v6: true, takes: []string{"ip", "link", "set", under, "down"}}, // the addresses go with it
		{name: "address gone", takes: []string{"ip", "-4", "addr", "flush", "dev", under}},
		{name: "address gone, ipv6", v6: true, takes: []string{"ip", "-6", "addr", "flush", "dev", under}},
	}
	station := map[string]byte{"h1": 1, "h2": 2}
	for _, r := range rows {
		r.fabric = newFabric(t, 2)
		config := r.file(r.v6, 4789, 1, 2)
		r.both = map[*node]string{r.up(1, config): "h2", r.up(2, config): "h1"}
		r.meet(1, 2)
		for n, peer := range r.both {
			n.sees(peer)
		}
	}
	began := time.Now()
	for _, r := range rows {
		r.hosts[0].underlay.Run(r.takes...)
	}
	for _, r := range rows {
		for n, peer := range r.both {
			var p api.Peer
			n.until(r.name+": the peer is down, and its addresses are gone", func() bool { p = n.peers()[peer]; return p.State == "down" && p.Entries == 0 })
			if p.Since.Before(began) || p.Since.After(time.Now()) || p.Established != 0 {
				t.Errorf("%s: peer %s, which is down: %+v", r.name, peer, p)
			}
			if at := n.where(station[peer]); at != "" {
				t.Errorf("%s: the station of %s is still at %q", r.name, peer, at)
			}
		}
		// A change of the file meanwhile must not make host 1 its own peer.
		r.hosts[0].node.cli("network", "add", "red", "--vlan", "20")
	}
	for _, r := range rows {
		v4, v6 := wiretest.Addr(0)
		host := r.hosts[0].underlay
		host.Run("ip", "link", "set", under, "up")
		host.Run("ip", "addr", "replace", v4, "dev", under)
		host.Run("ip", "addr", "replace", v6, "dev", under, "nodad")
	}
	for _, r := range rows {
		for n, peer := range r.both {
			n.sees(peer)
			if p := n.peers(); len(p) != 1 {
				t.Errorf("%s: peers: %+v, want one", r.name, p)
			}
		}
		r.meet(1, 2)
		r.meet(2, 1)
		r.exchange(1, 2)
		for n, peer := range r.both {
			if at := n.where(station[peer]); at != peer {
				t.Errorf("%s: the station of %s is at %q", r.name, peer, at)
			}
		}
		r.conserved()
	}
}
