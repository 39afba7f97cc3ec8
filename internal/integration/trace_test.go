package integration_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

var update = flag.Bool("update", false, "rewrite golden files")

// plain takes out of a trace what differs from run to run: times, the addresses
// that kernels choose, and the frame that happened to teach an entry.
var plain = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`(?m)^ +taught by .*\n`), ""},
	{regexp.MustCompile(`\b02:00:00:00:00:`), "station-"},
	{regexp.MustCompile(`\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b`), "MAC"},
	{regexp.MustCompile(`\d+ µs`), "N µs"},
	{regexp.MustCompile(`[0-9.]+ ms`), "N ms"},
	{regexp.MustCompile(`heard \d+ s ago`), "heard N s ago"},
	{regexp.MustCompile(`\d\d:\d\d:\d\d\.\d+`), "TIME"},
	{regexp.MustCompile(`\b(id|seq) \d+`), "$1 N"},
	{regexp.MustCompile(`\bns\d+\b`), "NETNS"},
	{regexp.MustCompile(` {2,}`), "  "},
	{regexp.MustCompile(`(?m) +$`), ""},
}

// golden compares the output of commands, under the command that made each, with
// a file.
func (n *node) golden(name string, commands ...[]string) {
	n.t.Helper()
	var b strings.Builder
	for _, c := range commands {
		out, errs, code := n.try(append([]string{"trace"}, c...)...)
		fmt.Fprintf(&b, "$ tapestry trace %s\n%s%s[exit %d]\n\n", strings.Join(c, " "), out, errs, code)
	}
	got := b.String()
	for _, p := range plain {
		got = p.what.ReplaceAllString(got, p.by)
	}
	file := filepath.Join("testdata", "trace", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			n.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		n.t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		n.t.Errorf("%s (-want +got; `go test -run %s -update` rewrites it):\n%s\nunchanged it was:\n%s", file, n.t.Name(), d, b.String())
	}
}

// knows waits until the switch has learned each station, which it does by
// itself as containers come up, and a trace would show otherwise.
func (n *node) knows(stations ...byte) {
	n.t.Helper()
	for _, s := range stations {
		n.until(fmt.Sprintf("station %d is known", s), func() bool { return n.where(s) != "" })
	}
}

// TestTraceBridge: one switch, one network: the TTL stays as it is.
func TestTraceBridge(t *testing.T) {
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, fmt.Sprintf(`
host: h1
networks: {blue: {vlan: 10}}
ports:
  c1: {tap: {netns: %s, ifname: eth0, address: [10.1.0.1/24, "fd00::1/64"], mac: "02:00:00:00:00:01"}, access: blue}
  c2: {veth: {netns: %s, ifname: eth0, address: [10.1.0.2/24, "fd00::2/64"], mac: "02:00:00:00:00:02"}, access: blue}
`, a.Name(), b.Name()))
	n.knows(1, 2)
	ping(t, a, "10.1.0.2", 1)
	ping(t, a, "fd00::2", 1)
	n.golden("bridge", []string{"c1", "c2"}, []string{"c1", "h1/c2", "--proto", "udp"}, []string{"h1/c1", "c2", "--proto", "tcp", "--port", "443"},
		[]string{"c2", "fd00::1"}, []string{"c1", "c2", "--inject", "--proto", "udp", "--port", "7"})
	n.traceJSON()
	n.leavesNothing()
}

// traceJSON checks the fields of the contract, one object a hop.
func (n *node) traceJSON() {
	n.t.Helper()
	var hops int
	for _, line := range strings.Split(strings.TrimSpace(n.cli("trace", "c1", "c2", "--json")), "\n") {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			n.t.Fatalf("%v: %s", err, line)
		}
		if m["kind"] != "hop" {
			continue
		}
		hops++
		for _, field := range strings.Fields("trace hop host port at time src_mac dst_mac vlan vni ttl_in ttl_out action reason entry next") {
			if _, ok := m[field]; !ok {
				n.t.Errorf("hop without %s: %s", field, line)
			}
		}
	}
	if hops != 10 {
		n.t.Errorf("%d hops, want 10", hops)
	}
}

