package integration_test

import (
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TestEveryPairOfPorts sends TCP and UDP over IPv4 and IPv6, from one octet to
// 64 KB and more, between every two kinds of port, each both ways. The payloads
// are compared by hash, and no receiving kernel may find a damaged packet.
func TestEveryPairOfPorts(t *testing.T) {
	var from, to []*end
	for i, kind := range portKinds {
		from = append(from, newEnd(t, kind, 10+i, "access: blue", ""))
		if kind == "host" {
			// Two in one namespace would talk by its loopback.
			to = append(to, from[i])
			continue
		}
		to = append(to, newEnd(t, kind, 30+i, "access: blue", ""))
	}
	all := append([]*end{}, from...)
	for i := range to {
		if to[i] != from[i] {
			all = append(all, to[i])
		}
	}
	n := start(t, file("vlan: 10", all...))
	for i, a := range from {
		for j, b := range to {
			if a == b {
				continue
			}
			t.Run(portKinds[i]+" to "+portKinds[j], func(t *testing.T) {
				fewLost(t, a, 10, func() { fullMatter(t, a, b) })
			})
		}
	}
	conserved(t, n)
}

// fewLost demands that e loses at most so many TCP segments in what send does. It
// is done up to three times: a stall of the machine overflows a queue once, and what
// is wrong with a port loses segments each time.
func fewLost(t *testing.T, e *end, most int, send func()) {
	t.Helper()
	lost := 0
	for range 3 {
		before := lostSegments(t, e)
		send()
		if lost = lostSegments(t, e) - before; lost <= most || t.Failed() {
			return
		}
	}
	t.Errorf("%d TCP segments lost, and too many twice before", lost)
}

// lostSegments is how many TCP segments the stack of e sent again and whose
// first copy did not come too. A pair of veth ends may put segments out of
// order when its sender changes cores, and a timer may fire on a busy machine;
// neither is a lost frame, and the receiver says so (RFC 2883).
func lostSegments(t *testing.T, e *end) int {
	t.Helper()
	c, err := snmp(e)
	if err != nil {
		t.Fatal(err)
	}
	return int(c["Tcp.RetransSegs"]) - int(c["TcpExt.TCPDSACKRecvSegs"])
}

// TestSegmentsAndCoalesces sends from a port with GSO to one without, where the
// switch has to cut, and back, where it may join.
func TestSegmentsAndCoalesces(t *testing.T) {
	a, b := newEnd(t, "tap", 2, "access: blue", ""), newEnd(t, "tap-plain", 3, "access: blue", "")
	n := start(t, file("vlan: 10", a, b))
	loop := func() api.LoopStats {
		s, _ := n.quiet()
		return s.Loop
	}
	flow := func(from, to *end) {
		t.Helper()
		for _, addr := range []string{to.v4, to.v6} {
			r, err := receive(to, addr)
			if err != nil {
				t.Fatal(err)
			}
			if err := streamTCP(from, r.addr, 4<<20); err != nil {
				t.Error(err)
			}
			if err := r.close(); err != nil {
				t.Error(err)
			}
		}
	}
	start := loop()
	fewLost(t, a, 2, func() { flow(a, b) })
	cut := loop()
	if got := cut.Segmented - start.Segmented; got < 100 {
		t.Errorf("8 MiB from GSO to plain: %d frames cut, want at least 100", got)
	}
	fewLost(t, b, 2, func() { flow(b, a) })
	if got := loop().Coalesced - cut.Coalesced; got < 1000 {
		t.Errorf("8 MiB from plain to GSO: %d copies joined, want at least 1000", got)
	}
}

// TestContainersOffloads lets containers switch their own offloads, as some
// drivers and administrators do: the frames stay right.
func TestContainersOffloads(t *testing.T) {
	netnstest.Require(t, "ethtool")
	a, b := newEnd(t, "tap", 2, "access: blue", ""), newEnd(t, "tap-plain", 3, "access: blue", "")
	c := newEnd(t, "veth", 4, "access: blue", "")
	start(t, file("vlan: 10", a, b, c))
	for _, set := range [][]string{
		{"tx", "off"}, {"tx", "on", "tso", "off", "gso", "off"}, {"gso", "on", "tso", "off"},
		{"tso", "on", "gso", "on", "gro", "off"}, {"tx", "off", "tso", "off", "gso", "off", "gro", "off", "rx", "off"},
	} {
		t.Run(strings.Join(set, " "), func(t *testing.T) {
			for _, e := range []*end{a, c} {
				// Not every word is free for every driver; what it takes counts.
				_, _ = e.ns.Try(append([]string{"ethtool", "-K", e.dev}, set...)...)
				e.noSegments = set[0] == "tx" && set[1] == "off"
			}
			for _, pair := range [][2]*end{{a, b}, {b, a}, {a, c}, {c, a}, {c, b}} {
				t.Run(pair[0].port+" to "+pair[1].port, func(t *testing.T) { fullMatter(t, pair[0], pair[1]) })
			}
		})
	}
}
