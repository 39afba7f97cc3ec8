package integration_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// end is the container's side of a port of some kind.
type end struct {
	port string // in the file
	kind string
	ns   *netnstest.NS // nil = the daemon's own namespace
	dev  string        // the container's interface
	v4   string
	v6   string
	conf string // its entry under ports, in flow style

	// noSegments is set while the interface completes no checksums, without
	// which the kernel refuses UDP_SEGMENT.
	noSegments bool
}

// do runs fn where the end's interface is.
func (e *end) do(fn func() error) error {
	if e.ns == nil {
		return fn()
	}
	return e.ns.Handle.Do(fn)
}

// portKinds are all ways in which a container can be wired.
var portKinds = []string{"tap", "tap-plain", "veth", "device", "host", "adopt"}

var pairSerial atomic.Uint32

// newEnd makes what a port of the kind needs before the switch starts: the
// station numbered n in network 10.1.0.0/24 and fd00::/64. Policy is appended
// to the port's entry.
func newEnd(t *testing.T, kind string, n int, membership, policy string) *end {
	t.Helper()
	netnstest.Require(t, "netns", "tun")
	e := &end{port: fmt.Sprintf("p%d-%s", n, kind), kind: kind, dev: "eth0",
		v4: fmt.Sprintf("10.1.0.%d", n), v6: fmt.Sprintf("fd00::%x", n)}
	own := fmt.Sprintf(`address: [%s/24, "%s/64"], mac: "02:00:00:00:00:%02x"`, e.v4, e.v6, n)
	if kind != "host" {
		e.ns = netnstest.New(t)
	}
	rest := membership + policy
	switch kind {
	case "tap":
		e.conf = fmt.Sprintf("{tap: {netns: %s, %s}, %s}", e.ns.Name(), own, rest)
	case "tap-plain":
		e.conf = fmt.Sprintf("{tap: {netns: %s, %s}, offload: {gso: off}, %s}", e.ns.Name(), own, rest)
	case "veth":
		netnstest.Require(t, "tc")
		e.conf = fmt.Sprintf("{veth: {netns: %s, %s}, %s}", e.ns.Name(), own, rest)
	case "host":
		e.dev = fmt.Sprintf("tap-h%d", n)
		e.conf = fmt.Sprintf("{host: {ifname: %s, %s}, %s}", e.dev, own, rest)
	case "device", "adopt":
		netnstest.Require(t, "ip")
		host := cable(t, e.ns, e.dev)
		e.ns.Run("ip", "link", "set", e.dev, "address", fmt.Sprintf("02:00:00:00:00:%02x", n))
		e.ns.Run("ip", "address", "add", e.v4+"/24", "dev", e.dev)
		e.ns.Run("ip", "address", "add", e.v6+"/64", "dev", e.dev, "nodad")
		if kind == "device" {
			netnstest.Require(t, "packet")
			e.conf = fmt.Sprintf("{device: {name: %s}, %s}", host, rest)
		} else {
			netnstest.Require(t, "tc")
			e.conf = fmt.Sprintf("{veth: {adopt: %s}, %s}", host, rest)
		}
	default:
		t.Fatalf("kind %q", kind)
	}
	return e
}

// cable makes a veth pair from the daemon's namespace to ns, both ends up, and
// returns the name of the daemon's end. The daemon's end answers no ARP: the
// kernel would speak there for every address of the host.
func cable(t *testing.T, ns *netnstest.NS, far string) (host string) {
	t.Helper()
	netnstest.Require(t, "ip")
	host = fmt.Sprintf("v%d", pairSerial.Add(1))
	here(t, "ip", "link", "add", host, "type", "veth", "peer", "name", "x"+host)
	t.Cleanup(func() { _, _ = netnstest.Try("ip", "link", "delete", host) })
	here(t, "ip", "link", "set", host, "arp", "off", "addrgenmode", "none")
	here(t, "ip", "link", "set", host, "up")
	if ns == nil {
		here(t, "ip", "link", "set", "x"+host, "name", far, "arp", "off", "addrgenmode", "none", "up")
		return host
	}
	here(t, "ip", "link", "set", "x"+host, "netns", ns.Path(), "name", far)
	ns.Run("ip", "link", "set", far, "up")
	return host
}

// file is a configuration of one network, blue, and the ends as its ports.
func file(network string, ends ...*end) string {
	var b strings.Builder
	fmt.Fprintf(&b, "networks: {blue: {%s}}\nports:\n", network)
	for _, e := range ends {
		fmt.Fprintf(&b, "  %s: %s\n", e.port, e.conf)
	}
	return b.String()
}

// here runs a program in the daemon's namespace.
func here(t *testing.T, cmd ...string) string {
	t.Helper()
	out, err := netnstest.Try(cmd...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd, " "), err, out)
	}
	return out
}
