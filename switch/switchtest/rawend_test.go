package switchtest_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// TestRawEnd sends from one end of a veth pair to the other.
func TestRawEnd(t *testing.T) {
	netnstest.Require(t, "netns", "packet")
	ns := netnstest.New(t)
	ns.Run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	ns.Run("ip", "link", "set", "v0", "up")
	ns.Run("ip", "link", "set", "v1", "up")
	awaitCarrier(t, ns, "v0")
	within := func(fn func() error) (err error) {
		ns.Do(func() error { err = fn(); return nil })
		return err
	}
	ends := [2]*switchtest.RawEnd{}
	for i, name := range []string{"v0", "v1"} {
		r, err := switchtest.OpenRawEnd(name, within)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		ends[i] = r
	}
	udp, tcp := switchtest.UDPFrame(a4, b4, switchtest.Pattern(333)), switchtest.TCPFrame(a6, b6, switchtest.Segment{Seq: 1}, switchtest.Pattern(30001))
	for name, f := range map[string]frame.Frame{
		"plain":      {Data: udp},
		"tag":        {Data: switchtest.Tagged(10, 5, udp)},
		"priority":   {Data: switchtest.Tagged(0, 5, udp)},
		"two tags":   {Data: switchtest.Tagged(10, 5, switchtest.Tagged(20, 1, udp))},
		"S-tag":      {Data: switchtest.STagged(10, 5, udp)},
		"partial":    switchtest.Partial(udp),
		"super":      switchtest.Super(tcp, 1000),
		"tagged GSO": switchtest.Super(switchtest.Tagged(10, 3, tcp), 1000),
	} {
		t.Run(name, func(t *testing.T) {
			if err := ends[0].Send(f); err != nil {
				t.Fatal(err)
			}
			got := fromA(t, ends[1])
			if !bytes.Equal(got.Data, f.Data) || got.GSO != f.GSO {
				t.Errorf("got %d octets, %+v, want %d, %+v", len(got.Data), got.GSO, len(f.Data), f.GSO)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for {
		if _, err := ends[1].Receive(ctx); err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("receive with a cancelled context: got %v", err)
			}
			break
		}
	}
	if _, err := switchtest.OpenRawEnd("nosuch", within); err == nil {
		t.Error("open a raw end on no interface: got nil error")
	}
}

// fromA waits for a frame of station 1 and passes over the kernel's own.
func fromA(t *testing.T, r *switchtest.RawEnd) frame.Frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for {
		f, err := r.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if frame.MAC(f.Data[6:12]) == a4.MAC {
			return f
		}
	}
}

// awaitCarrier waits until the kernel sends what the interface is given.
func awaitCarrier(t *testing.T, ns *netnstest.NS, ifname string) {
	t.Helper()
	c, err := link.Open(ns.Handle)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := c.ByName(ifname)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitCarrier(l.Index); err != nil {
		t.Fatal(err)
	}
}
