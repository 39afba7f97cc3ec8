package integration_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// fabric is several hosts on one LAN. Host i is called h<i>, from 1, and its
// container has station i of network blue.
type fabric struct {
	t     *testing.T
	lan   *wiretest.LAN
	hosts []*fabricHost
}

type fabricHost struct {
	underlay, container *netnstest.NS
	node                *node          // nil when it is no tapestry
	voice               net.PacketConn // of speak
}

// newFabric makes the namespaces of n hosts.
func newFabric(t *testing.T, n int) *fabric {
	t.Helper()
	f := &fabric{t: t}
	var nodes []*netnstest.NS
	for range n {
		h := &fabricHost{underlay: netnstest.New(t), container: netnstest.New(t)}
		nodes = append(nodes, h.underlay)
		f.hosts = append(f.hosts, h)
	}
	f.lan = wiretest.NewLAN(t, 7, nodes...)
	return f
}

// file is one file for all hosts: those that it lists, which are numbered from 1.
func (f *fabric) file(v6 bool, port int, listed ...int) string {
	listen := "0.0.0.0"
	if v6 {
		listen = "[::]"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "networks: {blue: {vlan: 10, vni: 10010}}\ntunnel:\n  listen: \"%s:%d\"\n  peers:\n", listen, port)
	for _, i := range listed {
		fmt.Fprintf(&b, "    h%d: {address: \"%s:%d\"}\n", i, underlayAddr(i, v6), port)
	}
	return b.String()
}

// underlayAddr is host i's address, with brackets if it is IPv6.
func underlayAddr(i int, v6 bool) string {
	v4, long := wiretest.Addr(i - 1)
	if v6 {
		return "[" + strings.TrimSuffix(long, "/64") + "]"
	}
	return strings.TrimSuffix(v4, "/24")
}

// up starts a switch on host i with the file and attaches its container.
func (f *fabric) up(i int, config string) *node {
	f.t.Helper()
	h := f.hosts[i-1]
	h.node = prepare(f.t, config)
	h.node.ns = h.underlay
	h.node.up()
	f.attach(i, i)
	return h.node
}

// attach gives host i the container of station s.
func (f *fabric) attach(i, s int) {
	f.t.Helper()
	f.hosts[i-1].node.cli("attach", "netns:"+f.hosts[s-1].container.Name(), "--network", "blue", "--port", fmt.Sprintf("c%d", s),
		"--address", fmt.Sprintf("10.1.0.%d/24", s), "--address", fmt.Sprintf("fd00::%d/64", s), "--mac", fmt.Sprintf("02:00:00:00:00:%02x", s))
}

// meet waits until station s reaches station to.
func (f *fabric) meet(s, to int) {
	f.t.Helper()
	var out string
	if !eventually(func() (ok bool) {
		var err error
		out, err = f.hosts[s-1].container.Try("ping", "-n", "-c", "1", "-W", "1", fmt.Sprintf("10.1.0.%d", to))
		return err == nil
	}) {
		f.t.Fatalf("station %d does not reach %d: %s", s, to, out)
	}
}

// cut parts all hosts, or joins them again.
func (f *fabric) cut(on bool) {
	for _, w := range f.lan.Wires {
		w.Cut(on)
	}
}

// end is station i for the senders and receivers of other tests.
func (f *fabric) end(i int) *end {
	return &end{ns: f.hosts[i-1].container, dev: "eth0", v4: fmt.Sprintf("10.1.0.%d", i), v6: fmt.Sprintf("fd00::%d", i)}
}

// exchange sends TCP and datagrams between two stations and compares what comes.
func (f *fabric) exchange(from, to int) {
	f.t.Helper()
	e := f.end(to)
	for _, addr := range []string{e.v4, e.v6} {
		r, err := receive(e, addr)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, size := range []int{1, 1461, 1_000_000} {
			if err := streamTCP(f.end(from), r.addr, size); err != nil {
				f.t.Errorf("%d octets by TCP from %d to %s: %v", size, from, r.addr, err)
			}
		}
		if err := datagram(f.end(from), r.addr, 1000); err != nil {
			f.t.Errorf("datagram from %d to %s: %v", from, r.addr, err)
		}
		if err := r.close(); err != nil {
			f.t.Error(err)
		}
	}
}

// asked is the answer of a switch's API, which takes no process a question as a
// command does.
func asked[A any](n *node, ask func(*api.Client, context.Context) (A, error)) A {
	n.t.Helper()
	c := api.Dial(n.socket)
	defer c.Close()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	a, err := ask(c, ctx)
	if err != nil {
		n.t.Fatalf("ask the switch: %v\n%s", err, n.log)
	}
	return a
}

func (n *node) stats() api.Stats {
	n.t.Helper()
	return asked(n, (*api.Client).Stats)
}

// peers are a node's, by name.
func (n *node) peers() map[string]api.Peer {
	n.t.Helper()
	out := map[string]api.Peer{}
	for _, p := range asked(n, (*api.Client).Peers) {
		out[p.Name] = p
	}
	return out
}

// sees waits until a peer answers probes.
func (n *node) sees(peer string) {
	n.t.Helper()
	n.until(peer+" is up", func() bool { p := n.peers()[peer]; return p.State == "up" && !p.Passive })
}

// where is the port or peer that a station is behind, "" when nobody knows it.
func (n *node) where(station byte) string {
	n.t.Helper()
	for _, e := range asked(n, (*api.Client).FDB) {
		if e.MAC == switchtest.Station4(station).MAC {
			if e.Peer != "" {
				return e.Peer
			}
			return e.Port
		}
	}
	return ""
}

// conserved demands that every tapestry conserves.
func (f *fabric) conserved() {
	f.t.Helper()
	for _, h := range f.hosts {
		if h.node != nil {
			conserved(f.t, h.node)
		}
	}
	if m := f.lan.Counts().Missing(); m != 0 {
		f.t.Errorf("the wires lack %d packets", m)
	}
}
