package integration_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
)

// edited is host i's file with another listen address, and lines of tunnel besides.
func (f *fabric) edited(listen string, tunnel ...string) string {
	s := strings.Replace(f.file(false, 4789, 1, 2), "0.0.0.0:4789", listen, 1)
	return strings.Replace(s, "  peers:\n", strings.Join(tunnel, "")+"  peers:\n", 1)
}

// TestTunnelListenRefused has changes of the listen address fail early and late,
// under numbered datagrams both ways: the former tunnel goes on, no datagram is
// lost, and the next change finds nothing in its way.
func TestTunnelListenRefused(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	const port = "ports: {e: {host: {ifname: tap-e}, access: blue}}\n"
	config := f.file(false, 4789, 1, 2)
	one, two := f.up(1, config+port), f.up(2, config)
	f.meet(1, 2)
	one.put(map[string]string{"secret": sharedKey(1)})
	var taken net.PacketConn
	f.hosts[0].underlay.Do(func() (err error) {
		taken, err = listen("0.0.0.0:4788", func(int) error { return nil })
		return err
	})
	t.Cleanup(func() { taken.Close() })
	there := startFlow(t, f.hosts[0].container, f.hosts[1].container, "10.1.0.2")
	back := startFlow(t, f.hosts[1].container, f.hosts[0].container, "10.1.0.1")
	late := overfull("blue", "e")
	for _, r := range []struct{ file, why string }{
		{f.edited("0.0.0.0:4790", "  dtls: {psk_file: secret}\n"), "another program listens"},
		{f.edited("[::]:4789") + late, "raise fdb_limit"},
		{f.edited("0.0.0.0:4790") + late, "raise fdb_limit"},
		{f.edited("192.0.2.99:4789"), "no interface of this host has that address"},
	} {
		one.write(r.file + port)
		if _, stderr, code := one.try("apply", "-c", one.config); code == 0 || !strings.Contains(stderr, r.why) {
			t.Errorf("apply: exit %d, %s; want it to be refused: %s", code, stderr, r.why)
		}
		one.cli("network", "add", "red", "--vlan", "30")
		one.cli("network", "rm", "red")
		there.pass(20)
		back.pass(20)
		if out := f.hosts[0].underlay.Run("ss", "-Huln"); strings.Contains(out, ":4790") {
			t.Errorf("a socket is left: %s", out)
		}
	}
	there.finish()
	back.finish()
	for n, peer := range map[*node]string{one: "h2", two: "h1"} {
		n.sees(peer)
		if strings.Contains(n.log.String(), "state=down") {
			t.Errorf("a peer was told to be down:\n%s", n.log)
		}
	}
	f.conserved()
}

// TestTunnelListenMoves changes the address and the port that both hosts listen
// on, under numbered datagrams both ways: they go on by themselves. What waits in
// a socket that is given up is lost, as is what comes to a port that only one of
// the hosts knows yet; nothing comes twice.
func TestTunnelListenMoves(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	config := f.file(false, 4789, 1, 2)
	one, two := f.up(1, config), f.up(2, config)
	f.meet(1, 2)
	there := startFlow(t, f.hosts[0].container, f.hosts[1].container, "10.1.0.2")
	back := startFlow(t, f.hosts[1].container, f.hosts[0].container, "10.1.0.1")
	for _, listen := range []string{"[::]:4789", "192.0.2.%d:4789", "0.0.0.0:4790", "[::]:4790", "0.0.0.0:4789"} {
		for i, n := range []*node{one, two} {
			own := listen
			if strings.Contains(listen, "%d") {
				own = fmt.Sprintf(listen, i+1)
			}
			file := f.edited(own)
			if strings.HasSuffix(listen, ":4790") {
				file = strings.ReplaceAll(file, ":4789", ":4790")
			}
			n.write(file)
			n.cli("apply", "-c", n.config)
			if out := f.hosts[i].underlay.Run("ss", "-Huln"); strings.Count(out, ":47") != 1 {
				t.Errorf("listening after a change to %s: %s", own, out)
			}
		}
		there.pass(30)
		back.pass(30)
	}
	t.Logf("%d and %d datagrams lost", there.settle(), back.settle())
	f.conserved()
}

// TestTunnelListenEarly starts a switch that listens on an address which comes
// later: it says so, and needs nothing but the address.
func TestTunnelListenEarly(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprint("ipv6 ", v6), func(t *testing.T) {
			t.Parallel()
			f := newFabric(t, 2)
			under := f.hosts[0].underlay
			under.Run("ip", "addr", "flush", "dev", wiretest.Interface)
			config := f.file(v6, 4789, 1, 2)
			listen := "0.0.0.0"
			if v6 {
				listen = "[::]"
			}
			one := f.up(1, strings.Replace(config, listen, underlayAddr(1, v6), 1))
			f.up(2, config)
			problems := func() []api.Problem { return asked(one, (*api.Client).Status).Problems }
			said := func() bool {
				return strings.Contains(fmt.Sprint(problems()), "no interface has")
			}
			if !said() {
				t.Errorf("problems: %v, want that the address isn't there", problems())
			}
			v4, long := wiretest.Addr(0)
			under.Run("ip", "addr", "add", v4, "dev", wiretest.Interface)
			under.Run("ip", "addr", "add", long, "dev", wiretest.Interface, "nodad")
			f.meet(1, 2)
			f.meet(2, 1)
			one.sees("h2")
			if said() {
				t.Errorf("problems: %v, but the address is there", problems())
			}
			f.conserved()
		})
	}
}
