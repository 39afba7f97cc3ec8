package integration_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// routed is a host's file with one network of its own, whose gateway is the host.
func routed(i int, netns, networks, tunnel string) string {
	return fmt.Sprintf(`
host: h%[1]d
networks: {lan%[1]d: {vlan: 10}%[3]s}
tunnel: {%[4]s}
ports:
  c%[1]d: {tap: {netns: %[2]s, ifname: eth0, address: [10.2.%[1]d.2/24, "fd02:%[1]d::2/64"], gateway: 10.2.%[1]d.1, mac: "02:00:00:00:00:0%[1]d"}, access: lan%[1]d}
  gw: {host: {ifname: tap-lan, address: [10.2.%[1]d.1/24, "fd02:%[1]d::1/64"], mac: "02:00:00:00:00:f%[1]d"}, access: lan%[1]d}
`, i, netns, networks, tunnel)
}

// newRouted is two hosts with a network each, joined by static routes. Their
// peers carry no network, or with a link an encrypted one that nobody is in: so
// they talk inside DTLS.
func newRouted(t *testing.T, link bool) *fabric {
	t.Helper()
	f := newFabric(t, 2)
	tunnel := fmt.Sprintf("peers: {h1: {address: %s}, h2: {address: %s}}", underlayAddr(1, false), underlayAddr(2, false))
	networks := ""
	if link {
		tunnel += ", dtls: {psk_file: secret}"
		networks = ", sec: {vlan: 99, vni: 10099, encrypt: required}"
	}
	for i := 1; i <= 2; i++ {
		h := f.hosts[i-1]
		h.underlay.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
		h.node = prepare(t, routed(i, h.container.Name(), networks, tunnel))
		h.node.put(map[string]string{"secret": sharedKey(1)})
		h.node.ns = h.underlay
		h.node.up()
		h.underlay.Run("ip", "route", "add", fmt.Sprintf("10.2.%d.0/24", 3-i), "via", underlayAddr(3-i, false))
		h.underlay.Run("ip", "-6", "route", "add", fmt.Sprintf("fd02:%d::/64", 3-i), "via", strings.Trim(underlayAddr(3-i, true), "[]"))
		h.container.Run("ip", "-6", "route", "add", "default", "via", fmt.Sprintf("fd02:%d::1", i))
	}
	for i := 1; i <= 2; i++ {
		f.hosts[i-1].node.knows(byte(i), byte(0xf0+i))
		f.hosts[i-1].node.sees(fmt.Sprint("h", 3-i))
	}
	ping(t, f.hosts[0].container, "10.2.2.2", 1)
	return f
}

// TestTraceRouted is the picture to reach: containers of two hosts that static
// routes join: 64, 63, 62, with the name of the router that took each, both ways.
func TestTraceRouted(t *testing.T) {
	netnstest.Require(t, "nft")
	f := newRouted(t, false)
	n := f.hosts[0].node
	n.golden("routed", []string{"c1", "h2/c2"}, []string{"c1", "h2/c2", "--proto", "udp"})
	n.until("IPv6 is routed", func() bool {
		_, err := f.hosts[0].container.Try("ping", "-n", "-c", "1", "-W", "1", "fd02:2::2")
		return err == nil
	})
	n.golden("routed_v6", []string{"c1", "fd02:2::2"}, []string{"c1", "fd02:2::2", "--proto", "tcp"}, []string{"c1", "fd02:2::2", "--traceroute", "--proto", "udp"})
	h1 := f.hosts[0].underlay
	nat := func(how string) {
		h1.Run("nft", "add table ip n; add chain ip n post { type nat hook postrouting priority 100; }; add rule ip n post oifname under0 "+how)
	}
	nat("masquerade")
	n.golden("routed_nat", []string{"c1", "h2/c2"}, []string{"c1", "h2/c2", "--proto", "tcp"})
	h1.Run("nft", "delete table ip n")
	nat("masquerade random") // and another source port
	n.golden("routed_nat_ports", []string{"c1", "h2/c2", "--proto", "udp"}, []string{"c1", "h2/c2", "--proto", "tcp"}, []string{"c1", "h2/c2", "--proto", "tcp", "--ttl", "2"})
	h1.Run("nft", "delete table ip n")
	n.golden("routed_ttl", []string{"c1", "h2/c2", "--ttl", "2"}, []string{"c1", "h2/c2", "--traceroute"}, []string{"c1", "h2/c2", "--traceroute", "--proto", "tcp"})
}

// TestTraceLost: a probe that dies says where and why, and how to mend it.
func TestTraceLost(t *testing.T) {
	netnstest.Require(t, "nft")
	f := newRouted(t, false)
	n, h2 := f.hosts[0].node, f.hosts[1].underlay
	for _, c := range []struct{ name, wait, harm, mend string }{
		// The longest wait that there is: h2 must watch for longer.
		{"forwarding_off", "10s", "echo 0 >/proc/sys/net/ipv4/ip_forward", "echo 1 >/proc/sys/net/ipv4/ip_forward"},
		{"no_way_back", "2s", "ip route del 10.2.1.0/24", "ip route add 10.2.1.0/24 via " + underlayAddr(1, false)},
		{"firewall", "2s", dropEcho, "nft delete table ip f"},
	} {
		h2.Run("sh", "-c", c.harm)
		n.golden("lost_"+c.name, []string{"c1", "h2/c2", "--wait", c.wait})
		h2.Run("sh", "-c", c.mend)
	}
	inside := f.hosts[1].container
	inside.Run("nft", "add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }")
	n.golden("lost_policy", []string{"c1", "h2/c2", "--wait", "2s", "--proto", "tcp"})
	inside.Run("nft", "delete table inet f")
	own := f.hosts[0].container
	own.Run("nft", "add table ip f; add chain ip f out { type filter hook output priority 0; }; add rule ip f out ip daddr 10.2.2.2 drop")
	n.golden("lost_inside", []string{"c1", "h2/c2", "--wait", "2s"})
	own.Run("nft", "delete table ip f")
	f.hosts[0].container.Run("ip", "route", "del", "default")
	n.golden("lost_before", []string{"c1", "h2/c2"}, []string{"c1", "10.2.1.77", "--wait", "1s", "--inject", "--mac", "02:00:00:00:00:77"})
}

// dropEcho is a firewall's rule.
const dropEcho = "nft 'add table ip f; add chain ip f fw { type filter hook forward priority 0; }; add rule ip f fw icmp type echo-request drop'"

// TestTraceWatch follows live traffic, on the host's kernel as well.
func TestTraceWatch(t *testing.T) {
	f := newRouted(t, false)
	n := f.hosts[0].node
	watch := n.follow("trace", "--watch", "icmp", "--kernel", "--count", "4")
	n.until("four packets are told of", func() bool {
		ping(t, f.hosts[0].container, "10.2.2.2", 1)
		return watch.done()
	})
	got := watch.out.String()
	for _, want := range []string{"packet 1:", "ICMP echo request", "c1 → switch", "64 → 63", "packet 4:", "ICMP echo reply", "63 → 62", "switch → c1"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
