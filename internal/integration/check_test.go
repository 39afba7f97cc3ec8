package integration_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// findings are what `check --live` finds.
func (n *node) findings(args ...string) []api.Finding {
	n.t.Helper()
	out, errs, code := n.try(append([]string{"check", "--live", "--json"}, args...)...)
	var r api.CheckReply
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		n.t.Fatalf("check --live: exit %d: %v\n%s%s", code, err, out, errs)
	}
	if (code == 1) != (len(r.Findings) > 0) || code > 1 {
		n.t.Errorf("check --live: exit %d with %d findings", code, len(r.Findings))
	}
	return r.Findings
}

// sound demands that nothing disagrees.
func (n *node) sound(args ...string) {
	n.t.Helper()
	if got := n.findings(args...); len(got) > 0 {
		n.t.Errorf("something disagrees: %+v", got)
	}
}

// names waits until check names one thing, with both values and a mend, and
// nothing else.
func (n *node) names(area, what string, args ...string) {
	n.t.Helper()
	var got []api.Finding
	n.until("check names "+what, func() bool {
		got = n.findings(args...)
		return slices.ContainsFunc(got, func(f api.Finding) bool { return f.Area == area && strings.Contains(f.What, what) && f.Hint != "" })
	})
	if len(got) != 1 {
		n.t.Errorf("not only %q: %+v", what, got)
	}
}

// TestCheckLive has one thing after the other disagree, and mends it again.
func TestCheckLive(t *testing.T) {
	netnstest.Require(t, "ip", "tc")
	a, b, v := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	config := pair(a, b) + "  v1: {veth: {netns: " + v.Name() + ", address: [10.1.0.9/24], gateway: 10.1.0.1, mac: \"02:00:00:00:00:09\"}, access: blue}\n" +
		"fdb: [{network: blue, mac: \"02:00:00:00:00:50\", port: c2}]\n"
	n := start(t, config)
	ping(t, a, "10.1.0.3", 2)
	ping(t, v, "10.1.0.3", 2)
	const quick = "--for=0s"
	n.sound("--for=100ms", "-c", n.config)

	t.Run("settings", func(t *testing.T) {
		n.lend(t)
		for _, c := range []struct{ spoil, what, mend string }{
			{"ip link set eth0 mtu 1400", "port c1: interface eth0 has MTU 1400, its network wants 1500", "ip link set eth0 mtu 1500"},
			{"ip addr del 10.1.0.2/24 dev eth0", "port c1: interface eth0 lacks the address 10.1.0.2/24", "ip addr add 10.1.0.2/24 dev eth0"},
			{"ip link set eth0 address 02:00:00:00:00:77", "port c1: interface eth0 has the address 02:00:00:00:00:77, it was given 02:00:00:00:00:01", "ip link set eth0 address 02:00:00:00:00:01"},
		} {
			a.Run(strings.Fields(c.spoil)...)
			n.names("kernel", c.what, quick)
			a.Run(strings.Fields(c.mend)...)
			n.sound(quick)
		}
		v.Run("ip", "route", "del", "default")
		n.names("kernel", "port v1: the default route by 10.1.0.1 has gone", quick)
		v.Run("ip", "route", "add", "default", "via", "10.1.0.1", "dev", "eth0")
		n.sound(quick)
		if out, _, code := n.try("doctor"); code != 0 {
			t.Errorf("doctor of a sound switch: exit %d\n%s", code, out)
		}
	})
	t.Run("down", func(t *testing.T) {
		n.lend(t)
		a.Run("ip", "link", "set", "eth0", "down")
		n.until("the port is down", func() bool { s, _ := n.portState("c1"); return s == "down" })
		got := n.findings(quick)
		for _, want := range []string{"port c1 is down: interface eth0 is set down", "the port is down (interface eth0 is set down); frames for them are refused"} {
			if !slices.ContainsFunc(got, func(f api.Finding) bool { return strings.Contains(f.What, want) }) {
				t.Errorf("check doesn't name %q: %+v", want, got)
			}
		}
		a.Run("ip", "link", "set", "eth0", "up")
		n.until("all is sound", func() bool { return len(n.findings(quick)) == 0 })
	})
	t.Run("splice", func(t *testing.T) {
		n.lend(t)
		var ends []string
		for _, l := range strings.Split(here(t, "ip", "-o", "link"), "\n") {
			if f := strings.Fields(l); len(f) > 1 && strings.HasPrefix(f[1], "tpv") {
				ends = append(ends, strings.FieldsFunc(f[1], func(r rune) bool { return r == '@' || r == ':' })[0])
			}
		}
		if len(ends) != 1 {
			t.Fatalf("host ends: %q", ends)
		}
		here(t, "tc", "filter", "del", "dev", ends[0], "ingress")
		n.names("kernel", "port v1: the tc filter that takes frames from "+ends[0], quick)
		n.cli("port", "rm", "v1")
		n.names("config", "the file differs from the configuration in force: + port v1", quick, "-c", n.config)
		n.applies(config)
		n.sound(quick, "-c", n.config)
	})
	t.Run("state", func(t *testing.T) {
		n.lend(t)
		path := filepath.Join(n.state, "state")
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		n.names("config", "the state file has gone", quick)
		if err := os.WriteFile(path, was, 0o600); err != nil {
			t.Fatal(err)
		}
		n.sound(quick)
	})
	t.Run("traffic", func(t *testing.T) {
		n.lend(t)
		watched := func(send []byte) []api.Finding {
			quit, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for {
					select {
					case <-quit:
						return
					default:
						inject(t, a, send)
					}
				}
			}()
			defer func() { close(quit); <-done }()
			return n.findings("--for=300ms")
		}
		contains := func(got []api.Finding, area, what string) {
			t.Helper()
			if !slices.ContainsFunc(got, func(f api.Finding) bool { return f.Area == area && strings.Contains(f.What, what) }) {
				t.Errorf("check doesn't name %q: %+v", what, got)
			}
		}
		contains(watched(hello(0x50)), "traffic", "its static entry names port c2, it speaks on port c1")
		n.cli("fdb", "flush", "--port", "c2")
		to := switchtest.UDPFrame(station(7), station(2), switchtest.Pattern(64))
		contains(watched(to), "traffic", "station 02:00:00:00:00:02 in network blue: ")
	})
}

