package tap_test

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/tap"
)

var _ vswitch.Queue = (*tap.Queue)(nil)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

var owner = link.Owner{Instance: "test", Port: "c1"}

func request(n byte) tap.Request {
	return tap.Request{
		Name: "eth0", Owner: owner,
		Settings: link.Settings{
			MAC: frame.MAC{2, 0, 0, 0, 0, n}, MTU: 1450, Up: true,
			Addresses: []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, n}), 24),
				netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 15: n}), 64),
			},
		},
	}
}

// open opens a TAP in ns and its queue; the device goes with the namespace.
func open(t testing.TB, ns *netnstest.NS, r tap.Request) (*tap.Device, *tap.Queue) {
	t.Helper()
	netnstest.Require(t, "tun")
	d, err := tap.Open(ns.Handle, r)
	if err != nil {
		t.Fatal(err)
	}
	q, err := tap.NewQueue(d.FD, d.VNetHdr, d.Offloads)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return d, q
}

func TestOpenSetsTheInterfaceUp(t *testing.T) {
	ns := netnstest.New(t)
	r := request(2)
	r.Settings.Gateway = netip.MustParseAddr("10.1.0.1")
	d, _ := open(t, ns, r)
	if d.Link.MAC != r.Settings.MAC || d.Link.MTU != 1450 || !d.Link.Up || d.Link.Owner != owner || d.Reattached {
		t.Errorf("device %+v differs from request %+v", d, r)
	}
	if d.VNetHdr != 12 || !d.Offloads.Has(frame.OffloadChecksum|frame.OffloadTSO4|frame.OffloadTSO6) {
		t.Errorf("vnet header %d, offloads %b: want 12 and at least csum, tso4, tso6", d.VNetHdr, d.Offloads)
	}
	flags, err := unix.FcntlInt(uintptr(d.FD), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v: want close-on-exec", flags, err)
	}
	netnstest.Require(t, "ip")
	out := ns.Run("ip", "route", "show", "default") + ns.Run("ip", "addr", "show", "eth0")
	for _, want := range []string{"default via 10.1.0.1 dev eth0", "inet 10.1.0.2/24", "inet6 fd00::2/64"} {
		if !strings.Contains(out, want) {
			t.Errorf("ip shows %q, want it to contain %q", out, want)
		}
	}
}

func TestOpenTwiceReattaches(t *testing.T) {
	ns := netnstest.New(t)
	d, q := open(t, ns, request(2))
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	again, _ := open(t, ns, request(2))
	if !again.Reattached || again.Link.Index != d.Link.Index || again.VNetHdr != d.VNetHdr || again.Offloads != d.Offloads {
		t.Errorf("reattached %+v, want the device %+v", again, d)
	}
}

func TestOpenChangesVNetHdr(t *testing.T) {
	ns := netnstest.New(t)
	for i := range 4 {
		r := request(2)
		r.NoGSO = i%2 == 1
		d, q := open(t, ns, r)
		if got := d.VNetHdr == 0 && d.Offloads == 0; got != r.NoGSO {
			t.Errorf("NoGSO %v: vnet header %d, offloads %b", r.NoGSO, d.VNetHdr, d.Offloads)
		}
		q.Close()
	}
}

func TestOpenRefusesAnothersInterface(t *testing.T) {
	netnstest.Require(t, "ip")
	ns := netnstest.New(t)
	ns.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "p0")
	_, err := tap.Open(ns.Handle, request(2))
	if !errors.Is(err, link.ErrConflict) || !strings.Contains(err.Error(), "veth") {
		t.Errorf("Open = %v, want a conflict that says veth", err)
	}
	other := link.Owner{Instance: "test", Port: "c2"}
	if err := tap.Remove(ns.Handle, "eth0", owner); !errors.Is(err, link.ErrConflict) {
		t.Errorf("Remove = %v, want a conflict", err)
	}
	r := request(2)
	r.Name = "tap1"
	open(t, ns, r)
	r.Owner = other
	if _, err = tap.Open(ns.Handle, r); !errors.Is(err, link.ErrConflict) || !strings.Contains(err.Error(), "port c1") {
		t.Errorf("Open = %v, want a conflict that names port c1", err)
	}
}

