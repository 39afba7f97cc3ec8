package integration_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
)

// edit is what a file says besides network blue and the two hosts.
type edit struct{ name, top, networks, tunnel, dtls, peers string }

// written is host i's file after an edit. Where blue is encrypted it has a shared
// key.
func (e edit) written(i int, sealed bool) string {
	blue := "{vlan: 10, vni: 10010}"
	if sealed {
		blue = "{vlan: 10, vni: 10010, encrypt: required}"
		e.tunnel += fmt.Sprintf("  dtls: {psk_file: secret%s}\n", e.dtls)
	}
	if e.networks == "" {
		e.networks = "red: {vlan: 20, vni: 10020}"
	}
	return fmt.Sprintf("host: h%d\n%snetworks: {blue: %s, %s}\ntunnel:\n%s  peers: {h1: {address: 192.0.2.1}, h2: {address: 192.0.2.2}%s}\n",
		i, e.top, blue, e.networks, e.tunnel, e.peers)
}

// TestTunnelEdits changes everything about a tunnel but what two hosts have to do
// with each other, under numbered datagrams both ways: none of them is lost, none
// comes twice, and an encrypted link keeps its keys.
func TestTunnelEdits(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprint("sealed ", sealed), func(t *testing.T) {
			t.Parallel()
			edits := []edit{
				{name: "a peer is added", peers: ", h3: {address: 192.0.2.3}"},
				{name: "a peer has another address", peers: ", h3: {address: 192.0.2.4}"},
				{name: "a peer carries less", peers: ", h3: {address: 192.0.2.4, networks: [red]}"},
				{name: "a peer is removed"},
				{name: "a peer is added by a narrower interface", peers: ", h9: {address: 198.51.100.9}"},
				{name: "and removed"},
				{name: "another network has another VNI", networks: "red: {vlan: 20, vni: 10021}"},
				{name: "another network has another VLAN", networks: "red: {vlan: 21, vni: 10021}"},
				{name: "another network is removed", networks: "green: {vlan: 30, vni: 10030}"},
				{name: "reserved bits are ignored", tunnel: "  vxlan_reserved: ignore\n"},
				{name: "nothing is coalesced", top: "offload: {coalesce: off}\n"},
			}
			if sealed {
				edits = append(edits, edit{name: "keys are renewed later", dtls: ", rekey: {records: 2000000, after: 24h}"})
			} else {
				// Sockets are opened with it or without, so there is another tunnel, and
				// encrypted links have to be made anew.
				edits = append(edits, edit{name: "without UDP checksum", tunnel: "  udp_checksum: off\n"})
			}
			runEdits(t, sealed, append(edits, edit{name: "as it was"}))
		})
	}
}

func runEdits(t *testing.T, sealed bool, edits []edit) {
	t.Helper()
	f := newFabric(t, 2)
	for i, h := range f.hosts {
		h.underlay.Run("ip", "link", "add", "narrow", "mtu", "1400", "type", "veth", "peer", "name", "narrow0", "mtu", "1400")
		h.underlay.Run("ip", "link", "set", "narrow0", "up")
		h.underlay.Run("ip", "link", "set", "narrow", "up")
		h.underlay.Run("ip", "route", "add", "198.51.100.9", "dev", "narrow")
		h.node = prepare(t, edit{}.written(i+1, sealed))
		h.node.ns = h.underlay
		h.node.put(map[string]string{"secret": sharedKey(9)})
		h.node.up()
		f.attach(i+1, i+1)
	}
	f.meet(1, 2)
	one := f.hosts[0].node
	one.sees("h2")
	keys := func() (generation uint64) {
		if l := one.peers()["h2"].Link; l != nil {
			generation = l.Handshakes
		}
		return generation
	}
	made := keys()
	there := startFlow(t, f.hosts[0].container, f.hosts[1].container, "10.1.0.2")
	back := startFlow(t, f.hosts[1].container, f.hosts[0].container, "10.1.0.1")
	for _, e := range edits {
		for i, h := range f.hosts {
			h.node.write(e.written(i+1, sealed))
			if out := h.node.cli("apply", "-c", h.node.config); strings.Contains(out, "no change") {
				t.Errorf("%s: nothing has changed", e.name)
			}
		}
		for _, flow := range []*flow{there, back} {
			flow.pass(10)
			flow.between(func() {})
		}
		if now := keys(); now != made {
			t.Errorf("%s: %d handshakes, want %d still", e.name, now, made)
		}
		if t.Failed() {
			t.Fatalf("after: %s", e.name)
		}
	}
	there.finish()
	back.finish()
	one.sees("h2") // peers that were removed took their counters along: conservation is not asked
}