// TestCheckLiveDevice deletes an interface that nobody makes again.
func TestCheckLiveDevice(t *testing.T) {
	netnstest.Require(t, "packet", "ip")
	far := netnstest.New(t)
	far.Run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1") // it says nothing by itself
	host := cable(t, far, "eth0")
	n := start(t, "networks: {blue: {vlan: 10}}\nports:\n  up: {device: {name: "+host+"}, access: blue}\n")
	n.sound("--for=0s")
	here(t, "ip", "link", "set", host, "mtu", "1300")
	n.names("kernel", "port up: interface "+host+" has MTU 1300, its network wants 1500", "--for=0s")
	here(t, "ip", "link", "set", host, "mtu", "9000")
	n.sound("--for=0s")
	here(t, "ip", "link", "del", host)
	n.names("status", "port up is down: ", "--for=0s")
}

// TestCheckLiveFlap names the station that two containers speak for.
func TestCheckLiveFlap(t *testing.T) {
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	for i := range byte(5) {
		for j, ns := range []*netnstest.NS{a, b} {
			f := hello(9)
			f[len(f)-1] = 2*i + byte(j) // not what the switch has sent itself: no loop
			inject(t, ns, f)
		}
	}
	n.names("status", "station 02:00:00:00:00:09 flaps between c1 and c2 in network blue", "--for=0s")
}

// TestCheckLivePeer has a peer send a VNI that no network here has.
func TestCheckLivePeer(t *testing.T) {
	f := newFabric(t, 2)
	config := f.file(false, 8472, 1, 2)
	one := f.up(1, config)
	f.up(2, strings.Replace(config, "10010", "10020", 1))
	one.until("h2 is up", func() bool { return one.peers()["h2"].State == "up" })
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
				inject(t, f.hosts[1].container, hello(2))
			}
		}
	}()
	stop := sync.OnceFunc(func() { close(quit); <-done })
	defer stop()
	one.names("peer", "peer h2: it sends VNI 10020, which no network here has", "--for=300ms")
	stop()
	one.names("peer", "datagrams refused as unknown_vni", "--for=0s")
}
