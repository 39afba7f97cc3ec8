package integration_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
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
// that kernels choose, the frame that happened to teach an entry, and how many
// frames of the container's own fared like the probe at a peer that is down.
var plain = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`taught by ([0-9a-f:]{17}) > .* at [0-9:]{8}`), "taught by $1 > FRAME at TIME"},
	{regexp.MustCompile(`\b02:00:00:00:00:`), "station-"},
	{regexp.MustCompile(`\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b`), "MAC"},
	{regexp.MustCompile(`\d+ µs`), "N µs"},
	{regexp.MustCompile(`[0-9.]+ ms`), "N ms"},
	{regexp.MustCompile(`heard \d+ s ago`), "heard N s ago"},
	{regexp.MustCompile(`\d\d:\d\d:\d\d\.\d+`), "TIME"},
	{regexp.MustCompile(`\b(id|seq) \d+`), "$1 N"},
	{regexp.MustCompile(`\bns\d+\b`), "NETNS"},
	{regexp.MustCompile(`counted: egress_down \d+`), "counted: egress_down N"},
	{regexp.MustCompile(` {2,}`), "  "},
	{regexp.MustCompile(`(?m) +$`), ""},
}

// golden compares the output of commands, under the command that made each, with
// a file.
func (n *node) golden(name string, commands ...[]string) {
	n.t.Helper()
	n.same(name, n.traced(commands...))
}

// traced is the output of commands, each under the command.
func (n *node) traced(commands ...[]string) string {
	n.t.Helper()
	var b strings.Builder
	for _, c := range commands {
		out, errs, code := n.try(append([]string{"trace"}, c...)...)
		fmt.Fprintf(&b, "$ tapestry trace %s\n%s%s[exit %d]\n\n", strings.Join(c, " "), out, errs, code)
	}
	return b.String()
}

// same compares traces with a file.
func (n *node) same(name, traces string) {
	n.t.Helper()
	got := traces
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
		n.t.Errorf("%s (-want +got; `go test -run %s -update` rewrites it):\n%s\nunchanged it was:\n%s", file, n.t.Name(), d, traces)
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
		cmd := background(n.t, append([]string{n.bin, "--socket", n.socket, "trace"}, args...)...)
		if err := cmd.Start(); err != nil {
			n.t.Fatal(err)
		}
		n.until("it listens", func() bool { _, w, _ := n.costs(); return w > worker })
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = ends(cmd)
	}
	n.until("all is as before", func() bool {
		g, w, k := n.costs()
		return g <= goroutines && w <= worker && k <= keeper
	})
}

// TestTraceFlood: an address that isn't known is flooded, and no entry is shown
// for it, though the answer teaches one before the trace is told.
func TestTraceFlood(t *testing.T) {
	a, b := netnstest.New(t), netnstest.New(t)
	for _, ns := range []*netnstest.NS{a, b} { // nothing that they say by themselves shall teach
		ns.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
	}
	n := start(t, fmt.Sprintf(`
host: h1
networks: {blue: {vlan: 10}}
ports:
  c1: {tap: {netns: %s, ifname: eth0, address: [10.1.0.1/24], mac: "02:00:00:00:00:01"}, access: blue}
  c2: {tap: {netns: %s, ifname: eth0, address: [10.1.0.2/24], mac: "02:00:00:00:00:02"}, access: blue}
`, a.Name(), b.Name()))
	for i, ns := range []*netnstest.NS{a, b} {
		ns.Run("ip", "neigh", "replace", fmt.Sprintf("10.1.0.%d", 2-i), "lladdr", fmt.Sprintf("02:00:00:00:00:%02x", 2-i), "nud", "permanent", "dev", "eth0")
	}
	n.cli("fdb", "flush")
	n.golden("flood", []string{"c1", "c2"}, []string{"c1", "c2"})
}

// TestTraceContainerRouter: a container with two ports that routes between them
// is named, for both families.
func TestTraceContainerRouter(t *testing.T) {
	a, b, r := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	r.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	n := start(t, fmt.Sprintf(`
host: h1
networks: {blue: {vlan: 10}, red: {vlan: 20}}
ports:
  c1: {tap: {netns: %s, ifname: eth0, address: [10.1.0.1/24, "fd01::1/64"], mac: "02:00:00:00:00:01"}, access: blue}
  c2: {tap: {netns: %s, ifname: eth0, address: [10.2.0.2/24, "fd02::2/64"], mac: "02:00:00:00:00:02"}, access: red}
  r1: {tap: {netns: %[3]s, ifname: eth0, address: [10.1.0.254/24, "fd01::254/64"], mac: "02:00:00:00:00:f1"}, access: blue}
  r2: {veth: {netns: %[3]s, ifname: eth1, address: [10.2.0.254/24, "fd02::254/64"], mac: "02:00:00:00:00:f2"}, access: red}
`, a.Name(), b.Name(), r.Name()))
	for i, ns := range []*netnstest.NS{a, b} {
		ns.Run("ip", "route", "add", "default", "via", fmt.Sprintf("10.%d.0.254", i+1))
		ns.Run("ip", "-6", "route", "add", "default", "via", fmt.Sprintf("fd0%d::254", i+1))
	}
	n.knows(1, 2, 0xf1, 0xf2)
	ping(t, a, "10.2.0.2", 1)
	n.until("IPv6 is routed", func() bool { _, err := a.Try("ping", "-n", "-c", "1", "-W", "1", "fd02::2"); return err == nil })
	n.golden("router", []string{"c1", "c2"}, []string{"c2", "fd01::1", "--proto", "udp"})
	r.Run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
	n.golden("lost_router", []string{"c1", "c2", "--wait", "1s"})
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
	n.golden("tunnel_down", []string{"c1", "h2/c2"}, []string{"c1", "10.1.0.2", "--inject", "--mac", "02:00:00:00:00:02", "--wait", "1s"})
}

// TestTraceEncrypted: a frame of an encrypted network goes into DTLS, and so does
// what the hosts say about it.
func TestTraceEncrypted(t *testing.T) {
	f := newFabric(t, 2)
	watch := f.tap(1)
	for i := range f.hosts {
		f.upSealed(i+1, "psk_file: secret", map[string]string{"secret": sharedKey(1)})
	}
	n := f.hosts[0].node
	n.sees("h2")
	f.meet(1, 2)
	n.knows(2)
	n.golden("encrypted", []string{"c1", "h2/c2"})
	for _, text := range []string{"10.1.0.2", "tapestry", `"op":"`} {
		if hits, frames := watch.hits(text); hits != 0 || frames < 10 {
			t.Errorf("%q was seen %d times in %d frames, want none", text, hits, frames)
		}
	}
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
	n.golden("dropped_isolated", []string{"c2", "c3", "--inject", "--wait", "1s"})
	unknown := []string{"c1", "10.1.0.9", "--inject", "--mac", "02:00:00:00:00:09", "--wait", "10ms"}
	var dropped string
	n.until("the storm limit is reached", func() bool {
		dropped = n.traced(unknown)
		return strings.Contains(dropped, "storm")
	})
	n.same("dropped_storm", dropped)
}
