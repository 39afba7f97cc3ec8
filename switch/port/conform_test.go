// Package port_test runs the conformance suite and the kernel's own protocol
// stack against every kind of port that the kernel has a part in.
package port_test

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/packet"
	"github.com/tapestry-net/tapestry/switch/port/tap"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// far is the container's end of a port, seen by a packet socket.
type far struct {
	q       *packet.Queue
	waiting []frame.Frame
}

func openFar(t testing.TB, ns *netnstest.NS, name string) *far {
	t.Helper()
	f := &far{}
	ns.Do(func() error {
		d, err := packet.Open(name, false)
		if err != nil {
			return err
		}
		f.q, err = packet.NewQueue(d.FD, d.VNetHdr, d.Offloads)
		return err
	})
	t.Cleanup(func() { f.q.Close() })
	return f
}

func (f *far) Send(out frame.Frame) error {
	b := frame.NewBatch(0)
	b.Frames = append(b.Frames, out)
	_, err := f.q.Transmit(b)
	return err
}

func (f *far) Receive(ctx context.Context) (frame.Frame, error) {
	b := frame.NewBatch(4 * (frame.MaxLen + 2*frame.Headroom))
	for len(f.waiting) == 0 {
		if err := ctx.Err(); err != nil {
			return frame.Frame{}, err
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(f.q.FD()), Events: unix.POLLIN}}, 100); err != nil && err != unix.EINTR {
			return frame.Frame{}, err
		}
		if err := f.q.Receive(b); err != nil {
			return frame.Frame{}, err
		}
		f.waiting = append(f.waiting, b.Frames...)
	}
	next := f.waiting[0]
	f.waiting = f.waiting[1:]
	return next, nil
}

var owner = link.Owner{Instance: "test", Port: "c1"}

// settings of an interface on which the kernel sends nothing of its own.
func settings(ns *netnstest.NS) link.Settings {
	ns.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	})
	return link.Settings{MTU: 1500, Up: true}
}

func TestConformance(t *testing.T) {
	for _, noGSO := range []bool{false, true} {
		name := map[bool]string{false: "", true: " plain"}[noGSO]
		t.Run("tap"+name, func(t *testing.T) {
			switchtest.TestPort(t, func(t *testing.T) switchtest.Opened { return openTAP(t, noGSO) })
		})
		t.Run("veth"+name, func(t *testing.T) {
			switchtest.TestPort(t, func(t *testing.T) switchtest.Opened { return openVeth(t, noGSO) })
		})
		t.Run("packet"+name, func(t *testing.T) {
			switchtest.TestPort(t, func(t *testing.T) switchtest.Opened { return openPacket(t, noGSO) })
		})
	}
}

func openTAP(t *testing.T, noGSO bool) switchtest.Opened {
	netnstest.Require(t, "netns", "tun", "packet")
	ns := netnstest.New(t)
	d, err := tap.Open(ns.Handle, tap.Request{Name: "eth0", Owner: owner, Settings: settings(ns), NoGSO: noGSO})
	if err != nil {
		t.Fatal(err)
	}
	q, err := tap.NewQueue(d.FD, d.VNetHdr, d.Offloads)
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, q, openFar(t, ns, "eth0"), func() error { return tap.Remove(ns.Handle, "eth0", owner) })
}

func openVeth(t *testing.T, noGSO bool) switchtest.Opened {
	netnstest.Require(t, "netns", "tun", "packet", "tc")
	ns := netnstest.New(t)
	v, err := tap.OpenVeth(ns.Handle, tap.VethRequest{Name: "eth0", Owner: owner, Settings: settings(ns), NoGSO: noGSO})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tap.RemoveVeth(owner, ""); err != nil {
			t.Error(err)
		}
	})
	q, err := tap.NewQueue(v.FD, v.VNetHdr, v.Offloads)
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, q, openFar(t, ns, "eth0"), func() error { return tap.RemoveVeth(owner, "") })
}

func openPacket(t *testing.T, noGSO bool) switchtest.Opened {
	netnstest.Require(t, "netns", "packet")
	ns, host := netnstest.New(t), netnstest.New(t)
	var q *packet.Queue
	var fn func() error
	host.Do(func() error {
		c, err := link.Open(nil)
		if err != nil {
			return err
		}
		defer c.Close()
		h, p, err := c.AddVeth(link.Veth{Host: "up0", Peer: "eth0", PeerNS: ns.Handle, Owner: owner})
		if err != nil {
			return err
		}
		if err := c.Silence(h); err != nil {
			return err
		}
		if err := c.SetUp(h.Index, true); err != nil {
			return err
		}
		if err := configure(ns.Handle, p.Index, settings(ns)); err != nil {
			return err
		}
		d, err := packet.Open("up0", noGSO)
		if err != nil {
			return err
		}
		q, err = packet.NewQueue(d.FD, d.VNetHdr, d.Offloads)
		return err
	})
	fn = func() error { return tap.Remove(host.Handle, "up0", owner) }
	return opened(t, q, openFar(t, ns, "eth0"), fn)
}

func configure(ns *netns.Handle, index int, s link.Settings) error {
	c, err := link.Open(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Configure(index, s)
}

func opened(t *testing.T, q vswitch.Queue, f *far, unplug func() error) switchtest.Opened {
	t.Helper()
	t.Cleanup(func() { q.Close() })
	return switchtest.Opened{Queue: q, Far: f, Unplug: func() {
		if err := unplug(); err != nil {
			t.Error(err)
		}
	}}
}