// leavesNothing: neither traces that end nor callers that hang up leave a
// goroutine or a descriptor behind.
func (n *node) leavesNothing() {
	n.t.Helper()
	n.cli("trace", "c1", "c2")
	goroutines, worker, keeper := n.costs()
	for range 5 {
		n.cli("trace", "c1", "c2")
	}
	for _, args := range [][]string{{"c1", "10.1.0.99", "--wait", "10s", "--source", "10.1.0.77"}, {"--watch", "arp", "--kernel"}} {
		cmd := exec.Command(n.bin, append([]string{"--socket", n.socket, "trace"}, args...)...)
		if err := cmd.Start(); err != nil {
			n.t.Fatal(err)
		}
		n.until("it listens", func() bool { _, w, _ := n.costs(); return w > worker })
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
	}
	n.until("all is as before", func() bool {
		g, w, k := n.costs()
		return g <= goroutines && w <= worker && k <= keeper
	})
}

// TestTraceVLAN: from a trunk to an access port and back. This end of the trunk
// has no station, so the probe is put into the switch.
func TestTraceVLAN(t *testing.T) {
	a, b := netnstest.New(t), netnstest.New(t)
	host := cable(t, b, "eth0")
	n := start(t, fmt.Sprintf(`
host: h1
networks: {blue: {vlan: 10}, red: {vlan: 20}}
ports:
  c1: {tap: {netns: %s, ifname: eth0, address: [10.1.0.1/24], mac: "02:00:00:00:00:01"}, access: blue}
  up: {device: {name: %s}, trunk: [blue, red]}
`, a.Name(), host))
	n.knows(1)
	var ports []api.Port
	n.json(&ports, "port", "ls")
	for _, p := range ports {
		if p.Name == "up" {
			a.Run("ip", "neigh", "add", "10.1.0.9", "lladdr", p.MAC, "dev", "eth0")
		}
	}
	n.golden("vlan", []string{"up", "c1", "--inject", "--source", "10.1.0.9"}, []string{"up", "c1"}, []string{"c1", "c1x"})
}

// TestTraceTunnel: one network over two hosts: a tunnel takes no TTL either.
func TestTraceTunnel(t *testing.T) {
	f := newFabric(t, 2)
	config := f.file(false, 4789, 1, 2)
	for i := 1; i <= 2; i++ {
		f.up(i, fmt.Sprintf("host: h%d\n%s", i, config))
	}
	n := f.hosts[0].node
	n.sees("h2")
	f.meet(1, 2)
	n.knows(2)
	n.golden("tunnel", []string{"c1", "h2/c2"}, []string{"c1", "fd00::2", "--proto", "tcp"}, []string{"c1", "h2/c9"}, []string{"c1", "h9/c2"})
	f.cut(true)
	n.until("the peer is down", func() bool { return n.peers()["h2"].State == "down" })
	n.golden("tunnel_down", []string{"c1", "h2/c2"}, []string{"c1", "10.1.0.2", "--inject", "--mac", "02:00:00:00:00:02", "--wait", "200ms"})
}

// routed is a host's file with one network of its own, whose gateway is the host.
func routed(i int, netns, tunnel string) string {
	return fmt.Sprintf(`
host: h%[1]d
networks: {lan%[1]d: {vlan: 10}}
%[3]s
ports:
  c%[1]d: {tap: {netns: %[2]s, ifname: eth0, address: [10.2.%[1]d.2/24], gateway: 10.2.%[1]d.1, mac: "02:00:00:00:00:0%[1]d"}, access: lan%[1]d}
  gw: {host: {ifname: tap-lan, address: [10.2.%[1]d.1/24], mac: "02:00:00:00:00:f%[1]d"}, access: lan%[1]d}
`, i, netns, tunnel)
}

