package integration_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
)

// TestTunnelPathMTU narrows the way between two hosts somewhere in the middle,
// where nobody tells them: both find out, senders that forbid fragments are told
// the size from the network's own address, TCP goes on, and nothing leaves that
// would not arrive.
func TestTunnelPathMTU(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprint("ipv6 ", v6), func(t *testing.T) {
			t.Parallel()
			testPathMTU(t, v6)
		})
	}
}

func testPathMTU(t *testing.T, v6 bool) {
	const path = 1400
	headers, wide := 50, 1450 // RFC 7348 clause 5, and the inner Ethernet header
	if v6 {
		headers, wide = 70, 1430
	}
	narrow := path - headers
	f := newFabric(t, 2)
	config := f.file(v6, 4789, 1, 2)
	one, two := f.up(1, config), f.up(2, config)
	one.cli("port", "add", "gw", "{host: {ifname: gw0, address: [10.1.0.254/24, \"fd00::fe/64\"]}, access: blue}")
	f.meet(1, 2)
	one.sees("h2")
	two.sees("h1")
	ping(t, f.hosts[0].container, "10.1.0.2", 1, "-M", "do", "-s", fmt.Sprint(wide-28))
	ping(t, f.hosts[0].container, "fd00::2", 1, "-M", "do", "-s", fmt.Sprint(wide-48))

	f.lan.Wires[1].Set(wiretest.Link{Longest: 14 + path})
	one.until("h1 finds the path narrower", func() bool { return one.peers()["h2"].MTU == narrow })
	two.until("h2 finds the path narrower", func() bool { return two.peers()["h1"].MTU == narrow })
	wires := []*sniffer{f.sniff(1), f.sniff(2)}
	hears := func(from int, to, want string) {
		t.Helper()
		size := wide - 28
		if strings.Contains(to, ":") {
			size = wide - 48
		}
		out, err := f.hosts[from-1].container.Try("ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", fmt.Sprint(size), to)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("ping %s from station %d, DF and %d octets: want %q: %v\n%s", to, from, size, want, err, out)
		}
	}
	// Station 2 may be told by its host's network alone, which has no address there:
	// the error seems to come from whom it wrote to.
	hears(1, "10.1.0.2", fmt.Sprintf("From 10.1.0.254 icmp_seq=1 Frag needed and DF set (mtu = %d)", narrow))
	hears(1, "fd00::2", fmt.Sprintf("From fd00::fe icmp_seq=1 Packet too big: mtu=%d", narrow))
	hears(2, "fd00::1", fmt.Sprintf("From fd00::1 icmp_seq=1 Packet too big: mtu=%d", narrow))
	before := two.peers()["h1"].Drops["mtu_exceeded"]
	if out, err := f.hosts[1].container.Try("ping", "-n", "-c", "1", "-W", "1", "-M", "dont", "-s", fmt.Sprint(wide-28), "10.1.0.1"); err == nil {
		t.Errorf("a packet without DF that is too long comes through: %s", out)
	}
	if got := two.peers()["h1"].Drops["mtu_exceeded"]; got != before+1 {
		t.Errorf("mtu_exceeded grew by %d, want 1", got-before)
	}
	hears(2, "10.1.0.1", fmt.Sprintf("From 10.1.0.1 icmp_seq=1 Frag needed and DF set (mtu = %d)", narrow))
	f.exchange(1, 2)
	f.exchange(2, 1)
	for i, w := range wires {
		for _, o := range w.leaving("") {
			if len(o.inner) > narrow+14 {
				t.Fatalf("host %d sends an inner frame of %d octets", i+1, len(o.inner))
			}
		}
	}
	for n, peer := range map[*node]string{one: "h2", two: "h1"} {
		if s := asked(n, (*api.Client).Status); len(s.Problems) != 1 || !strings.Contains(s.Problems[0].What, peer) || s.Problems[0].Hint == "" {
			t.Errorf("problems: %+v, want one that names %s", s.Problems, peer)
		}
	}
	f.conserved()
}
