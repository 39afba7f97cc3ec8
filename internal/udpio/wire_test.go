package udpio_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/udpio"
)

// underlay is two namespaces joined by a veth, v in both: 192.0.2.1 and
// 2001:db8::1 in a, .2 and ::2 in b.
type underlay struct {
	t    *testing.T
	a, b *netnstest.NS
}

func newUnderlay(t *testing.T) *underlay {
	t.Helper()
	netnstest.Require(t, "netns", "ip", "ethtool")
	u := &underlay{t: t, a: netnstest.New(t), b: netnstest.New(t)}
	u.a.Run("ip", "link", "add", "v", "type", "veth", "peer", "name", "v", "netns", u.b.Name())
	for i, ns := range []*netnstest.NS{u.a, u.b} {
		ns.Run("ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "v")
		ns.Run("ip", "addr", "add", fmt.Sprintf("2001:db8::%d/64", i+1), "dev", "v", "nodad")
		ns.Run("ip", "link", "set", "v", "up")
	}
	return u
}

// link sends from a to b.
func (u *underlay) link(local, to string, noChecksum bool) *link {
	u.t.Helper()
	l := &link{t: u.t, s: udpio.NewSender()}
	u.a.Do(func() error {
		l.sock = sender(u.t, udpio.SenderOptions{Local: netip.MustParseAddr(local), NoChecksum: noChecksum})
		return nil
	})
	u.b.Do(func() error {
		l.r = receiver(u.t, netip.AddrPortFrom(netip.MustParseAddr(to), 4789))
		return nil
	})
	l.d = udpio.NewDest(l.r.Addr())
	return l
}

// TestVeth sends runs over a veth, which carries them whole or, without
// offloads, cut and put together again.
func TestVeth(t *testing.T) {
	u := newUnderlay(t)
	for _, offloads := range []string{"on", "off"} {
		u.a.Run("ethtool", "-K", "v", "tx", offloads)
		for _, c := range []struct{ local, to string }{{"0.0.0.0", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
			t.Run(c.to+" tx "+offloads, func(t *testing.T) {
				l := (&underlay{t, u.a, u.b}).link(c.local, c.to, false)
				for round := range 4 {
					for i := range 100 {
						l.add([]byte(text(i, 1400)), 0x0b, i)
					}
					l.flush()
					for i, h := range receive(t, l.r, 100) {
						if h.Data != text(i, 1400) || h.TOS != 0x0b {
							t.Fatalf("round %d, datagram %d: %.9q…, TOS %#x", round, i, h.Data, h.TOS)
						}
					}
				}
				if !l.d.GSO() {
					t.Error("UDP_SEGMENT was refused")
				}
			})
		}
	}
}

// TestNeverFragmented sends what fits exactly and one octet more. A path MTU
// that the kernel believes in is not believed.
func TestNeverFragmented(t *testing.T) {
	u := newUnderlay(t)
	u.a.Run("ip", "route", "add", "192.0.2.2", "dev", "v", "mtu", "1000")
	u.a.Run("ip", "route", "add", "2001:db8::2", "dev", "v", "mtu", "1300")
	for _, c := range []struct {
		local, to string
		fits      int
	}{{"0.0.0.0", "192.0.2.2", 1472}, {"::", "2001:db8::2", 1452}} {
		t.Run(c.to, func(t *testing.T) {
			l := (&underlay{t, u.a, u.b}).link(c.local, c.to, false)
			for i, size := range []int{c.fits, c.fits, c.fits + 1, c.fits + 1, c.fits + 1, 40, 9000, c.fits} {
				l.add(make([]byte, size), 0, i)
			}
			failed := l.s.Flush()
			want := []udpio.Failure{
				{Tag: 2, Count: 1, Errno: unix.EMSGSIZE}, {Tag: 3, Count: 1, Errno: unix.EMSGSIZE},
				{Tag: 4, Count: 1, Errno: unix.EMSGSIZE}, {Tag: 6, Count: 1, Errno: unix.EMSGSIZE},
			}
			if diff := cmp.Diff(want, failed); diff != "" {
				t.Error("-want +got\n", diff)
			}
			if !l.d.GSO() {
				t.Error("a datagram too large was taken for a refusal of UDP_SEGMENT")
			}
			for i, h := range receive(t, l.r, 4) {
				if want := []int{c.fits, c.fits, 40, c.fits}[i]; len(h.Data) != want {
					t.Errorf("datagram %d has %d octets, want %d", i, len(h.Data), want)
				}
			}
		})
	}
}

// TestOuterHeader reads from the wire what nobody sees at a socket.
func TestOuterHeader(t *testing.T) {
	netnstest.Require(t, "packet")
	u := newUnderlay(t)
	u.a.Run("ethtool", "-K", "v", "tx", "off") // the kernel itself completes checksums
	for _, c := range []struct {
		local, to  string
		noChecksum bool
	}{
		{local: "0.0.0.0", to: "192.0.2.2"},
		{local: "0.0.0.0", to: "192.0.2.2", noChecksum: true},
		{local: "::", to: "2001:db8::2"},
	} {
		t.Run(fmt.Sprintf("%s checksum off %v", c.to, c.noChecksum), func(t *testing.T) {
			l := (&underlay{t, u.a, u.b}).link(c.local, c.to, c.noChecksum)
			tap := listen(t, u.b, l.d.IPv6())
			const tos, n = 0xba, 5
			for i := range n {
				l.add([]byte(text(i, 500)), tos, i)
			}
			l.flush()
			for i := range n {
				checkOuter(t, tap.next(), l, tos, c.noChecksum, text(i, 500))
			}
		})
	}
}

func checkOuter(t *testing.T, p gopacket.Packet, l *link, tos uint8, noChecksum bool, payload string) {
	t.Helper()
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		if ip.TTL != 64 || ip.TOS != tos || ip.Flags != layers.IPv4DontFragment || ip.FragOffset != 0 {
			t.Errorf("TTL %d, TOS %#x, flags %v, offset %d; want 64, %#x, DF, 0", ip.TTL, ip.TOS, ip.Flags, ip.FragOffset, tos)
		}
	case *layers.IPv6:
		if ip.HopLimit != 64 || ip.TrafficClass != tos || ip.NextHeader != layers.IPProtocolUDP {
			t.Errorf("hop limit %d, traffic class %#x, next header %v; want 64, %#x, UDP", ip.HopLimit, ip.TrafficClass, ip.NextHeader, tos)
		}
	}
	udp := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if uint16(udp.SrcPort) != l.sock.Addr().Port() || udp.DstPort != 4789 || string(udp.Payload) != payload {
		t.Errorf("port %d to %d, payload %.9q…; want %d, 4789, %.9q…", udp.SrcPort, udp.DstPort, udp.Payload, l.sock.Addr().Port(), payload)
	}
	if noChecksum {
		if udp.Checksum != 0 {
			t.Errorf("checksum %#x, want 0", udp.Checksum)
		}
		return
	}
	if err := udp.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
		t.Fatal(err)
	}
	b := gopacket.NewSerializeBuffer()
	was := udp.Checksum
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{ComputeChecksums: true}, udp, gopacket.Payload(udp.Payload))
	if err != nil || was == 0 || udp.Checksum != was {
		t.Errorf("checksum %#x, want %#x, error %v", was, udp.Checksum, err)
	}
}