// newRouted is two hosts with a network each, joined by static routes.
func newRouted(t *testing.T) *fabric {
	t.Helper()
	f := newFabric(t, 2)
	tunnel := fmt.Sprintf("tunnel: {listen: 0.0.0.0:4789, peers: {h1: {address: %s}, h2: {address: %s}}}", underlayAddr(1, false), underlayAddr(2, false))
	for i := 1; i <= 2; i++ {
		h := f.hosts[i-1]
		h.underlay.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
		h.node = prepare(t, routed(i, h.container.Name(), tunnel))
		h.node.ns = h.underlay
		h.node.up()
		h.underlay.Run("ip", "route", "add", fmt.Sprintf("10.2.%d.0/24", 3-i), "via", underlayAddr(3-i, false))
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
	f := newRouted(t)
	n := f.hosts[0].node
	n.golden("routed", []string{"c1", "h2/c2"}, []string{"c1", "h2/c2", "--proto", "udp"})
	h1 := f.hosts[0].underlay
	h1.Run("nft", "add table ip n; add chain ip n post { type nat hook postrouting priority 100; }; add rule ip n post oifname under0 masquerade")
	n.golden("routed_nat", []string{"c1", "h2/c2"}, []string{"c1", "h2/c2", "--proto", "tcp"})
	h1.Run("nft", "delete table ip n")
	n.golden("routed_ttl", []string{"c1", "h2/c2", "--ttl", "2"}, []string{"c1", "h2/c2", "--traceroute"}, []string{"c1", "h2/c2", "--traceroute", "--proto", "tcp"})
}

// TestTraceLost: a probe that dies says where and why, and how to mend it.
func TestTraceLost(t *testing.T) {
	netnstest.Require(t, "nft")
	f := newRouted(t)
	n, h2 := f.hosts[0].node, f.hosts[1].underlay
	for _, c := range []struct{ name, harm, mend string }{
		{"forwarding_off", "echo 0 >/proc/sys/net/ipv4/ip_forward", "echo 1 >/proc/sys/net/ipv4/ip_forward"},
		{"no_way_back", "ip route del 10.2.1.0/24", "ip route add 10.2.1.0/24 via " + underlayAddr(1, false)},
		{"firewall", "nft 'add table ip f; add chain ip f fw { type filter hook forward priority 0; }; add rule ip f fw icmp type echo-request drop'", "nft delete table ip f"},
	} {
		h2.Run("sh", "-c", c.harm)
		n.golden("lost_"+c.name, []string{"c1", "h2/c2", "--wait", "400ms"})
		h2.Run("sh", "-c", c.mend)
	}
	inside := f.hosts[1].container
	inside.Run("nft", "add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }")
	n.golden("lost_policy", []string{"c1", "h2/c2", "--wait", "400ms", "--proto", "tcp"})
	inside.Run("nft", "delete table inet f")
	own := f.hosts[0].container
	own.Run("nft", "add table ip f; add chain ip f out { type filter hook output priority 0; }; add rule ip f out ip daddr 10.2.2.2 drop")
	n.golden("lost_inside", []string{"c1", "h2/c2", "--wait", "400ms"})
	own.Run("nft", "delete table ip f")
	f.hosts[0].container.Run("ip", "route", "del", "default")
	n.golden("lost_before", []string{"c1", "h2/c2"}, []string{"c1", "10.2.1.77", "--wait", "100ms", "--inject", "--mac", "02:00:00:00:00:77"})
}

// TestTraceDropped: a probe that the switch itself drops names the reason and
// the counter that moved.
func TestTraceDropped(t *testing.T) {
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := start(t, fmt.Sprintf(`
host: h1
networks: {blue: {vlan: 10}}
ports:
  c1: {tap: {netns: %s, ifname: eth0, address: [10.1.0.1/24], mac: "02:00:00:00:00:01"}, access: blue, storm: {unknown: 1/s}}
  c2: {tap: {netns: %s, ifname: eth0, address: [10.1.0.2/24], mac: "02:00:00:00:00:02"}, access: blue, isolated: true}
  c3: {tap: {netns: %s, ifname: eth0, address: [10.1.0.3/24], mac: "02:00:00:00:00:03"}, access: blue, isolated: true}
`, a.Name(), b.Name(), c.Name()))
	n.knows(1, 2, 3)
	n.golden("dropped_isolated", []string{"c2", "c3", "--inject", "--wait", "100ms"})
	unknown := []string{"c1", "10.1.0.9", "--inject", "--mac", "02:00:00:00:00:09", "--wait", "10ms"}
	n.until("the storm limit is reached", func() bool {
		out, _, _ := n.try(append([]string{"trace"}, unknown...)...)
		return strings.Contains(out, "storm")
	})
	n.golden("dropped_storm", unknown)
}

// TestTraceWatch follows live traffic, on the host's kernel as well.
func TestTraceWatch(t *testing.T) {
	f := newRouted(t)
	n := f.hosts[0].node
	cmd := exec.Command(n.bin, "--socket", n.socket, "trace", "--watch", "icmp", "--kernel", "--count", "2")
	var out syncBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_, before, _ := n.costs()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.until("it listens", func() bool { _, w, _ := n.costs(); return w >= before+2 })
	ping(t, f.hosts[0].container, "10.2.2.2", 1)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	got := out.String()
	for _, want := range []string{"packet 1:", "ICMP echo request", "c1 → switch", "64 → 63", "packet 2:", "ICMP echo reply", "63 → 62", "switch → c1"} {
		i := strings.Index(got, want)
		if i < 0 {
			t.Fatalf("no %q behind the others in\n%s", want, out.String())
		}
		got = got[i:]
	}
}
