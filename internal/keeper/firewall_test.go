package keeper_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/nftrace"
	"golang.org/x/sys/unix"
)

// A rule inside a container that eats a probe is named, with the command that
// shows it, and nothing is left there.
func TestFirewall(t *testing.T) {
	b := machineBed(t)
	netnstest.Require(t, "nft")
	own := netnstest.New(t) // a container's
	w := b.run()
	c1 := tap("c1")
	self := netip.MustParseAddr("10.1.0.2")
	c1.Netns, c1.Addresses = own.Name(), []netip.Prefix{netip.PrefixFrom(self, 24)}
	mustOpen(t, w, c1)
	own.Run("nft", "add table ip filter; add chain ip filter input { type filter hook input priority 0; }; add rule ip filter input udp dport 9 drop")
	before := own.Run("nft", "list", "ruleset")

	at := keeper.Place{Port: "c1"}
	probe := nftrace.Probe{Src: self, Dst: self, Protocol: unix.IPPROTO_UDP, SrcPort: 4000, DstPort: 9}
	l, _, err := w.Firewall(keeper.FirewallRequest{Place: at, Probe: probe})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := w.OpenRaw(keeper.RawRequest{Place: at})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(raw)
	packet := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, 10, 1, 0, 2, 10, 1, 0, 2, 4000 >> 8, 4000 & 0xff, 0, 9, 0, 8, 0, 0}
	if err := unix.Sendto(raw, packet, 0, &unix.SockaddrInet4{Addr: self.As4()}); err != nil {
		t.Fatal(err)
	}
	var steps []nftrace.Step
	for !slices.ContainsFunc(steps, nftrace.Step.Final) {
		more, err := l.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, more...)
	}
	last := steps[len(steps)-1]
	rule, hint, err := w.Rule(keeper.RuleRequest{Place: at, At: last.At})
	if err != nil || rule.Text != "udp dport 9 drop" || rule.Hook != "input" || last.Verdict != nftrace.Drop {
		t.Errorf("got %v, %+v, %v, want the rule that drops", steps, rule, err)
	}
	if want := "ip netns exec " + own.Name() + " nft -a list chain ip filter input"; hint != want {
		t.Errorf("got hint %q, want %q", hint, want)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if after := own.Run("nft", "list", "ruleset"); after != before {
		t.Errorf("got %s, want %s", after, before)
	}
	refuseFirewall(t, w, probe, last.At)
}

func refuseFirewall(t *testing.T, w *worker, probe nftrace.Probe, at nftrace.At) {
	t.Helper()
	for _, change := range []func(p *nftrace.Probe){
		func(p *nftrace.Probe) { *p = nftrace.Probe{} },
		func(p *nftrace.Probe) { p.Protocol = unix.IPPROTO_GRE },
		func(p *nftrace.Probe) { p.Protocol = unix.IPPROTO_ICMPV6 },
		func(p *nftrace.Probe) { p.Dst = netip.MustParseAddr("fd00::1") },
	} {
		p := probe
		change(&p)
		if _, _, err := w.Firewall(keeper.FirewallRequest{Probe: p}); code(err) != keeper.CodeInvalid {
			t.Errorf("%+v: got %v, want %s", p, err, keeper.CodeInvalid)
		}
	}
	if _, _, err := w.Firewall(keeper.FirewallRequest{Place: keeper.Place{Port: "c9"}, Probe: probe}); code(err) != keeper.CodeNotFound {
		t.Errorf("got %v, want %s", err, keeper.CodeNotFound)
	}
	if _, _, err := w.Rule(keeper.RuleRequest{At: at}); code(err) != keeper.CodeNotFound { // it is in the container
		t.Errorf("got %v, want %s", err, keeper.CodeNotFound)
	}
	at.Chain = "a\x00b"
	if _, _, err := w.Rule(keeper.RuleRequest{At: at}); code(err) != keeper.CodeInvalid {
		t.Errorf("got %v, want %s", err, keeper.CodeInvalid)
	}
	for _, op := range []string{"firewall", "rule"} {
		if err := w.RawSet(nil, nil, op); code(err) != keeper.CodeInvalid {
			t.Errorf("%s: got %v, want %s", op, err, keeper.CodeInvalid)
		}
	}
}
