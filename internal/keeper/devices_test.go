package keeper_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/frame"
	"golang.org/x/sys/unix"
)

// machineBed is a bed whose keeper works on real interfaces.
func machineBed(t *testing.T) *bed {
	t.Helper()
	netnstest.Require(t, "netns", "tun", "tc", "packet")
	b := newBed(t)
	b.opts.Devices = nil
	return b
}

func mustOpen(t *testing.T, w *worker, r keeper.PortRequest) (keeper.PortReply, uint64) {
	t.Helper()
	p, fd, err := w.Open(r)
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("port %s: got flags %#x, %v, want a non-blocking descriptor", r.Name, flags, err)
	}
	return p, inode(t, fd)
}

func mustShow(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, s := range want {
		if !strings.Contains(got, s) {
			t.Errorf("got %s, want %s", got, s)
		}
	}
}

func mustLack(t *testing.T, got string, unwanted ...string) {
	t.Helper()
	for _, s := range unwanted {
		if strings.Contains(got, s) {
			t.Errorf("got %s, want no %s", got, s)
		}
	}
}

// Every kind of port is made, changed and, at the end, removed wherever it is.
func TestMachine(t *testing.T) {
	b := machineBed(t)
	own := netnstest.New(t) // a container's
	addr, gw := netip.MustParsePrefix("10.1.0.2/24"), netip.MustParseAddr("10.1.0.1")
	mac := frame.MustParseMAC("02:00:00:00:00:01")
	w := b.run()

	c1 := keeper.PortRequest{
		Name: "c1", Kind: keeper.KindTap, Netns: own.Path(), Ifname: "eth0",
		MAC: mac, MTU: 1450, Addresses: []netip.Prefix{addr}, Gateway: gw,
	}
	p, _ := mustOpen(t, w, c1)
	if p.MAC != mac || p.MTU != 1450 || p.Device != "eth0" || p.Reattached || p.NetnsID != own.Inode() {
		t.Errorf("got %+v, want what was asked for", p)
	}
	mustShow(t, own.Run("ip", "addr", "show", "eth0"), "mtu 1450", mac.String(), addr.String(), "LOWER_UP")
	mustShow(t, own.Run("ip", "route"), "default via 10.1.0.1")

	c2 := keeper.PortRequest{Name: "c2", Kind: keeper.KindVeth, Netns: own.Path(), Ifname: "eth1", MTU: 1400}
	p, _ = mustOpen(t, w, c2)
	if p.Splice == "" || p.HostEnd == "" || p.Device != "eth1" {
		t.Errorf("got %+v, want a spliced pair", p)
	}
	gwPort, _ := mustOpen(t, w, keeper.PortRequest{Name: "gw", Kind: keeper.KindHost, Ifname: "tap-blue"})
	if gwPort.MTU != 1500 {
		t.Errorf("got %+v, want the default MTU", gwPort)
	}
	up, _ := mustOpen(t, w, keeper.PortRequest{Name: "up", Kind: keeper.KindDevice, Device: gwPort.Device})
	if !up.Packet {
		t.Errorf("got %+v, want a packet socket", up)
	}
	if _, _, err := w.Open(keeper.PortRequest{Name: "lo", Kind: keeper.KindDevice, Device: "lo"}); code(err) != keeper.CodeInvalid {
		t.Errorf("a loopback as a port: got %v, want %s", err, keeper.CodeInvalid)
	}
	changeSettings(t, w, own)
	refuse(t, w, c1, own)

	own.Run("ip", "link", "set", "eth0", "down")
	own.Run("ip", "link", "set", "eth0", "name", "lan0") // found all the same
	if err := w.Ready(); err != nil {
		t.Fatal(err)
	}
	b.cancel()
	bounded(t, w.Stop())
	w.exit()
	if err := b.wait(); err != nil {
		t.Error(err)
	}
	mustLack(t, own.Run("ip", "-o", "link"), "eth0", "eth1", "lan0")
}

func changeSettings(t *testing.T, w *worker, own *netnstest.NS) {
	t.Helper()
	set := keeper.SetRequest{Name: "c1", MTU: 1300, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.9/24")}}
	if p, err := w.Set(set); err != nil || p.MTU != 1300 {
		t.Errorf("got %+v, %v, want MTU 1300", p, err)
	}
	got := own.Run("ip", "addr", "show", "eth0")
	mustShow(t, got, "mtu 1300", "10.1.0.9/24")
	mustLack(t, got, "10.1.0.2/24")
	mustLack(t, own.Run("ip", "route"), "default")
	if p, err := w.Set(keeper.SetRequest{Name: "c2", MTU: 1200}); err != nil || p.MTU != 1200 {
		t.Errorf("got %+v, %v, want MTU 1200", p, err)
	}
	down := false
	if _, err := w.Set(keeper.SetRequest{Name: "c2", Up: &down}); err != nil {
		t.Error(err)
	}
	mustShow(t, own.Run("ip", "link", "show", "eth1"), "state DOWN", "mtu 1200")
}

func refuse(t *testing.T, w *worker, c1 keeper.PortRequest, own *netnstest.NS) {
	t.Helper()
	absent := c1
	absent.Name, absent.Netns = "c9", "no-such-namespace"
	if _, _, err := w.Open(absent); code(err) != keeper.CodeNotFound {
		t.Errorf("got %v, want %s", err, keeper.CodeNotFound)
	}
	other := c1
	other.Name = "c8" // the interface is c1's
	if _, _, err := w.Open(other); code(err) != keeper.CodeConflict || !strings.Contains(err.Error(), "c1") {
		t.Errorf("got %v, want a conflict that names the owner", err)
	}
	reused := c1
	reused.Name, reused.Ifname, reused.NetnsID = "c7", "eth7", own.Inode()+1
	if _, _, err := w.Open(reused); code(err) != keeper.CodeNotFound {
		t.Errorf("got %v, want that the namespace is another one", err)
	}
}
