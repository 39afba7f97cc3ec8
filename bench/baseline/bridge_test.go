package baseline_test

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/bench/baseline"
	"github.com/tapestry-net/tapestry/bench/pktgen"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == pktgen.Command {
		if err := pktgen.Main(os.Args[2]); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(netnstest.Main(m))
}

// TestTrafficCrossesTheBridge sends every kind of traffic for a fifth of a
// second.
func TestTrafficCrossesTheBridge(t *testing.T) {
	netnstest.Require(t, "root", "netns")
	bridge, a, b := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	from, to := netip.MustParsePrefix("10.77.0.1/24"), netip.MustParsePrefix("10.77.0.2/24")
	err := baseline.Build(bridge.Handle,
		baseline.End{NS: a.Handle, Ifname: "eth0", Address: from},
		baseline.End{NS: b.Handle, Ifname: "eth0", Address: to})
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ends := pktgen.Ends{From: a.Handle, To: b.Handle, Addr: to.Addr()}
	const window = 200 * time.Millisecond
	for _, f := range []pktgen.Flow{
		{Kind: pktgen.TCP, Streams: 2, Warm: window / 4, Window: window},
		{Kind: pktgen.Flood, Size: 18, Warm: window / 4, Window: window},
		{Kind: pktgen.PingPong, Size: 64, Warm: window / 4, Window: window},
	} {
		t.Run(string(f.Kind), func(t *testing.T) {
			var edges []string
			r, err := pktgen.Measure(context.Background(), program, ends, f,
				func() { edges = append(edges, "begin") }, func() { edges = append(edges, "end") })
			if err != nil {
				t.Fatal(err)
			}
			if len(edges) != 2 || edges[0] != "begin" || edges[1] != "end" {
				t.Errorf("edges %v, want begin and end", edges)
			}
			if r.Seconds < window.Seconds() {
				t.Errorf("counted for %v s, want at least %v", r.Seconds, window.Seconds())
			}
			switch f.Kind {
			case pktgen.TCP:
				if r.Bytes == 0 {
					t.Error("no octet came through")
				}
			case pktgen.Flood:
				if r.Packets == 0 || r.Bytes != 18*r.Packets || r.Offered == 0 {
					t.Errorf("got %+v, want datagrams of 18 octets and what was offered", r)
				}
			case pktgen.PingPong:
				if r.Packets == 0 || r.P50 <= 0 || r.P99 < r.P50 {
					t.Errorf("got %+v, want round trips with 0 < p50 <= p99", r)
				}
			}
			t.Logf("%+v", r)
		})
	}
}
