package integration_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TestModes pings between two siblings and a host outside in each of macvlan's
// modes, with a neighbour that reflects frames (IEEE 802.1Qbg) and one that
// does not. The neighbour is another switch, its port with and without hairpin.
func TestModes(t *testing.T) {
	for _, c := range []struct {
		mode               string
		reflected          bool
		siblings, outsider bool
	}{
		{"bridge", false, true, true},
		// bridge with a neighbour that reflects is left out: there an uplink is a
		// port like any other, behind which stations may move, and the
		// reflection is a loop.
		{"vepa", false, false, true},
		{"vepa", true, true, true},
		{"private", false, false, true},
		{"private", true, false, true},
		{"passthru", false, false, true},
		{"passthru", true, false, true},
	} {
		t.Run(fmt.Sprintf("%s reflected %v", c.mode, c.reflected), func(t *testing.T) {
			netnstest.Require(t, "ping")
			one, outside := newEnd(t, "tap", 2, "access: blue", ""), newEnd(t, "tap", 4, "access: blue", "")
			siblings := []*end{one}
			if c.mode != "passthru" {
				siblings = append(siblings, newEnd(t, "veth", 3, "access: blue", ""))
			}
			near := cable(t, nil, "far0")
			uplink := &end{port: "up", conf: "{device: {name: " + near + "}, access: blue, uplink: true}"}
			down := &end{port: "down", conf: fmt.Sprintf("{device: {name: far0}, access: blue, hairpin: %v}", c.reflected)}
			n := start(t, file("vlan: 10, mode: "+c.mode, append(siblings, uplink)...))
			start(t, file("vlan: 10", down, outside))
			reaches(t, n, one, outside, c.outsider)
			if c.mode != "passthru" {
				reaches(t, n, one, siblings[1], c.siblings)
				reaches(t, n, siblings[1], outside, c.outsider)
			}
		})
	}
}

// reaches pings once over IPv4 and IPv6 and demands that it works, or does not.
func reaches(t *testing.T, n *node, from, to *end, want bool) {
	t.Helper()
	for _, addr := range []string{to.v4, to.v6} {
		if want {
			// Who reaches whom is the question here, not whether a first packet
			// is lost while both switches learn.
			if out, err := from.ns.Try("ping", "-n", "-c", "3", "-i", "0.02", "-W", "2", addr); err != nil {
				t.Errorf("%s does not reach %s: %v\n%s\n%s", from.port, addr, err, out, n.cli("fdb", "ls"))
			}
			continue
		}
		out, err := from.ns.Try("ping", "-n", "-c", "1", "-W", "0.3", addr)
		if err == nil || strings.Contains(out, "bytes from") {
			t.Errorf("%s reaches %s, which its mode forbids:\n%s\n%s", from.port, addr, out, n.cli("fdb", "ls"))
		}
	}
}

// TestAdopt takes over the host end of a veth that somebody else made and gives
// it back as it was found.
func TestAdopt(t *testing.T) {
	netnstest.Require(t, "tc", "ip")
	a, b := newEnd(t, "adopt", 2, "access: blue", ""), newEnd(t, "tap", 3, "access: blue", "")
	_, host, _ := strings.Cut(a.conf, "adopt: ")
	host, _, _ = strings.Cut(host, "}")
	// An owner's own filter has to survive us.
	here(t, "tc", "qdisc", "add", "dev", host, "clsact")
	here(t, "tc", "filter", "add", "dev", host, "egress", "protocol", "ip", "prio", "7", "u32", "match", "u32", "0", "0", "flowid", "1:1")
	look := func() string {
		out := here(t, "ip", "-d", "-o", "link", "show", host) + here(t, "ip", "-o", "address", "show", host) +
			here(t, "tc", "qdisc", "show", "dev", host) +
			here(t, "tc", "filter", "show", "dev", host, "ingress") + here(t, "tc", "filter", "show", "dev", host, "egress")
		return out + a.ns.Run("ip", "-d", "-o", "link") + a.ns.Run("ip", "-o", "address") + a.ns.Run("ip", "route")
	}
	before := look()
	n := start(t, file("vlan: 10", a, b))
	ping(t, a.ns, b.v4, 3)
	ping(t, b.ns, a.v6, 3)
	if !strings.Contains(a.ns.Run("ip", "-o", "address"), a.v4+"/24") {
		t.Error("the container has lost its address")
	}
	n.down()
	if after := look(); timeless(after) != timeless(before) {
		t.Errorf("given back as\n%s\nfound as\n%s", after, before)
	}
}

// timeless takes out what the kernel counts by itself.
func timeless(s string) string {
	var out []string
	for _, w := range strings.Fields(s) {
		if !strings.HasSuffix(w, "sec") {
			out = append(out, w)
		}
	}
	return strings.Join(out, " ")
}
