package link_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// router is a namespace with two interfaces, left (10.1.0.1, fd01::1) and b
// (10.2.0.1, fd02::1), that forwards between them; nobody is at their far ends.
func router(t *testing.T) *netnstest.NS {
	t.Helper()
	netnstest.Require(t, "netns", "ip")
	ns := netnstest.New(t)
	for i, name := range []string{"left", "right"} {
		n := string('1' + byte(i))
		for _, c := range []string{
			"link add " + name + " type veth peer name far-" + name, "link set " + name + " up", "link set far-" + name + " up",
			"addr add 10." + n + ".0.1/24 dev " + name, "addr add fd0" + n + "::1/64 dev " + name + " nodad",
		} {
			ns.Run(append([]string{"ip"}, strings.Fields(c)...)...)
		}
	}
	set(ns, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	return ns
}

func set(ns *netnstest.NS, values ...string) {
	for _, v := range values {
		key, value, _ := strings.Cut(v, "=")
		ns.Run("sh", "-c", "echo "+value+" > /proc/sys/"+strings.ReplaceAll(key, ".", "/"))
	}
}

func diagnose(t *testing.T, ns *netnstest.NS, f link.Flow) link.Diagnosis {
	t.Helper()
	var d link.Diagnosis
	ns.Do(func() (err error) {
		d, err = link.Diagnose(f)
		return err
	})
	return d
}

func flow(src, dst, in string) link.Flow {
	return link.Flow{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), In: in, Protocol: 17}
}

func causes(d link.Diagnosis) []link.Cause {
	var all []link.Cause
	for _, f := range d.Findings {
		all = append(all, f.Cause)
	}
	return all
}

