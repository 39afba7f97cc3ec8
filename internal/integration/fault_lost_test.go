package integration_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// named makes a namespace with a name that can be given to another one later,
// as `ip netns add` does.
func named(t *testing.T, name string) *netnstest.NS {
	t.Helper()
	ns := netnstest.New(t)
	path := filepath.Join("/run/netns", name)
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unname(name) })
	if err := unix.Mount(ns.Path(), path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	return ns
}

// unname takes a namespace's name away, as `ip netns del` does.
func unname(name string) {
	path := filepath.Join("/run/netns", name)
	_ = unix.Unmount(path, unix.MNT_DETACH)
	_ = os.Remove(path)
}

// becomes waits for the state and reason of a port.
func (n *node) becomes(port, state, reason string) {
	n.t.Helper()
	n.until("port "+port+" is "+state+" "+reason, func() bool {
		s, r := n.portState(port)
		return s == state && strings.Contains(r, reason)
	})
}

// TestNamespaceLost: a container that ends takes its own port down and nobody
// else's, and the port comes back with the next container of that name.
func TestNamespaceLost(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"tap", "veth"} {
		for _, when := range []string{"fresh", "found again"} {
			t.Run(kind+" "+when, func(t *testing.T) {
				t.Parallel()
				testNamespaceLost(t, kind, when == "found again")
			})
		}
	}
}

func testNamespaceLost(t *testing.T, kind string, crash bool) {
	a, b := netnstest.New(t), netnstest.New(t)
	name := "lost-" + strings.ReplaceAll(filepath.Base(t.Name()), "_", "-")
	lost := named(t, name)
	n := start(t, pair(a, b)+`  c3: {`+kind+`: {netns: `+name+`, address: [10.1.0.4/24]}, access: blue}
`)
	if crash {
		n.kill()
		n.up()
	}
	ping(t, a, "10.1.0.4", 2)
	f := startFlow(t, a, b, "10.1.0.3")
	unname(name)
	lost.Delete()
	n.becomes("c3", "down", name)
	fresh := named(t, name)
	n.becomes("c3", "up", "")
	ping(t, fresh, "10.1.0.2", 2)
	f.finish()
}

// TestNamespaceReplaced: a port follows its namespace's name. Only where the
// first namespace lives on, and not just by the port, it stays there.
func TestNamespaceReplaced(t *testing.T) {
	t.Parallel()
	for _, crash := range []bool{false, true} {
		name := "replaced-fresh"
		if crash {
			name = "replaced-found"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := netnstest.New(t), netnstest.New(t)
			first := named(t, name)
			n := start(t, pair(a, b)+`  c3: {tap: {netns: `+name+`, address: [10.1.0.4/24]}, access: blue}
`)
			if crash {
				n.kill()
				n.up()
			}
			f := startFlow(t, a, b, "10.1.0.3")
			unname(name)
			second := named(t, name)
			if !crash {
				f.pass(750) // a look at every port lies between
				ping(t, first, "10.1.0.2", 2)
				first.Delete()
			}
			n.until("the new namespace has the port", func() bool {
				_, err := second.Try("ip", "link", "show", "eth0")
				state, _ := n.portState("c3")
				return err == nil && state == "up"
			})
			ping(t, second, "10.1.0.2", 2)
			if crash {
				if out, err := first.Try("ip", "link", "show", "eth0"); err == nil {
					t.Errorf("the first namespace still has the interface: %s", out)
				}
			}
			f.finish()
		})
	}
}

// TestInterfaceLost: what somebody does to an interface inside a container is
// named, costs the others nothing, and heals.
func TestInterfaceLost(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"tap", "veth"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
			n := start(t, pair(a, b)+`  c3: {`+kind+`: {netns: `+c.Name()+`, address: [10.1.0.4/24]}, access: blue}
`)
			f := startFlow(t, a, b, "10.1.0.3")
			c.Run("ip", "link", "set", "eth0", "down")
			n.becomes("c3", "down", "interface eth0 is set down")
			c.Run("ip", "link", "set", "eth0", "up")
			n.becomes("c3", "up", "")
			ping(t, c, "10.1.0.2", 2)

			if kind == "tap" {
				c.Run("ip", "link", "set", "eth0", "name", "lan0")
				n.becomes("c3", "up", "eth0 has been renamed to lan0")
				if out := n.cli("status"); !strings.Contains(out, "renamed to lan0") {
					t.Errorf("status doesn't say so:\n%s", out)
				}
				ping(t, c, "10.1.0.2", 2)
				c.Run("ip", "link", "set", "lan0", "name", "eth0")
				n.until("the rename is forgotten", func() bool { _, reason := n.portState("c3"); return reason == "" })
			}

			was := ifindex(t, c, "eth0")
			c.Run("ip", "link", "del", "eth0")
			n.until("the interface is made anew", func() bool {
				out, err := c.Try("ip", "-o", "addr", "show", "eth0")
				state, _ := n.portState("c3")
				return err == nil && strings.Contains(out, "10.1.0.4/24") && state == "up"
			})
			if now := ifindex(t, c, "eth0"); now == was {
				t.Errorf("interface %d is the old one", now)
			}
			ping(t, c, "10.1.0.2", 2)
			f.finish()
		})
	}
}

// TestDeviceLost is the same for interfaces that the switch did not make.
func TestDeviceLost(t *testing.T) {
	t.Parallel()
	a, b, c, d := netnstest.New(t), netnstest.New(t), netnstest.New(t), netnstest.New(t)
	wire := func(host string, ns *netnstest.NS, addr string) {
		here(t, "ip", "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", ns.Name())
		here(t, "ip", "link", "set", host, "up")
		ns.Run("ip", "link", "set", "eth0", "up")
		ns.Run("ip", "addr", "add", addr, "dev", "eth0")
	}
	wire("dvlost0", c, "10.1.0.4/24")
	wire("dvlost1", d, "10.1.0.5/24")
	n := start(t, pair(a, b)+`  c3: {device: {name: dvlost0}, access: blue}
  c4: {veth: {adopt: dvlost1}, access: blue}
`)
	ping(t, c, "10.1.0.2", 2)
	ping(t, d, "10.1.0.4", 2)
	f := startFlow(t, a, b, "10.1.0.3")
	for _, x := range []struct{ port, dev string }{{"c3", "dvlost0"}, {"c4", "dvlost1"}} {
		here(t, "ip", "link", "set", x.dev, "down")
		n.becomes(x.port, "down", "interface "+x.dev+" is set down")
		here(t, "ip", "link", "set", x.dev, "up")
		n.becomes(x.port, "up", "")
	}
	ping(t, d, "10.1.0.4", 2)
	here(t, "ip", "link", "del", "dvlost0")
	here(t, "ip", "link", "del", "dvlost1")
	n.becomes("c3", "down", "dvlost0")
	n.becomes("c4", "down", "dvlost1")
	wire("dvlost0", c, "10.1.0.4/24")
	wire("dvlost1", d, "10.1.0.5/24")
	n.becomes("c3", "up", "")
	n.becomes("c4", "up", "")
	ping(t, c, "10.1.0.2", 2)
	ping(t, d, "10.1.0.4", 2)
	f.finish()
	n.down()
	for _, dev := range []string{"dvlost0", "dvlost1"} {
		out := here(t, "ip", "-d", "link", "show", dev) + here(t, "tc", "qdisc", "show", "dev", dev)
		if strings.Contains(out, "clsact") || !strings.Contains(out, "promiscuity 0") {
			t.Errorf("%s is not as it was found:\n%s", dev, out)
		}
		here(t, "ip", "link", "del", dev)
	}
}