// listener reads UDP packets from the veth in b.
type listener struct {
	t    *testing.T
	fd   int
	ipv6 bool
}

func listen(t *testing.T, ns *netnstest.NS, ipv6 bool) *listener {
	t.Helper()
	l := &listener{t: t, ipv6: ipv6}
	proto := uint16(unix.ETH_P_IP)
	if ipv6 {
		proto = unix.ETH_P_IPV6
	}
	ns.Do(func() (err error) {
		l.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto>>8|proto<<8))
		return err
	})
	t.Cleanup(func() { unix.Close(l.fd) })
	return l
}

func (l *listener) next() gopacket.Packet {
	l.t.Helper()
	b := make([]byte, 2000)
	for readable(l.t, l.fd, 5000) {
		n, err := unix.Read(l.fd, b)
		if err != nil {
			l.t.Fatal(err)
		}
		first := layers.LayerTypeIPv4
		if l.ipv6 {
			first = layers.LayerTypeIPv6
		}
		p := gopacket.NewPacket(b[:n], first, gopacket.Lazy)
		if udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); ok && udp.DstPort == 4789 {
			return p
		}
	}
	l.t.Fatal("no packet came")
	return nil
}

// TestQueueFull has the egress queue drop: each datagram arrives or is told.
func TestQueueFull(t *testing.T) {
	netnstest.Require(t, "tc")
	u := newUnderlay(t)
	u.a.Run("tc", "qdisc", "add", "dev", "v", "root", "tbf", "rate", "100mbit", "burst", "3000", "limit", "6000")
	for _, local := range []string{"0.0.0.0", "::"} {
		to := "192.0.2.2"
		if strings.Contains(local, ":") {
			to = "2001:db8::2"
		}
		l := u.link(local, to, false)
		// What waits for the neighbour's answer is dropped later, told to nobody.
		l.add([]byte("who has"), 0, 0)
		l.flush()
		receive(t, l.r, 1)
		const n = 200
		for i := range n {
			l.add(make([]byte, 1000+i%2), 0, i) // in runs of two
		}
		lost := 0
		for _, f := range l.s.Flush() {
			if f.Errno != unix.ENOBUFS {
				t.Errorf("refused: %+v", f)
			}
			lost += f.Count
		}
		if lost == 0 || lost == n {
			t.Errorf("%s: %d of %d refused, want some", to, lost, n)
		}
		receive(t, l.r, n-lost)
		l.r.Close()
	}
}