func TestOpenLeavesNothingAfterAnError(t *testing.T) {
	netnstest.Require(t, "tun")
	ns := netnstest.New(t)
	before := descriptors(t)
	r := request(2)
	r.Settings.MTU = 1 << 30
	if _, err := tap.Open(ns.Handle, r); err == nil {
		t.Fatal("Open with an absurd MTU succeeds")
	}
	c, err := link.Open(ns.Handle)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ByName("eth0"); !errors.Is(err, link.ErrNotFound) {
		t.Errorf("the interface is still there: %v", err)
	}
	c.Close()
	if after := descriptors(t); after != before {
		t.Errorf("descriptors: got %d, want %d", after, before)
	}
}

func TestRemove(t *testing.T) {
	ns := netnstest.New(t)
	_, q := open(t, ns, request(2))
	for range 2 {
		if err := tap.Remove(ns.Handle, "eth0", owner); err != nil {
			t.Fatal(err)
		}
	}
	b := frame.NewBatch(1 << 20)
	if err := q.Receive(b); !errors.Is(err, tap.ErrGone) {
		t.Errorf("Receive = %v, want ErrGone", err)
	}
}

func TestStates(t *testing.T) {
	netnstest.Require(t, "ip")
	ns := netnstest.New(t)
	d, q := open(t, ns, request(2))
	check := func(want tap.State, wantErr error) {
		t.Helper()
		got, err := tap.States(nil, []int{d.FD, d.FD})
		if err != nil || len(got) != 2 || got[0] != want || got[1] != want {
			t.Errorf("States = %v, %v, want twice %v", got, err, want)
		}
		b := frame.NewBatch(0)
		b.Frames = append(b.Frames, frame.Frame{Data: make([]byte, 60)})
		_, err = q.Transmit(b)
		if !errors.Is(err, wantErr) || b.Frames[0].Refused != (wantErr != nil) {
			t.Errorf("Transmit = %v, refused %v, want %v", err, b.Frames[0].Refused, wantErr)
		}
	}
	check(tap.StateUp, nil)
	ns.Run("ip", "link", "set", "eth0", "down")
	check(tap.StateDown, tap.ErrDown)
	ns.Run("ip", "link", "set", "eth0", "name", "renamed")
	if name, err := tap.Name(d.FD); name != "renamed" || err != nil {
		t.Errorf("Name = %q, %v, want renamed", name, err)
	}
	ns.Run("ip", "link", "set", "renamed", "up")
	check(tap.StateUp, nil)
	ns.Run("ip", "link", "del", "renamed")
	check(tap.StateGone, tap.ErrGone)
	if _, err := tap.Name(d.FD); !errors.Is(err, tap.ErrGone) {
		t.Errorf("Name = %v, want ErrGone", err)
	}
}

func TestNamespaceDeletedUnderQueue(t *testing.T) {
	ns := netnstest.New(t)
	_, q := open(t, ns, request(2))
	ns.Delete()
	// The kernel takes a namespace down in its own time and then wakes pollers.
	b := frame.NewBatch(1 << 20)
	for {
		p := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 10000); n != 1 && err != unix.EINTR {
			t.Fatalf("poll = %d, %v: the queue isn't told", n, err)
		}
		b.Reset()
		if err := q.Receive(b); err != nil {
			if !errors.Is(err, tap.ErrGone) {
				t.Errorf("Receive = %v, want ErrGone", err)
			}
			return
		}
	}
}

func TestNewQueueRefusesOtherHeaders(t *testing.T) {
	if _, err := tap.NewQueue(-1, 11, 0); err == nil {
		t.Error("NewQueue accepts a header of 11 octets")
	}
}

func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
