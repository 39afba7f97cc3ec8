package integration_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// applies writes the file and applies it, which must succeed.
func (n *node) applies(config string) string {
	n.t.Helper()
	n.write(config)
	return n.cli("apply", "-c", n.config)
}

// addresses are the IPv4 addresses of an interface.
func addresses(ns *netnstest.NS, dev string) string {
	var a []string
	for line := range strings.Lines(ns.Run("ip", "-o", "-4", "addr", "show", dev)) {
		if f := strings.Fields(line); len(f) > 3 {
			a = append(a, f[3])
		}
	}
	return strings.Join(a, " ")
}

// TestApplyIdempotent: what is in force already costs nothing.
func TestApplyIdempotent(t *testing.T) {
	t.Parallel()
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	two := pair(a, b)
	three := trio(a, b, c)
	n := start(t, two)
	f := startFlow(t, a, b, "10.1.0.3")
	before := saved(t, n)

	n.write(three)
	out := n.cli("apply", "-c", n.config, "--dry-run")
	if !strings.Contains(out, "c3") {
		t.Errorf("dry run: %s", out)
	}
	if state, _ := n.portState("c3"); state != "missing" || !bytes.Equal(saved(t, n), before) || strings.Contains(c.Run("ip", "-o", "link"), "eth0") {
		t.Error("a dry run has changed something")
	}
	if again := n.cli("apply", "-c", n.config); again != out {
		t.Errorf("a dry run says\n%s\nand the real one\n%s", out, again)
	}
	for range 5 {
		if out := n.cli("apply", "-c", n.config); out != "no change\n" {
			t.Errorf("applied again: %q", out)
		}
	}
	ping(t, c, "10.1.0.2", 2)
	f.finish()
	n.kill()
	n.up()
	if out := n.cli("apply", "-c", n.config); out != "no change\n" {
		t.Errorf("applied again after a crash: %q", out)
	}
	f = startFlow(t, a, c, "10.1.0.4")
	n.cli("apply", "-c", n.config)
	f.finish()
}

// TestApplyInPlace: a changed setting keeps the interface and loses no frame.
func TestApplyInPlace(t *testing.T) {
	t.Parallel()
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	base := trio(a, b, c)
	n := start(t, base)
	f := startFlow(t, a, b, "10.1.0.3")
	index := func() [3]int { return [3]int{ifindex(t, a, "eth0"), ifindex(t, b, "eth0"), ifindex(t, c, "eth0")} }
	was := index()

	policy := strings.ReplaceAll(base, "}, access: blue}", "}, access: blue, fdb_limit: 100, storm: {broadcast: 5000/s}, mac_pin: true}")
	if out := n.applies(policy); out == "no change\n" {
		t.Error("a changed policy is no change")
	}
	f.pass(20)
	settings := strings.ReplaceAll(base, "10.1.0.4/24", "10.1.0.44/24, 10.9.0.4/16")
	settings = strings.ReplaceAll(settings, "02:00:00:00:00:03", "02:00:00:00:00:33")
	settings = strings.ReplaceAll(settings, "{vlan: 10}", "{vlan: 10, mtu: 1400}")
	n.applies(settings)
	f.pass(20)
	if got := addresses(c, "eth0"); got != "10.1.0.44/24 10.9.0.4/16" {
		t.Errorf("addresses are %s", got)
	}
	if out := c.Run("ip", "link", "show", "eth0"); !strings.Contains(out, "mtu 1400") || !strings.Contains(out, "02:00:00:00:00:33") {
		t.Errorf("MTU and MAC address are\n%s", out)
	}
	ping(t, a, "10.1.0.44", 2)
	n.applies(base)
	f.pass(20)
	if got := addresses(c, "eth0"); got != "10.1.0.4/24" {
		t.Errorf("addresses are %s", got)
	}
	if now := index(); now != was {
		t.Errorf("interfaces were %v, are %v", was, now)
	}
	f.finish()

	// Without a MAC address in the file the port has its own again.
	derived := n.applied(t, strings.ReplaceAll(base, `, mac: "02:00:00:00:00:03"`, ""))
	n.applies(base)
	if again := n.applied(t, strings.ReplaceAll(base, `, mac: "02:00:00:00:00:03"`, "")); again != derived || derived == "02:00:00:00:00:03" {
		t.Errorf("the MAC address of the port was %s, is %s", derived, again)
	}
}

// applied applies a file and returns the MAC address of port c3.
func (n *node) applied(t *testing.T, config string) string {
	t.Helper()
	n.applies(config)
	var ports []struct{ Name, MAC string }
	n.json(&ports, "port", "ls")
	for _, p := range ports {
		if p.Name == "c3" {
			return p.MAC
		}
	}
	return ""
}