func TestDiagnose(t *testing.T) {
	forward4, forward6 := flow("10.1.0.2", "10.2.0.2", "left"), flow("fd01::2", "fd02::2", "left")
	for _, c := range []struct {
		name  string
		setUp []string // shell commands
		f     link.Flow
		want  []link.Cause
		what  string // part of a finding
		hint  string
	}{
		{name: "forwarded", f: forward4},
		{name: "forwarded 6", f: forward6},
		{name: "made here", f: flow("10.1.0.1", "10.2.0.2", "")},
		{name: "to this host", f: flow("10.1.0.2", "10.2.0.1", "left")},
		{"no route", nil, flow("10.1.0.2", "192.0.2.1", "left"), []link.Cause{link.NoRoute}, "no route to 192.0.2.1", "ip route add 192.0.2.1/32 via"},
		{"no route 6", nil, flow("fd01::2", "2001:db8::1", "left"), []link.Cause{link.NoRoute}, "2001:db8::1", "ip route add 2001:db8::1/128"},
		{"no route from here", nil, flow("10.1.0.1", "192.0.2.1", ""), []link.Cause{link.NoRoute}, "192.0.2.1", ""},
		{
			"forwarding off", []string{"sysctl -w net.ipv4.ip_forward=0"}, forward4,
			[]link.Cause{link.ForwardingOff}, "net.ipv4.ip_forward is 0", "sysctl -w net.ipv4.ip_forward=1",
		},
		{
			"forwarding off 6", []string{"sysctl -w net.ipv6.conf.all.forwarding=0"}, forward6,
			[]link.Cause{link.ForwardingOff}, "net.ipv6.conf.all.forwarding is 0", "sysctl -w net.ipv6.conf.all.forwarding=1",
		},
		{
			"forwarding off on one interface", []string{"sysctl -w net.ipv4.conf.left.forwarding=0"}, forward4,
			[]link.Cause{link.ForwardingOff}, "comes in by left", "sysctl -w net.ipv4.conf.left.forwarding=1",
		},
		{
			"forwarding off and no route", []string{"sysctl -w net.ipv4.ip_forward=0"}, flow("10.1.0.2", "192.0.2.1", "left"),
			[]link.Cause{link.ForwardingOff, link.NoRoute}, "no route", "ip route add",
		},
		{
			"unreachable", []string{"ip route add unreachable 10.2.0.0/30"}, forward4,
			[]link.Cause{link.RouteRefuses}, "`unreachable 10.2.0.0/30` of table 254", "ip route del unreachable 10.2.0.0/30 table 254",
		},
		{
			"prohibit in another table", []string{"ip rule add to 10.2.0.0/16 table 77", "ip route add prohibit 10.2.0.0/16 table 77"}, forward4,
			[]link.Cause{link.RouteRefuses}, "`prohibit 10.2.0.0/16` of table 77", "ip route del prohibit 10.2.0.0/16 table 77",
		},
		{
			"blackhole", []string{"ip route add blackhole 10.2.0.2"}, forward4,
			[]link.Cause{link.RouteRefuses}, "`blackhole 10.2.0.2/32`", "ip route del blackhole 10.2.0.2/32 table 254",
		},
		{
			"blackhole 6", []string{"ip route add blackhole fd02::2"}, forward6,
			[]link.Cause{link.RouteRefuses}, "`blackhole fd02::2/128`", "ip route del blackhole fd02::2/128 table 254",
		},
		{
			"unreachable from here", []string{"ip route add unreachable default"}, flow("10.1.0.1", "192.0.2.1", ""),
			[]link.Cause{link.RouteRefuses}, "`unreachable 0.0.0.0/0`", "ip route del unreachable 0.0.0.0/0",
		},
		{
			"rule", []string{"ip rule add from 10.1.0.2 prohibit"}, forward4,
			[]link.Cause{link.RouteRefuses}, "policy rule of kind prohibit", "ip -4 rule show",
		},
		{
			"strict reverse path", []string{"sysctl -w net.ipv4.conf.left.rp_filter=1", "ip route add 10.7.0.0/16 via 10.2.0.9"}, flow("10.7.0.2", "10.2.0.2", "left"),
			[]link.Cause{link.ReversePath}, "10.7.0.0/16, leaves by another", "sysctl -w net.ipv4.conf.left.rp_filter=2",
		},
		{
			"loose reverse path", []string{"sysctl -w net.ipv4.conf.all.rp_filter=2"}, flow("192.0.2.9", "10.2.0.2", "left"),
			[]link.Cause{link.ReversePath}, "no route back", "ip route add 192.0.2.9 dev left",
		},
		{"own source", nil, flow("10.2.0.1", "10.2.0.2", "left"), []link.Cause{link.Martian}, "can't come in by left", "ip route get 10.2.0.1"},
		{
			"next hop silent", []string{"ip route add 192.0.2.0/24 via 10.2.0.9", "ip neigh add 10.2.0.9 dev right nud failed"}, flow("10.1.0.2", "192.0.2.1", "left"),
			[]link.Cause{link.NeighbourUnresolved}, "10.2.0.9, the next hop, doesn't answer on right", "ip neigh del 10.2.0.9 dev right",
		},
		{
			"neighbour silent 6", []string{"ip neigh add fd02::2 dev right nud failed"}, forward6,
			[]link.Cause{link.NeighbourUnresolved}, "fd02::2", "ip neigh del fd02::2 dev right",
		},
		{
			"no carrier", []string{"ip link set far-right down"}, forward4,
			[]link.Cause{link.InterfaceDown}, "right, where the route leads, has no carrier", "ip link show right",
		},
		{
			"no ping", []string{"sysctl -w net.ipv4.icmp_echo_ignore_all=1"},
			link.Flow{Src: netip.MustParseAddr("10.1.0.2"), Dst: netip.MustParseAddr("10.1.0.1"), In: "left", Protocol: 1},
			[]link.Cause{link.EchoIgnored}, "answers no ping", "sysctl -w net.ipv4.icmp_echo_ignore_all=0",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := router(t)
			for _, cmd := range c.setUp {
				if v, ok := strings.CutPrefix(cmd, "sysctl -w "); ok {
					set(ns, v)
					continue
				}
				ns.Run(strings.Fields(cmd)...)
			}
			d := diagnose(t, ns, c.f)
			if got := causes(d); !slices.Equal(got, c.want) {
				t.Fatalf("got %+v, want %v", d.Findings, c.want)
			}
			if len(c.want) == 0 {
				return
			}
			last := d.Findings[len(d.Findings)-1]
			if !strings.Contains(last.What, c.what) || !strings.HasPrefix(last.Hint, c.hint) {
				t.Errorf("got %+v, want %q and %q", last, c.what, c.hint)
			}
		})
	}
}

