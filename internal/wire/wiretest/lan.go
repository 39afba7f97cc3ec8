package wiretest

import (
	"fmt"
	"io"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// LAN is an underlay: each node's interface Interface hangs on a wire of its
// own, whose other end is in a bridge that all share.
//
//	node 1: under0 ── wire 0 ──┐
//	node 2: under0 ── wire 1 ──┼ kernel bridge
//	node 3: under0 ── wire 2 ──┘
//
// Way AToB leads from the node to the bridge.
type LAN struct {
	Wires []*Wire
	hub   *netnstest.NS
	seed  uint64
}

// Interface is what a node's interface on the LAN is called.
const Interface = "under0"

// NewLAN makes a LAN of nodes for the length of the test. Node i, counted from
// 0, has the addresses that Addr tells. The nodes' interfaces segment and
// complete checksums themselves, so that real packets of at most the MTU cross
// the wires.
func NewLAN(t testing.TB, seed uint64, nodes ...*netnstest.NS) *LAN {
	t.Helper()
	netnstest.Require(t, "netns", "packet", "ip", "ethtool")
	l := &LAN{hub: netnstest.New(t), seed: seed}
	// The hub's own interfaces are to send nothing by themselves.
	l.hub.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
	l.hub.Run("ip", "link", "add", "hub", "type", "bridge", "mcast_snooping", "0")
	l.hub.Run("ip", "link", "set", "hub", "up")
	for _, n := range nodes {
		l.Add(t, n)
	}
	return l
}

// Addr is an address of node i in both families, with prefix length.
func Addr(i int) (v4, v6 string) {
	return fmt.Sprintf("192.0.2.%d/24", i+1), fmt.Sprintf("2001:db8::%x/64", i+1)
}

// Add puts one more node on the LAN and returns its wire.
func (l *LAN) Add(t testing.TB, node *netnstest.NS) *Wire {
	t.Helper()
	i := len(l.Wires)
	near, far, slot := fmt.Sprintf("near%d", i), fmt.Sprintf("far%d", i), fmt.Sprintf("slot%d", i)
	l.hub.Run("ip", "link", "add", near, "type", "veth", "peer", "name", Interface, "netns", node.Name())
	l.hub.Run("ip", "link", "add", far, "type", "veth", "peer", "name", slot)
	l.hub.Run("ip", "link", "set", slot, "master", "hub")
	for _, name := range []string{near, far, slot} {
		l.hub.Run("ip", "link", "set", name, "up")
	}
	var ends [2]io.ReadWriteCloser
	l.hub.Do(func() (err error) {
		if ends[0], err = Device(near); err != nil {
			return err
		}
		ends[1], err = Device(far)
		return err
	})
	w := Join(ends[0], ends[1], l.seed+uint64(i)<<32)
	t.Cleanup(func() { w.Close() })
	l.Wires = append(l.Wires, w)

	node.Run("ethtool", "-K", Interface, "tx", "off")
	v4, v6 := Addr(i)
	node.Run("ip", "addr", "add", v4, "dev", Interface)
	node.Run("ip", "addr", "add", v6, "dev", Interface, "nodad")
	node.Run("ip", "link", "set", Interface, "up")
	return w
}

// Counts is what all wires have done together.
func (l *LAN) Counts() Counts {
	var c Counts
	for _, w := range l.Wires {
		c = c.Plus(w.Counts(AToB)).Plus(w.Counts(BToA))
	}
	return c
}