// TestApplyReplaces: another place is another interface; ports can take each
// other's places, and be renamed.
func TestApplyReplaces(t *testing.T) {
	t.Parallel()
	a, b, c, d := netnstest.New(t), netnstest.New(t), netnstest.New(t), netnstest.New(t)
	port := func(name string, ns *netnstest.NS, ifname, addr string) string {
		return "  " + name + ": {tap: {netns: " + ns.Name() + ", ifname: " + ifname + ", address: [" + addr + "/24]}, access: blue}\n"
	}
	base := pair(a, b)
	n := start(t, base+port("c3", c, "eth0", "10.1.0.4"))
	f := startFlow(t, a, b, "10.1.0.3")
	has := func(ns *netnstest.NS, want string) {
		t.Helper()
		got := ""
		for line := range strings.Lines(ns.Run("ip", "-o", "link")) {
			if name := strings.TrimSuffix(strings.Fields(line)[1], ":"); name != "lo" {
				got += name + " "
			}
		}
		if got = strings.TrimSpace(got); got != want {
			t.Errorf("a container has %q, want %q", got, want)
		}
	}
	for _, step := range []struct {
		what, file string
		c, d, ping string
	}{
		{"another name", port("c3", c, "lan0", "10.1.0.4"), "lan0", "", "10.1.0.4"},
		{"another namespace", port("c3", d, "lan0", "10.1.0.4"), "", "lan0", "10.1.0.4"},
		{"renamed port", port("c4", d, "lan0", "10.1.0.4"), "", "lan0", "10.1.0.4"},
		{"two ports", port("c4", d, "eth0", "10.1.0.5") + port("c5", c, "eth0", "10.1.0.6"), "eth0", "eth0", "10.1.0.6"},
		{"exchanged", port("c4", c, "eth0", "10.1.0.5") + port("c5", d, "eth0", "10.1.0.6"), "eth0", "eth0", "10.1.0.5"},
		{"another kind", strings.ReplaceAll(port("c4", c, "eth0", "10.1.0.5"), "{tap", "{veth"), "*", "", "10.1.0.5"},
		{"back", port("c4", c, "eth0", "10.1.0.5"), "eth0", "", "10.1.0.5"},
	} {
		n.applies(base + step.file)
		if step.c != "*" { // a veth names its other end, too
			has(c, step.c)
		}
		has(d, step.d)
		a.Run("ip", "neigh", "flush", "to", step.ping) // a port of another name has another MAC address
		ping(t, a, step.ping, 2)
		if out := n.cli("apply", "-c", n.config); out != "no change\n" {
			t.Errorf("%s, applied again: %q", step.what, out)
		}
		f.pass(10)
	}
	n.applies(base)
	has(c, "")
	has(d, "")
	f.finish()
}

// TestApplyAllOrNothing: one port that can't be had undoes everything, and
// nobody loses a frame.
func TestApplyAllOrNothing(t *testing.T) {
	t.Parallel()
	a, b, c, d := netnstest.New(t), netnstest.New(t), netnstest.New(t), netnstest.New(t)
	d.Run("ip", "link", "add", "eth0", "type", "bridge")
	base := trio(a, b, c)
	n := start(t, base+"  c4: {tap: {netns: "+c.Name()+", ifname: eth4, address: [10.1.0.5/24]}, access: blue}\n")
	f := startFlow(t, a, b, "10.1.0.3")
	before, ports := saved(t, n), n.cli("port", "ls", "--json")
	was := ifindex(t, c, "eth0")
	changed := strings.ReplaceAll(base, "10.1.0.4/24", "10.1.0.44/24")
	changed = strings.ReplaceAll(changed, "{vlan: 10}", "{vlan: 11, mtu: 1400}")
	changed += "  c4: {tap: {netns: " + c.Name() + ", ifname: lan4, address: [10.1.0.5/24]}, access: blue}\n" +
		"  c6: {tap: {netns: " + c.Name() + ", ifname: eth6}, access: blue}\n"
	for _, bad := range []struct {
		port string
		code int
		text string
	}{
		{"z9: {tap: {netns: absent}, access: blue}", 5, "absent"},
		{"z9: {tap: {netns: " + d.Name() + "}, access: blue}", 6, "eth0 is a bridge that tapestry did not make"},
		{"z9: {device: {name: absent0}, access: blue}", 5, "absent0"},
		{"z9: {veth: {adopt: absent0}, access: blue}", 5, "absent0"},
		{"z9: {tap: {netns: " + d.Name() + "}, access: green}", 2, "green"},
	} {
		n.write(changed + "  " + bad.port + "\n")
		_, errText, code := n.try("apply", "-c", n.config)
		if code != bad.code || !strings.Contains(errText, "z9") || !strings.Contains(errText, bad.text) {
			t.Errorf("%s: exit %d, want %d: %s", bad.port, code, bad.code, errText)
		}
		if !bytes.Equal(saved(t, n), before) {
			t.Errorf("%s: the saved state has changed", bad.port)
		}
		if got := addresses(c, "eth0"); got != "10.1.0.4/24" || ifindex(t, c, "eth0") != was {
			t.Errorf("%s: eth0 has %s", bad.port, got)
		}
		out := c.Run("ip", "-o", "link")
		if strings.Contains(out, "eth6") || strings.Contains(out, "lan4") || !strings.Contains(out, "eth4") || strings.Contains(out, "1400") {
			t.Errorf("%s: the container has\n%s", bad.port, out)
		}
		ping(t, a, "10.1.0.4", 1)
		ping(t, a, "10.1.0.5", 1)
	}
	if now := n.cli("port", "ls", "--json"); names(now) != names(ports) {
		t.Errorf("ports were\n%s\nare\n%s", ports, now)
	}
	f.finish()
}

// names are the names and states in a list of ports.
func names(ports string) string {
	var kept []string
	for _, f := range strings.Split(ports, ",") {
		if f = strings.TrimSpace(f); strings.Contains(f, `"name"`) || strings.Contains(f, `"state"`) || strings.Contains(f, `"mtu"`) {
			kept = append(kept, f)
		}
	}
	return strings.Join(kept, "\n")
}