func TestDiagnoseNamesTheRoute(t *testing.T) {
	ns := router(t)
	ns.Run("ip", "route", "add", "192.0.2.0/24", "via", "10.2.0.9", "table", "9")
	ns.Run("ip", "rule", "add", "fwmark", "5", "table", "9")
	f := flow("10.1.0.2", "192.0.2.1", "left")
	f.Mark = 5
	d := diagnose(t, ns, f)
	want := link.Route{
		Type: "unicast", To: netip.MustParsePrefix("192.0.2.0/24"), Table: 9, Via: netip.MustParseAddr("10.2.0.9"), Out: "right", Up: true,
	}
	if d.Route == nil {
		t.Fatalf("got %+v, want a route", d)
	}
	want.Index = d.Route.Index
	if *d.Route != want {
		t.Errorf("got %+v, want %+v", *d.Route, want)
	}
	if d := diagnose(t, ns, flow("10.1.0.2", "10.1.0.1", "left")); d.Route == nil || d.Route.Type != "local" || d.Route.Table != 255 {
		t.Errorf("got %+v, want a local route", d.Route)
	}
}

// What a discarded packet has moved is seen between two diagnoses.
func TestDiagnoseCounts(t *testing.T) {
	netnstest.Require(t, "ping")
	ns := router(t)
	ns.Run("ip", "route", "add", "blackhole", "192.0.2.1")
	f := flow("10.1.0.1", "10.2.0.2", "")
	before := diagnose(t, ns, f)
	if out, err := ns.Try("ping", "-c1", "-W1", "203.0.113.1"); err == nil {
		t.Fatal(out)
	}
	after := diagnose(t, ns, f)
	const moved = "Ip.OutNoRoutes"
	if before.Counters[moved]+1 != after.Counters[moved] {
		t.Errorf("%s: %d before, %d after a packet without route", moved, before.Counters[moved], after.Counters[moved])
	}
	for _, name := range []string{"Ip6InNoRoutes", "IpExt.InNoRoutes", "right.rx_dropped"} {
		if _, ok := after.Counters[name]; !ok {
			t.Errorf("got %v, want %s among them", after.Counters, name)
		}
	}
}

func TestDiagnoseRefusesWhatIsNoPacket(t *testing.T) {
	ns := netnstest.New(t)
	for _, f := range []link.Flow{
		{}, flow("10.1.0.1", "fd00::1", ""), flow("::ffff:10.0.0.1", "::ffff:10.0.0.2", ""), {Dst: netip.MustParseAddr("10.0.0.1")},
	} {
		ns.Do(func() error {
			if _, err := link.Diagnose(f); err == nil {
				t.Errorf("%+v: got no error", f)
			}
			return nil
		})
	}
	ns.Do(func() error {
		if _, err := link.Diagnose(flow("10.1.0.1", "10.1.0.2", "nosuch")); !errors.Is(err, link.ErrNotFound) {
			t.Errorf("got %v, want %v", err, link.ErrNotFound)
		}
		return nil
	})
}

// A name that a container has chosen is one word of the command, whatever it holds.
func TestHintsQuoteNames(t *testing.T) {
	ns := router(t)
	ns.Run("ip", "link", "set", "left", "down")
	ns.Run("ip", "link", "set", "left", "name", "a;reboot'x")
	d := diagnose(t, ns, flow("10.1.0.2", "10.2.0.2", "a;reboot'x"))
	if len(d.Findings) == 0 || d.Findings[0].Hint != `ip link set 'a;reboot'\''x' up` {
		t.Errorf("got %+v, want the name quoted", d.Findings)
	}
}
