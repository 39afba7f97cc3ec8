package discovery_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tapestry-net/tapestry/tunnel/discovery"
)

func TestOthersLeavesThisHostOut(t *testing.T) {
	at := netip.MustParseAddrPort
	list := []discovery.Peer{
		{Name: "h3", Address: at("192.0.2.3:4789"), Networks: []string{"blue"}},
		{Name: "h1", Address: at("192.0.2.1:4789")},
		{Name: "h2", Address: at("[2001:db8::2]:8472")},
		{Name: "other-name", Address: at("192.0.2.9:4789")},
	}
	got := discovery.Others(list, "h1", []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.9")})
	want := []discovery.Peer{list[2], list[0]}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
		t.Errorf("peers of h1 (-want +got):\n%s", d)
	}
}