// TestTunnelUnderlayMTUs has peers by interfaces of different MTUs, which change:
// the tunnel follows for each peer by itself, and none has to do with another's.
// This host's own address is on the loopback.
func TestTunnelUnderlayMTUs(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 1)
	under := f.hosts[0].underlay
	under.Run("ip", "addr", "flush", "dev", wiretest.Interface)
	under.Run("ip", "link", "set", "lo", "up")
	under.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	for name, mtu := range map[string]string{"wide": "9000", "narrow": "1400"} {
		under.Run("ip", "link", "add", name, "mtu", mtu, "type", "veth", "peer", "name", name+"0", "mtu", mtu)
		under.Run("ip", "link", "set", name+"0", "up")
		under.Run("ip", "link", "set", name, "up")
	}
	under.Run("ip", "route", "add", "198.51.100.1", "dev", "wide")
	under.Run("ip", "route", "add", "198.51.100.2", "dev", "narrow")
	n := f.up(1, `
networks: {blue: {vlan: 10, vni: 10010, mtu: 1300}}
tunnel:
  listen: 192.0.2.1:4789
  peers: {own: {address: 192.0.2.1}, wide: {address: 198.51.100.1}, narrow: {address: 198.51.100.2}, none: {address: 203.0.113.1}}
`)
	want := func(when string, mtus map[string]int) {
		t.Helper()
		var got map[string]int
		ok := eventually(func() bool {
			got = map[string]int{}
			for name, p := range n.peers() {
				got[name] = p.MTU
			}
			return fmt.Sprint(got) == fmt.Sprint(mtus)
		})
		if !ok {
			t.Fatalf("%s: inner MTUs %v, want %v", when, got, mtus)
		}
	}
	want("at first", map[string]int{"wide": 8950, "narrow": 1350, "none": 1450})
	under.Run("ip", "link", "set", "narrow", "mtu", "1390")
	want("an interface is narrower", map[string]int{"wide": 8950, "narrow": 1340, "none": 1450})
	under.Run("ip", "route", "replace", "198.51.100.1", "dev", "wide", "mtu", "4000")
	want("a route is narrower", map[string]int{"wide": 3950, "narrow": 1340, "none": 1450})
	under.Run("ip", "route", "replace", "198.51.100.2", "dev", "wide")
	under.Run("ip", "route", "add", "203.0.113.1", "dev", "narrow")
	want("routes change", map[string]int{"wide": 3950, "narrow": 8950, "none": 1340})
}

// TestTunnelOwnEntries has two of the entries be this host's own, by addresses that
// come one after the other: each is left out of the peers as it comes.
func TestTunnelOwnEntries(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 1)
	config := strings.Replace(f.file(false, 4789, 1, 2, 3), "192.0.2.3:", "203.0.113.3:", 1)
	n := f.up(1, config)
	for _, left := range []string{"h2 h3", "h3", ""} {
		n.until("peers are "+left, func() bool {
			var names []string
			for _, name := range []string{"h1", "h2", "h3"} {
				if _, ok := n.peers()[name]; ok {
					names = append(names, name)
				}
			}
			n.cli("status")
			return strings.Join(names, " ") == left
		})
		for _, own := range []string{"192.0.2.2/24", "203.0.113.3/24"} {
			if strings.Contains(left, map[string]string{"192.0.2.2/24": "h2", "203.0.113.3/24": "h3"}[own]) {
				f.hosts[0].underlay.Run("ip", "addr", "add", own, "dev", wiretest.Interface)
				break
			}
		}
	}
}
