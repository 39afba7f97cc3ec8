package integration_test

import (
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
)

// TestTunnelUnderlayGoes takes the underlay from a host and gives it back, in
// each way that this happens: both hosts say since when the other is down, forget
// its stations, and find each other again by themselves.
func TestTunnelUnderlayGoes(t *testing.T) {
	const under = wiretest.Interface
	for _, c := range []struct {
		name  string
		v6    bool
		takes []string
	}{
		{"interface down", false, []string{"ip", "link", "set", under, "down"}},
		{"interface down, ipv6", true, []string{"ip", "link", "set", under, "down"}}, // the addresses go with it
		{"address gone", false, []string{"ip", "-4", "addr", "flush", "dev", under}},
		{"address gone, ipv6", true, []string{"ip", "-6", "addr", "flush", "dev", under}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFabric(t, 2)
			config := f.file(c.v6, 4789, 1, 2)
			one, two := f.up(1, config), f.up(2, config)
			f.meet(1, 2)
			both := map[*node]string{one: "h2", two: "h1"}
			for n, peer := range both {
				n.sees(peer)
			}
			began := time.Now()
			host := f.hosts[0].underlay
			host.Run(c.takes...)
			for n, peer := range both {
				var p api.Peer
				n.until("the peer is down", func() bool { p = n.peers()[peer]; return p.State == "down" })
				if p.Since.Before(began) || p.Since.After(time.Now()) || p.Established != 0 || p.Entries != 0 {
					t.Errorf("peer %s, which is down: %+v", peer, p)
				}
				if at := n.where(map[string]byte{"h1": 1, "h2": 2}[peer]); at != "" {
					t.Errorf("its station is still at %q", at)
				}
			}
			// A change of the file meanwhile must not make host 1 its own peer.
			one.cli("network", "add", "red", "--vlan", "20")

			v4, v6 := wiretest.Addr(0)
			host.Run("ip", "link", "set", under, "up")
			host.Run("ip", "addr", "replace", v4, "dev", under)
			host.Run("ip", "addr", "replace", v6, "dev", under, "nodad")
			for n, peer := range both {
				n.sees(peer)
				if p := n.peers(); len(p) != 1 {
					t.Errorf("peers: %+v, want one", p)
				}
			}
			f.meet(1, 2)
			f.meet(2, 1)
			f.exchange(1, 2)
			for n, peer := range both {
				if at := n.where(map[string]byte{"h1": 1, "h2": 2}[peer]); at != peer {
					t.Errorf("the station of %s is at %q", peer, at)
				}
			}
			f.conserved()
		})
	}
}
