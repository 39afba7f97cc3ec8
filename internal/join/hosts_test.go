package join_test

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/join"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TestTwoHosts joins from another host, through the address that the listener
// has found to be its own:
//
//	a 192.0.2.1 ── v ── v ── 192.0.2.2 b
func TestTwoHosts(t *testing.T) {
	netnstest.Require(t, "ip")
	a, b := netnstest.New(t), netnstest.New(t)
	a.Run("ip", "link", "add", "v", "type", "veth", "peer", "name", "v", "netns", b.Name())
	for ns, addresses := range map[*netnstest.NS][]string{a: {"192.0.2.1/24", "2001:db8::1/64"}, b: {"192.0.2.2/24", "2001:db8::2/64"}} {
		for _, addr := range addresses {
			ns.Run("ip", "address", "add", addr, "dev", "v", "nodad")
		}
		ns.Run("ip", "link", "set", "v", "up")
	}
	ca := newCA(t)
	var l *join.Listener
	a.Do(func() (err error) {
		l, err = join.Listen(ca, join.Offer{For: time.Minute, Listen: ":4788", Log: slog.New(slog.DiscardHandler)})
		return err
	})
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:4788"), netip.MustParseAddrPort("[2001:db8::1]:4788")}
	if got := l.Token().Addresses; !slices.Equal(got, want) {
		t.Errorf("got addresses %v, want %v, and none that ends at this host or link", got, want)
	}
	type end struct {
		who join.Joined
		err error
	}
	ended := make(chan end, 1)
	go func() {
		who, err := l.Serve(t.Context())
		ended <- end{who, err}
	}()
	b.Do(func() error {
		_, err := join.Join(t.Context(), join.Order{Token: l.Token(), Host: "h2", Dir: filepath.Join(t.TempDir(), "pki")})
		return err
	})
	if e := <-ended; e.err != nil || e.who.Address != netip.MustParseAddr("192.0.2.2") || e.who.Lost {
		t.Errorf("got %+v, want a host that joined from 192.0.2.2", e)
	}
}
