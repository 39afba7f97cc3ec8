package integration_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TestExplainTunnel asks a host of two about frames that leave for the other and
// come from it, by words, by octets and out of a capture.
func TestExplainTunnel(t *testing.T) {
	f := newFabric(t, 2)
	config := f.file(false, 4789, 1, 2)
	config = strings.Replace(config, "vni: 10010}", "vni: 10010}, red: {vlan: 20, vni: 10020}", 1)
	one, _ := f.up(1, config), f.up(2, config)
	f.meet(1, 2)
	one.until("the peer is up", func() bool { return one.peers()["h2"].State == "up" })
	for _, c := range []struct {
		args string
		want []string
	}{
		{"--in|c1|icmp 10.1.0.1 > 10.1.0.2 to 02:00:00:00:00:02 ttl 3 tos 0xb8", []string{
			"port peer/h2, seen", "peer/h2: network", "VNI 10010", "the path takes 1450", "> 192.0.2.2:4789, 78 octets, TTL 64, DSCP 46, ECN 0", "FORWARD",
		}},
		{"--in|c1|icmp 10.1.0.1 > 10.1.0.2 to 02:00:00:00:00:02 packet 1451", []string{
			"packet of 1451 octets", "the sender hears ICMP fragmentation needed, MTU 1450, from 10.1.0.2", "refused at peer/h2: mtu_exceeded",
		}},
		{"--in|c1|icmp 10.1.0.1 > 10.1.0.2 to 02:00:00:00:00:02 packet 1451 nodf", []string{"no ICMP is due"}},
		{"--in|c1|tcp 10.1.0.1.1 > 10.1.0.2.2 to 02:00:00:00:00:02 packet 40000 gso 1410", []string{"to be cut", "packet of 1450 octets", "pass"}},
		{"--in|c1|tcp 10.1.0.1.1 > 10.1.0.2.2 to 02:00:00:00:00:02 packet 40000 gso 1411", []string{"mtu_exceeded"}},
		{"--in|peer/h2|arp who-has 10.1.0.1 tell 10.1.0.2 vni 10010", []string{
			"02:00:00:00:00:02 > ff:ff:ff:ff:ff:ff", "datagram from 192.0.2.2", "VLAN 10, admitted", "c1 untagged", "FLOOD",
		}},
		{"--in|192.0.2.2|icmp 10.1.0.2 > 10.1.0.1 from 02:00:00:00:00:02 vni 77", []string{"drop: unknown_vni"}},
		{"--in|192.0.2.9|icmp 10.1.0.2 > 10.1.0.1 from 02:00:00:00:00:02", []string{"drop: unknown_peer"}},
		{"--in|peer/h2|icmp 10.1.0.2 > 10.1.0.1 outer-tos 3 vni 10010", []string{"outer ECN 3", "bad_header"}},
		{"--in|peer/h2|datagram 0000", []string{"drop: inner_short"}},
	} {
		out := one.cli(append([]string{"explain"}, strings.Split(c.args, "|")...)...)
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: got\n%s\nwant %q in it", c.args, out, want)
			}
		}
	}
	for args, want := range map[string]string{
		"--in|peer/h2|broadcast":                         "add `vni N`: 10010 (blue), 10020 (red)",
		"--in|c1|broadcast vni 10010":                    "port c1 hears no tunnel",
		"--in|peer/h3|broadcast":                         "did you mean peer/h2",
		"--in|peer/h2|tcp 1.1.1.1.1 > 10.1.0.1.1 gso 10": "carries no GSO frame",
		"--in|c1|udp 10.1.0.1.1 > 10.1.0.1.1 gso 10":     "payload",
	} {
		if _, stderr, code := one.try(append([]string{"explain"}, strings.Split(args, "|")...)...); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d, %s; want %q in it", args, code, stderr, want)
		}
	}
	x := asked(one, func(c *api.Client, ctx context.Context) (api.ExplainReply, error) {
		return c.Explain(ctx, api.ExplainRequest{In: "c1", Hex: "020000000002020000000001" + "88b5"})
	})
	if len(x.Out) != 1 || x.Out[0].Port != "peer/h2" || x.Out[0].Outer == nil || x.Out[0].Outer.VNI != 10010 || x.Out[0].Outer.Length != 50 {
		t.Errorf("in JSON: %+v", x.Out)
	}

	// Out of our own capture, whose interfaces are the ports.
	file := filepath.Join(t.TempDir(), "frames.pcapng")
	r := one.record(file, "--direction", "in", "--port", "c1")
	f.meet(1, 2)
	netnstest.Require(t, "tshark")
	one.grows(file, "icmp", 1)
	r.stop()
	if out := one.cli("explain", "--pcap", file); !strings.Contains(out, "on c1") || !strings.Contains(out, "verdict") {
		t.Errorf("from a capture: %s", out)
	}

	// What the tunnel refused is recorded as the datagram that came.
	file = filepath.Join(t.TempDir(), "drops.pcapng")
	r = one.record(file, "--drops", "--port", "peer/h2")
	f.say(2, "192.0.2.1:4789", vxlan(99, make([]byte, 60)))
	one.grows(file, "udp.dstport == 4789", 1)
	r.stop()
	if out := one.cli("explain", "--pcap", file); !strings.Contains(out, "datagram from 192.0.2.2") || !strings.Contains(out, "drop: unknown_vni") {
		t.Errorf("from a capture of what was refused: %s", out)
	}
}
