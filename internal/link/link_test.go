package link_test

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

var owner = link.Owner{Instance: "one", Port: "c1"}

// pair makes a veth pair between two new namespaces.
func pair(t *testing.T) (host, peer *netnstest.NS, hc, pc *link.Conn, h, p link.Link) {
	t.Helper()
	host, peer = netnstest.New(t), netnstest.New(t)
	hc, pc = open(t, host), open(t, peer)
	h, p, err := hc.AddVeth(link.Veth{Host: "h0", Peer: "eth0", PeerNS: peer.Handle, MTU: 1400, Owner: owner})
	if err != nil {
		t.Fatal(err)
	}
	return host, peer, hc, pc, h, p
}

func open(t *testing.T, ns *netnstest.NS) *link.Conn {
	t.Helper()
	c, err := link.Open(ns.Handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestParseOwner(t *testing.T) {
	for alias, want := range map[string]link.Owner{
		owner.String():     owner,
		"":                 {},
		"uplink":           {},
		"tapestry:":        {},
		"tapestry:a:b:c":   {Instance: "a", Port: "b:c"},
		"tapestry:a:b\x00": {Instance: "a", Port: "b\x00"},
	} {
		if got := link.ParseOwner(alias); got != want {
			t.Errorf("ParseOwner(%q) = %+v, want %+v", alias, got, want)
		}
	}
}

func TestAddVethMarksBothEnds(t *testing.T) {
	host, peer, hc, pc, h, p := pair(t)
	if h.Owner != owner || p.Owner != owner || p.MTU != 1400 {
		t.Errorf("pair %+v, %+v: want owner %v and MTU 1400", h, p, owner)
	}
	for _, c := range []*link.Conn{hc, pc} {
		own, err := c.Owned("one")
		if err != nil || len(own) != 1 || own[0].Owner != owner {
			t.Errorf("Owned(one) = %v, %v, want one interface", own, err)
		}
		if own, err := c.Owned("two"); err != nil || len(own) != 0 {
			t.Errorf("Owned(two) = %v, %v, want none", own, err)
		}
	}
	_ = host
	_, _, err := hc.AddVeth(link.Veth{Host: "h1", Peer: "eth0", PeerNS: peer.Handle, Owner: owner})
	if !errors.Is(err, link.ErrConflict) || !strings.Contains(err.Error(), "port c1") {
		t.Errorf("AddVeth with a taken peer name = %v, want a conflict that names port c1", err)
	}
	other := link.Owner{Instance: "two", Port: "c1"}
	if err := hc.Delete("h0", other); !errors.Is(err, link.ErrConflict) {
		t.Errorf("Delete by another owner = %v, want a conflict", err)
	}
	for range 2 {
		if err := hc.Delete("h0", owner); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	if _, err := pc.ByName("eth0"); !errors.Is(err, link.ErrNotFound) {
		t.Errorf("peer after Delete: %v, want ErrNotFound", err)
	}
}

func TestConfigureIsIdempotent(t *testing.T) {
	_, _, hc, pc, h, p := pair(t)
	if err := hc.SetUp(h.Index, true); err != nil {
		t.Fatal(err)
	}
	s := link.Settings{
		MTU: 1300, Up: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd09::2/64")},
	}
	for _, gateway := range []string{"10.9.0.1", "10.9.0.1", "10.9.0.3", "fd09::1", "fd09::1"} {
		s.Gateway = netip.MustParseAddr(gateway)
		if err := pc.Configure(p.Index, s); err != nil {
			t.Fatalf("gateway %s: %v", gateway, err)
		}
	}
	got, err := pc.ByIndex(p.Index)
	if err != nil || got.MTU != 1300 || !got.Up {
		t.Errorf("after Configure: %+v, %v", got, err)
	}
	addrs, err := pc.Addresses(p.Index)
	found := 0
	for _, a := range addrs {
		if a == s.Addresses[0] || a == s.Addresses[1] {
			found++
		}
	}
	if err != nil || found != 2 {
		t.Errorf("Addresses = %v, %v, want %v among them", addrs, err, s.Addresses)
	}
}

func TestDefaultRouteOfAnotherIsKept(t *testing.T) {
	netnstest.Require(t, "ip")
	_, peer, _, pc, _, p := pair(t)
	peer.Run("ip", "link", "add", "other", "type", "veth", "peer", "name", "far")
	peer.Run("ip", "addr", "add", "10.8.0.2/24", "dev", "other")
	peer.Run("ip", "link", "set", "other", "up")
	peer.Run("ip", "route", "add", "default", "via", "10.8.0.1")
	err := pc.Configure(p.Index, link.Settings{
		Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")},
		Gateway: netip.MustParseAddr("10.9.0.1"),
	})
	if !errors.Is(err, link.ErrConflict) || !strings.Contains(err.Error(), "other") {
		t.Errorf("Configure = %v, want a conflict that names other", err)
	}
}

func TestSpliceRefusesABridgePort(t *testing.T) {
	netnstest.Require(t, "ip", "tc")
	host, _, hc, _, h, _ := pair(t)
	host.Run("ip", "link", "add", "br0", "type", "bridge")
	host.Run("ip", "link", "set", "h0", "master", "br0")
	h, err := hc.ByIndex(h.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := hc.Splice(h, h); !errors.Is(err, link.ErrConflict) || !strings.Contains(err.Error(), "br0") {
		t.Errorf("Splice = %v, want a conflict that names br0", err)
	}
}

// TestSplicedTo: the filter is found as long as it is there, and only ours.
func TestSplicedTo(t *testing.T) {
	netnstest.Require(t, "tc")
	host, _, hc, _, h, _ := pair(t)
	check := func(want int) {
		t.Helper()
		if got, err := hc.SplicedTo(h.Index); err != nil || got != want {
			t.Errorf("got %d, %v; want %d", got, err, want)
		}
	}
	check(0)
	if err := hc.Splice(h, h); err != nil {
		t.Fatal(err)
	}
	check(h.Index)
	host.Run("tc", "filter", "del", "dev", "h0", "ingress")
	host.Run("tc", "filter", "add", "dev", "h0", "ingress", "protocol", "all", "u32", "match", "u32", "0", "0", "action", "mirred", "egress", "mirror", "dev", "lo")
	check(0)
}

func TestUnspliceLeavesWhatOthersAdded(t *testing.T) {
	netnstest.Require(t, "tc")
	host, _, hc, _, h, _ := pair(t)
	for range 2 {
		if err := hc.Splice(h, h); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Count(host.Run("tc", "filter", "show", "dev", "h0", "ingress"), "mirred"); got != 1 {
		t.Errorf("%d filters after two splices, want 1", got)
	}
	other := []string{"tc", "filter", "add", "dev", "h0", "egress", "protocol", "all", "u32", "match", "u32", "0", "0", "action", "mirred", "egress", "mirror", "dev", "lo"}
	host.Run(other...)
	for range 2 {
		if err := hc.Unsplice(h.Index); err != nil {
			t.Fatal(err)
		}
	}
	if out := host.Run("tc", "filter", "show", "dev", "h0", "egress"); !strings.Contains(out, "mirred") {
		t.Errorf("the other's filter is gone: %q", out)
	}
	host.Run("tc", "filter", "del", "dev", "h0", "egress")
	if err := hc.Unsplice(h.Index); err != nil {
		t.Fatal(err)
	}
	if out := host.Run("tc", "qdisc", "show", "dev", "h0"); strings.Contains(out, "clsact") {
		t.Errorf("clsact is left behind: %q", out)
	}
}

func TestWatch(t *testing.T) {
	host, peer := netnstest.New(t), netnstest.New(t)
	c := open(t, host)
	changes := make(chan link.Change, 100)
	var w *link.Watcher
	host.Do(func() (err error) {
		w, err = link.Watch(func(ch link.Change) { changes <- ch })
		return err
	})
	defer w.Close()
	if _, _, err := c.AddVeth(link.Veth{Host: "h0", Peer: "eth0", PeerNS: peer.Handle, Owner: owner}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete("h0", owner); err != nil {
		t.Fatal(err)
	}
	for ch := range changes {
		if ch.Deleted && ch.Link.Name == "h0" {
			break
		}
	}
	for range 2 {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}
