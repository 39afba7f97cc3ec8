package keeper_test

import (
	"net/netip"
	"testing"

	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

func TestDiagnose(t *testing.T) {
	b := machineBed(t)
	own := netnstest.New(t) // a container's
	w := b.run()
	c1 := tap("c1")
	c1.Netns, c1.Addresses = own.Name(), []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24")}
	mustOpen(t, w, c1)
	c2 := tap("c2")
	c2.Netns, c2.Ifname = own.Path(), "eth1"
	mustOpen(t, w, c2)

	addr := netip.MustParseAddr
	f := link.Flow{Src: addr("10.1.0.9"), Dst: addr("192.0.2.1"), In: "eth0"}
	for port, hint := range map[string]string{
		"c1": "ip netns exec " + own.Name() + " sysctl -w net.ipv4.ip_forward=1",
		"c2": "nsenter --net=" + own.Path() + " sysctl -w net.ipv4.ip_forward=1",
	} {
		d, err := w.Diagnose(keeper.DiagnoseRequest{Place: keeper.Place{Port: port}, Flow: f})
		if err != nil || len(d.Findings) != 2 || d.Findings[0].Cause != link.ForwardingOff || d.Findings[0].Hint != hint {
			t.Errorf("port %s: got %+v, %v, want that nothing is forwarded, and %q", port, d, err, hint)
		}
	}
	for _, c := range []struct {
		r    keeper.DiagnoseRequest
		want keeper.Code
	}{
		{keeper.DiagnoseRequest{Flow: f}, keeper.CodeNotFound}, // the daemon's namespace has no eth0
		{keeper.DiagnoseRequest{Place: keeper.Place{Port: "c3"}, Flow: f}, keeper.CodeNotFound},
		{keeper.DiagnoseRequest{Place: keeper.Place{Port: "c/"}, Flow: f}, keeper.CodeInvalid},
		{keeper.DiagnoseRequest{}, keeper.CodeInvalid},
		{keeper.DiagnoseRequest{Flow: link.Flow{Src: f.Src, Dst: addr("fd00::1")}}, keeper.CodeInvalid},
		{keeper.DiagnoseRequest{Flow: link.Flow{Src: addr("fe80::1%eth0"), Dst: addr("fd00::1")}}, keeper.CodeInvalid},
		{keeper.DiagnoseRequest{Flow: link.Flow{Src: f.Src, Dst: f.Dst, In: "../x"}}, keeper.CodeInvalid},
	} {
		if _, err := w.Diagnose(c.r); code(err) != c.want {
			t.Errorf("%+v: got %v, want %s", c.r, err, c.want)
		}
	}
	if err := w.RawSet(nil, nil, "diagnose"); code(err) != keeper.CodeInvalid {
		t.Errorf("without a packet: got %v, want %s", err, keeper.CodeInvalid)
	}
}
