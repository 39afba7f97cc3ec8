package port_test

import (
	"errors"
	"testing"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/port/tap"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// TestAdopt takes over the host end of a pair that somebody else made and gives
// it back unharmed.
func TestAdopt(t *testing.T) {
	netnstest.Require(t, "netns", "tun", "tc", "packet", "ip")
	ns, host := netnstest.New(t), netnstest.New(t)
	host.Run("ip", "link", "add", "vethabc", "type", "veth", "peer", "name", "eth0", "netns", ns.Name())
	host.Run("ip", "link", "set", "vethabc", "up")
	ns.Run("ip", "link", "set", "eth0", "up")
	var v *tap.Veth
	host.Do(func() (err error) {
		v, err = tap.OpenVeth(nil, tap.VethRequest{Adopt: "vethabc", Owner: owner})
		return err
	})
	defer v.Close()
	if !v.HostEnd.Owner.IsZero() || v.HostEnd.Name != "vethabc" {
		t.Errorf("adopted %+v, want vethabc without a mark", v.HostEnd)
	}
	host.Do(func() error { return tap.RemoveVeth(owner, "vethabc") })
	c, err := link.Open(host.Handle)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ByName("vethabc"); err != nil {
		t.Errorf("the adopted end is gone: %v", err)
	}
	if _, err := c.ByName(v.Link.Name); !errors.Is(err, link.ErrNotFound) {
		t.Errorf("the TAP is left behind: %v", err)
	}
}

var _ switchtest.Far = (*far)(nil)
