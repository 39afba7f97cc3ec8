package tunnel_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/udpio"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/tap"
	"github.com/tapestry-net/tapestry/tunnel"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

const patience = 10 * time.Second

// until yields until ok, or fails the test.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// host is a switch with one network, blue: VID 10, VNI 10010. Port 1 is local,
// peers follow.
type host struct {
	t     testing.TB
	ns    *netnstest.NS // of the underlay, nil = the test's own
	tun   *tunnel.Tunnel
	sw    *vswitch.Switch
	table *fdb.Table
	nets  []tunnel.Network
	local vswitch.Port
	peers []tunnel.PeerSpec

	reserved vxlan.Mode
}

const (
	blue    frame.VID = 10
	blueVNI vxlan.VNI = 10010
)

// newHost listens on at in namespace ns.
func newHost(t testing.TB, ns *netnstest.NS, at string, local vswitch.Queue, edit func(*tunnel.Options)) *host {
	t.Helper()
	h := &host{t: t, ns: ns, nets: []tunnel.Network{{VID: blue, VNI: blueVNI}}, table: newTable(t)}
	o := tunnel.Options{Open: func(so udpio.SenderOptions) (fd int, err error) {
		err = h.within(func() error { fd, err = udpio.OpenSender(so); return err })
		return fd, err
	}}
	if err := h.within(func() (err error) { o.Socket, err = udpio.OpenReceiver(netip.MustParseAddrPort(at)); return err }); err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(&o)
	}
	var err error
	if h.tun, err = tunnel.New(o); err != nil {
		t.Fatal(err)
	}
	if h.sw, err = vswitch.New(vswitch.Options{FDB: h.table, Loops: 1}); err != nil {
		t.Fatal(err)
	}
	h.local = vswitch.Port{ID: 1, Name: "local", Queue: local, Native: blue}
	t.Cleanup(func() {
		if err := errors.Join(h.sw.Close(), h.tun.Close()); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *host) within(f func() error) error {
	if h.ns == nil {
		return f()
	}
	return h.ns.Handle.Do(f)
}

func newTable(t testing.TB) *fdb.Table {
	t.Helper()
	const limit = 1 << 12
	words := make([]uint64, fdb.Size(limit)/8+1)
	table, err := fdb.Open(unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), fdb.Size(limit)), limit)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// peer adds a peer and returns its port.
func (h *host) peer(at string, vids ...frame.VID) frame.PortID {
	h.t.Helper()
	if vids == nil {
		vids = []frame.VID{blue}
	}
	id := frame.PortID(2 + len(h.peers))
	h.peers = append(h.peers, tunnel.PeerSpec{ID: id, Name: fmt.Sprintf("peer%d", id), Address: netip.MustParseAddrPort(at), VIDs: vids})
	h.apply()
	return id
}

// apply makes tunnel and switch be as the host says.
func (h *host) apply() {
	h.t.Helper()
	if err := h.tun.Apply(tunnel.Spec{Networks: h.nets, Peers: h.peers, Reserved: h.reserved}); err != nil {
		h.t.Fatal(err)
	}
	var spec vswitch.Spec
	for _, n := range h.nets {
		spec.Networks = append(spec.Networks, vswitch.Network{Name: fmt.Sprint("vlan", n.VID), VID: n.VID, MTU: n.MTU})
	}
	spec.Ports = append(spec.Ports, h.local)
	for _, p := range h.peers {
		spec.Ports = append(spec.Ports, vswitch.Port{
			ID: p.ID, Name: p.Name, Queue: h.tun.Peer(p.ID), Tagged: p.VIDs, Group: tunnel.Group, OwnMTU: true,
		})
	}
	for _, r := range h.tun.Receivers() {
		spec.Receivers = append(spec.Receivers, r)
	}
	if err := h.sw.Apply(spec); err != nil {
		h.t.Fatal(err)
	}
}

// conserve waits until the law of conservation holds, tunnel included: counters
// are published batch by batch.
func (h *host) conserve() {
	h.t.Helper()
	until(h.t, "the law of conservation to hold", h.conserves)
}

func (h *host) conserves() bool {
	s := h.sw.Stats()
	var verdicts, drops, ports, refused uint64
	for _, n := range s.Verdicts {
		verdicts += n
	}
	for _, n := range s.Drops {
		drops += n
	}
	for id := range len(h.peers) + 1 {
		p, _ := h.sw.PortStats(frame.PortID(id + 1))
		for _, n := range p.Drops {
			ports += n
		}
	}
	for _, st := range h.tun.Status() {
		for _, n := range st.Drops {
			ports += n
		}
	}
	for _, n := range h.tun.Refused() {
		refused += n
	}
	var strangers uint64
	for _, n := range h.tun.Strangers() {
		strangers += n
	}
	return s.RxFrames == verdicts && s.Decided == s.Sent+s.Refused && drops == s.Verdicts[frame.Drop]+s.Refused &&
		ports+strangers == drops+refused
}

// underlay joins two namespaces by a veth of that MTU.
func underlay(t testing.TB, mtu int) (a, b *netnstest.NS) {
	t.Helper()
	netnstest.Require(t, "netns", "tun", "ip")
	a, b = netnstest.New(t), netnstest.New(t)
	a.Run("ip", "link", "add", "u0", "mtu", fmt.Sprint(mtu), "type", "veth", "peer", "name", "u0", "mtu", fmt.Sprint(mtu), "netns", b.Name())
	for i, ns := range []*netnstest.NS{a, b} {
		ns.Run("ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "u0")
		ns.Run("ip", "-6", "addr", "add", fmt.Sprintf("2001:db8::%d/64", i+1), "dev", "u0", "nodad")
		ns.Run("ip", "link", "set", "u0", "up")
	}
	return a, b
}

// container is a namespace with a TAP, station n of the overlay.
func container(t testing.TB, n byte, mtu int) (*netnstest.NS, *tap.Queue) {
	t.Helper()
	ns := netnstest.New(t)
	d, err := tap.Open(ns.Handle, tap.Request{
		Name: "eth0", Owner: link.Owner{Instance: "tunneltest", Port: fmt.Sprint("c", n)},
		Settings: link.Settings{MTU: mtu, Up: true, MAC: frame.MAC{2, 0, 0, 0, 0, n}, Addresses: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, n}), 24),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 15: n}), 64),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	q, err := tap.NewQueue(d.FD, d.VNetHdr, d.Offloads)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return ns, q
}

// transfer sends n octets from a to addr in b by TCP, and back.
func transfer(a, b *netnstest.NS, addr string, n int) error {
	var l net.Listener
	if err := b.Handle.Do(func() (err error) { l, err = net.Listen("tcp", addr); return err }); err != nil {
		return err
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	var c net.Conn
	if err := a.Handle.Do(func() error { return dial(addr, &c) }); err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	want := make([]byte, n)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent); err != nil {
		return fmt.Errorf("%d octets came back: %w", len(got), err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d other octets come back", len(got))
	}
	return nil
}

// dial makes the socket on the calling thread, where net.Dial might use another.
func dial(addr string, out *net.Conn) error {
	ap := netip.MustParseAddrPort(addr)
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()})
	if ap.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), addr)
	defer f.Close()
	tv := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return err
	}
	if err := unix.Connect(fd, sa); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	*out, err = net.FileConn(f)
	return err
}
