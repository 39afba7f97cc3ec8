package link_test

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TestPathMTUs has underlays of several MTUs, this host's address on the loopback,
// and routes that say less than their interface.
func TestPathMTUs(t *testing.T) {
	netnstest.Require(t, "netns", "ip")
	ns, far := netnstest.New(t), netnstest.New(t)
	for name, mtu := range map[string]string{"wide": "9000", "narrow": "1400"} {
		ns.Run("ip", "link", "add", name, "mtu", mtu, "type", "veth", "peer", "name", name, "mtu", mtu, "netns", far.Name())
		far.Run("ip", "link", "set", name, "up")
		ns.Run("ip", "link", "set", name, "up")
	}
	ns.Run("ip", "link", "set", "lo", "up")
	ns.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	ns.Run("ip", "-6", "addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")
	for _, r := range [][]string{
		{"198.51.100.1", "dev", "wide"}, {"198.51.100.2", "dev", "narrow"}, {"198.51.100.3", "mtu", "1300", "dev", "wide"},
		{"198.51.100.4", "nexthop", "dev", "wide", "nexthop", "dev", "narrow"}, {"198.51.100.6", "dev", "wide", "src", "192.0.2.1"},
		{"2001:db8:1::1", "dev", "wide"}, {"2001:db8:1::2", "mtu", "1290", "dev", "wide"},
	} {
		ns.Run(append([]string{"ip", "route", "add"}, r...)...)
	}
	addr := netip.MustParseAddr
	want := map[netip.Addr]int{
		addr("198.51.100.1"): 9000, addr("198.51.100.2"): 1400, addr("198.51.100.3"): 1300, addr("198.51.100.4"): 1400,
		addr("198.51.100.6"): 9000, addr("2001:db8:1::1"): 9000, addr("2001:db8:1::2"): 1290,
	}
	for _, from := range []string{"0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "192.0.2.99"} {
		var got map[netip.Addr]int
		ns.Do(func() (err error) {
			to := []netip.Addr{addr("203.0.113.1"), addr("2001:db8:9::1")} // without a route
			for a := range want {
				to = append(to, a)
			}
			got, err = link.PathMTUs(addr(from), to)
			return err
		})
		if !maps.Equal(got, want) {
			t.Errorf("from %s: %v, want %v", from, got, want)
		}
	}
	var n *link.Notice
	ns.Do(func() (err error) { n, err = link.OpenNotice(); return err })
	t.Cleanup(func() { n.Close() })
	for _, change := range [][]string{
		{"ip", "link", "set", "wide", "mtu", "8000"}, {"ip", "route", "add", "203.0.113.1", "dev", "narrow"},
		{"ip", "route", "add", "2001:db8:9::1", "dev", "narrow"}, {"ip", "rule", "add", "to", "203.0.113.2", "lookup", "100"},
		{"ip", "-6", "rule", "add", "to", "2001:db8::2", "lookup", "100"}, {"ip", "link", "set", "narrow", "down"},
	} {
		for n.Changed() { // what followed by itself from the one before
		}
		ns.Run(change...)
		if !n.Changed() {
			t.Errorf("not told of %v", change)
		}
	}
}