// TestSocketFull fills the socket's own buffer.
func TestSocketFull(t *testing.T) {
	netnstest.Require(t, "tc")
	u := newUnderlay(t)
	u.a.Run("tc", "qdisc", "add", "dev", "v", "root", "tbf", "rate", "8mbit", "burst", "3000", "limit", "1000000")
	l := u.link("0.0.0.0", "192.0.2.2", false)
	if err := unix.SetsockoptInt(l.sock.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, 20000); err != nil {
		t.Fatal(err)
	}
	const n = 60
	for i := range n {
		l.add(make([]byte, 1000+i%2), 0, i)
	}
	lost := 0
	for _, f := range l.s.Flush() {
		if f.Errno != unix.EAGAIN {
			t.Errorf("refused: %+v", f)
		}
		lost += f.Count
	}
	if lost == 0 || lost == n {
		t.Errorf("%d of %d refused, want some", lost, n)
	}
	receive(t, l.r, n-lost)
}

// TestAddressChange takes the address away, then the link, and gives each back.
func TestAddressChange(t *testing.T) {
	u := newUnderlay(t)
	l := u.link("0.0.0.0", "192.0.2.2", false)
	say := func(want string) {
		t.Helper()
		for i := range 3 {
			l.add([]byte(text(i, 100)), 0, i)
		}
		failed := l.s.Flush()
		if want == "" {
			if len(failed) != 3 {
				t.Errorf("%d refused, want 3: %+v", len(failed), failed)
			}
			return
		}
		if len(failed) > 0 {
			t.Errorf("refused: %+v", failed)
		}
		for _, h := range receive(t, l.r, 3) {
			if h.From.Addr().String() != want {
				t.Errorf("from %v, want %s", h.From, want)
			}
		}
	}
	say("192.0.2.1")
	u.a.Run("ip", "addr", "del", "192.0.2.1/24", "dev", "v")
	say("")
	u.a.Run("ip", "addr", "add", "192.0.2.7/24", "dev", "v")
	say("192.0.2.7")
	u.a.Run("ip", "link", "set", "v", "down")
	say("")
	u.a.Run("ip", "link", "set", "v", "up")
	say("192.0.2.7")
	if !l.d.GSO() {
		t.Error("an unreachable peer was taken for a refusal of UDP_SEGMENT")
	}
}
