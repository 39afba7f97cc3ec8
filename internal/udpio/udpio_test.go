package udpio_test

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/internal/udpio"
)

// text is n octets that differ from those of other datagrams.
func text(i, n int) string {
	s := strings.Repeat(string(rune('a'+i%26)), n)
	if n > 0 {
		s = string(rune('A'+i/26%26)) + s[1:]
	}
	return s
}

// longest is the longest payload that the loopback's MTU of 65536 takes.
var longest = map[bool]int{false: 65507, true: 65536 - 40 - 8} // by IPv6

func TestSendReceive(t *testing.T) {
	for _, c := range []struct {
		name, listen, to, local string
		noChecksum              bool
	}{
		{name: "IPv4", listen: "127.0.0.1", to: "127.0.0.1", local: "127.0.0.1"},
		{name: "IPv4 unspecified", listen: "0.0.0.0", to: "127.0.0.1", local: "0.0.0.0"},
		{name: "IPv4 without checksum", listen: "127.0.0.1", to: "127.0.0.1", local: "127.0.0.1", noChecksum: true},
		{name: "IPv6", listen: "::1", to: "::1", local: "::1"},
		{name: "IPv6 unspecified", listen: "::", to: "::1", local: "::"},
		{name: "IPv4 to IPv6 socket", listen: "::", to: "127.0.0.1", local: "0.0.0.0"},
		{name: "mapped address", listen: "::", to: "::ffff:127.0.0.1", local: "0.0.0.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := receiver(t, netip.AddrPortFrom(netip.MustParseAddr(c.listen), 0))
			const slot = 200
			sock := sender(t, udpio.SenderOptions{Local: netip.MustParseAddr(c.local), Slot: slot, NoChecksum: c.noChecksum})
			port := sock.Addr().Port()
			if lo := uint16(49152 + slot*64); port < lo || port >= lo+64 {
				t.Errorf("source port %d, want %d to %d", port, lo, lo+63)
			}
			d := udpio.NewDest(netip.AddrPortFrom(netip.MustParseAddr(c.to), r.Addr().Port()))
			l := &link{t: t, r: r, sock: sock, d: d, s: udpio.NewSender()}
			from := netip.AddrPortFrom(netip.MustParseAddr(c.to).Unmap(), port)
			var want []heard
			for i, size := range []int{0, 1, 8, 22, 60, 1400, 1401, 9000, longest[d.IPv6()]} {
				for k, tos := range []uint8{0, 0xb8, 0x03} {
					w := heard{from, text(i*3+k, size), tos, 64}
					l.add([]byte(w.Data), tos, 0)
					want = append(want, w)
				}
			}
			l.flush()
			for i, got := range receive(t, r, len(want)) {
				if w := want[i]; got != w {
					t.Errorf("datagram %d: from %v, %d octets %.9q…, TOS %#x, TTL %d; want %v, %d octets %.9q…, %#x, %d", i,
						got.From, len(got.Data), got.Data, got.TOS, got.TTL, w.From, len(w.Data), w.Data, w.TOS, w.TTL)
				}
			}
		})
	}
}

// TestOrder sends random runs over one socket, with and without UDP_SEGMENT:
// what comes out is what went in, in that order.
func TestOrder(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		l := newLink(t, addr, udpio.SenderOptions{})
		l2 := *l
		l2.sock = sender(t, udpio.SenderOptions{Local: netip.MustParseAddr(addr), Slot: 1})
		rapid.Check(t, func(rt *rapid.T) {
			size := rapid.SampledFrom([]int{0, 1, 30, 31, 60, 286, 287, 1400, 9000, longest[l.d.IPv6()], 65508})
			n := rapid.IntRange(1, 200).Draw(rt, "datagrams")
			total, same, tooLarge := 0, 0, 0
			var want [2][]string
			for i := range n {
				if same--; same <= 0 {
					same = rapid.IntRange(1, 70).Draw(rt, "run")
				}
				s := size.Draw(rt, "size")
				if total += s; total > 4<<20 {
					break
				}
				x := rapid.IntRange(0, 1).Draw(rt, "socket")
				tos := uint8(rapid.IntRange(0, 9).Draw(rt, "tos") / 9)
				if s <= 65507 {
					want[x] = append(want[x], text(i, s))
				} else {
					tooLarge++
				}
				[]*link{l, &l2}[x].add([]byte(text(i, s)), tos, i)
			}
			f := l.s.Flush()
			if len(f) != tooLarge || tooLarge > 0 && f[0].Errno != unix.EMSGSIZE {
				rt.Fatalf("%d refused, want %d: %+v", len(f), tooLarge, f)
			}
			var got [2][]string
			for _, h := range receive(t, l.r, len(want[0])+len(want[1])) {
				x := 0
				if h.From.Port() == l2.sock.Addr().Port() {
					x = 1
				}
				got[x] = append(got[x], h.Data)
			}
			if !slices.Equal(got[0], want[0]) || !slices.Equal(got[1], want[1]) {
				rt.Fatalf("got %d and %d datagrams in another order or with other octets", len(got[0]), len(got[1]))
			}
		})
	}
}

// TestRuns looks at how datagrams are put together.
func TestRuns(t *testing.T) {
	for _, c := range []struct {
		name  string
		sizes []int
		want  [][2]int // octets and size of each message
	}{
		{"equal", slices.Repeat([]int{1400}, 40), [][2]int{{56000, 1400}}},
		{"more than 64", slices.Repeat([]int{60}, 65), [][2]int{{3840, 60}, {60, 60}}},
		{"more than 65507 octets", slices.Repeat([]int{1400}, 47), [][2]int{{64400, 1400}, {1400, 1400}}},
		{"shorter one last", []int{100, 100, 40, 100}, [][2]int{{240, 100}, {100, 100}}},
		{"longer one begins anew", []int{100, 100, 101}, [][2]int{{200, 100}, {101, 101}}},
		{"empty ones alone", []int{0, 0, 50, 0}, [][2]int{{0, 0}, {0, 0}, {50, 50}, {0, 0}}},
	} {
		l := newLink(t, "127.0.0.1", udpio.SenderOptions{})
		for i, n := range c.sizes {
			l.add([]byte(text(i, n)), 0, i)
		}
		l.flush()
		var got [][2]int
		for len(got) < len(c.want) && readable(t, l.r.FD(), 5000) {
			in, err := l.r.Receive()
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range in {
				got = append(got, [2]int{len(d.Data), d.Size})
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", c.name, diff)
		}
	}
}

// TestFallback makes the kernel refuse UDP_SEGMENT, as an egress that can't
// complete checksums does: nothing is lost, and the Dest remembers.
func TestFallback(t *testing.T) {
	l := newLink(t, "127.0.0.1", udpio.SenderOptions{})
	if err := unix.SetsockoptInt(l.sock.FD(), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for i := range 70 {
			l.add([]byte(text(i, 200)), 0, i)
		}
		l.flush()
		for i, h := range receive(t, l.r, 70) {
			if h.Data != text(i, 200) {
				t.Fatalf("datagram %d is %.9q…", i, h.Data)
			}
		}
		if l.d.GSO() {
			t.Error("the refusal was not noticed")
		}
	}
	l.d.Reprobe()
	if !l.d.GSO() {
		t.Error("Reprobe did not forget")
	}
}

// TestDeferredErrors has every datagram to a closed port answered by an ICMP
// error on the socket that others are sent from: none of the others is lost.
func TestDeferredErrors(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		l := newLink(t, addr, udpio.SenderOptions{})
		shut := receiver(t, netip.AddrPortFrom(netip.MustParseAddr(addr), 0))
		closed := *l
		closed.d = udpio.NewDest(shut.Addr())
		shut.Close()
		for i := range 100 {
			closed.add([]byte("nobody"), 0, 1000+i)
			l.add([]byte(text(i, 50)), 0, i)
			if i%3 == 0 {
				for _, f := range l.s.Flush() {
					t.Errorf("%s: refused: %+v", addr, f)
				}
			}
		}
		l.flush()
		for i, h := range receive(t, l.r, 100) {
			if h.Data != text(i, 50) {
				t.Fatalf("%s: datagram %d is %q", addr, i, h.Data)
			}
		}
	}
}

func TestTooLarge(t *testing.T) {
	l := newLink(t, "127.0.0.1", udpio.SenderOptions{})
	l.add(make([]byte, 65508), 0, 1)
	copy(l.s.Begin(l.sock, l.d, 0, 2), "ok")
	for range udpio.MaxPieces + 1 {
		l.s.Payload([]byte("x"))
	}
	l.s.End(2)
	l.add([]byte("fits"), 0, 3)
	want := []udpio.Failure{{Tag: 1, Count: 1, Errno: unix.EMSGSIZE}, {Tag: 2, Count: 1, Errno: unix.EMSGSIZE}}
	if diff := cmp.Diff(want, l.s.Flush()); diff != "" {
		t.Error("-want +got\n", diff)
	}
	if f := l.s.Flush(); f != nil {
		t.Errorf("failures told twice: %+v", f)
	}
	if got := receive(t, l.r, 1); got[0].Data != "fits" {
		t.Errorf("got %q", got[0].Data)
	}
}

func TestNoRoute(t *testing.T) {
	l := newLink(t, "127.0.0.1", udpio.SenderOptions{Local: netip.MustParseAddr("0.0.0.0")})
	away := *l
	away.d = udpio.NewDest(netip.MustParseAddrPort("192.0.2.1:4789"))
	for range 3 {
		away.add([]byte("lost"), 0, 5)
		l.add([]byte("kept"), 0, 6)
		want := []udpio.Failure{{Tag: 5, Count: 1, Errno: unix.ENETUNREACH}}
		if diff := cmp.Diff(want, l.s.Flush()); diff != "" {
			t.Error("-want +got\n", diff)
		}
		receive(t, l.r, 1)
	}
}

// TestMemory overflows a small buffer: what was sent is received or counted.
func TestMemory(t *testing.T) {
	l := newLink(t, "127.0.0.1", udpio.SenderOptions{NoChecksum: true}) // each a message
	if err := unix.SetsockoptInt(l.r.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<14); err != nil {
		t.Fatal(err)
	}
	const sent = 500
	for i := range sent {
		l.add(make([]byte, 100), 0, i)
	}
	l.flush()
	received, dropped := 0, 0
	for end := time.Now().Add(10 * time.Second); received+dropped < sent && time.Now().Before(end); {
		in, err := l.r.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for i := range in {
			received += in[i].Segments()
		}
		m, err := l.r.Memory()
		if err != nil {
			t.Fatal(err)
		}
		dropped = int(m.Dropped)
		if m.Buffer != 1<<14 {
			t.Errorf("buffer of %d octets, want %d", m.Buffer, 1<<14)
		}
	}
	if received+dropped != sent || received == 0 || dropped == 0 {
		t.Errorf("%d received and %d dropped of %d, want some of each", received, dropped, sent)
	}
}

// TestDeaf sends to a sending socket: nothing stays there.
func TestDeaf(t *testing.T) {
	l := newLink(t, "127.0.0.1", udpio.SenderOptions{})
	to := *l
	to.d = udpio.NewDest(sender(t, udpio.SenderOptions{Local: netip.MustParseAddr("127.0.0.1"), Slot: 9}).Addr())
	to.sock = l.sock
	to.add([]byte("hello"), 0, 0)
	to.add([]byte("hello, you"), 0, 0)
	to.flush()
	// The loopback delivers before send returns.
	other, err := udpio.NewReceiver(l.sock.FD())
	if err != nil {
		t.Fatal(err)
	}
	if in, err := other.Receive(); len(in) != 0 || err != nil {
		t.Errorf("received %d, error %v", len(in), err)
	}
}

func TestOpenErrors(t *testing.T) {
	lo, lo6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	for _, o := range []udpio.SenderOptions{
		{},
		{Local: lo, Slot: -1},
		{Local: lo, Slot: udpio.Slots},
		{Local: lo6, NoChecksum: true},
		{Local: netip.MustParseAddr("192.0.2.9")},
	} {
		if fd, err := udpio.OpenSender(o); err == nil {
			unix.Close(fd)
			t.Errorf("%+v opened", o)
		}
	}
	r := receiver(t, netip.AddrPortFrom(lo, 0))
	if _, err := udpio.OpenReceiver(r.Addr()); err == nil || !strings.Contains(err.Error(), r.Addr().String()) {
		t.Errorf("second receiver: %v", err)
	}
	if _, err := udpio.NewReceiver(-1); err == nil {
		t.Error("receiver of no descriptor")
	}
	if _, err := udpio.NewSocket(-1); err == nil {
		t.Error("socket of no descriptor")
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestStratumFull opens all ports of a slot, and then one more.
func TestStratumFull(t *testing.T) {
	seen := map[uint16]bool{}
	for range 64 {
		seen[sender(t, udpio.SenderOptions{Local: netip.MustParseAddr("::1"), Slot: 255}).Addr().Port()] = true
	}
	if len(seen) != 64 || !seen[65535] {
		t.Errorf("%d ports, 65535 among them %v; want 64, true", len(seen), seen[65535])
	}
	if _, err := udpio.OpenSender(udpio.SenderOptions{Local: netip.MustParseAddr("::1"), Slot: 255}); err == nil {
		t.Error("a 65th port of 64")
	}
}

func TestProbe(t *testing.T) {
	f, err := udpio.Probe()
	if want := (udpio.Features{Segment: true, GRO: true}); err != nil || f != want {
		t.Errorf("Probe = %+v, %v; want %+v on Linux 5.0 and later", f, err, want)
	}
}

// TestOpenBeside opens sockets where the caller has one, which nobody else can,
// and hears what comes when the former one is closed.
func TestOpenBeside(t *testing.T) {
	first, err := udpio.OpenReceiver(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := udpio.NewReceiver(first)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	port := r.Addr().Port()
	for _, at := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified(), netip.MustParseAddr("127.0.0.1")} {
		to := netip.AddrPortFrom(at, port)
		if fd, err := udpio.OpenReceiver(to); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%v: opened %d, %v, want it to be taken", to, fd, err)
		}
		fd, err := udpio.Open(udpio.ReceiverOptions{Listen: to, Beside: []int{r.FD()}})
		if err != nil {
			t.Fatalf("%v: %v", to, err)
		}
		next, err := udpio.NewReceiver(fd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { next.Close() })
		if fd, err := udpio.OpenReceiver(to); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%v, with two there: opened %d, %v, want it to be taken", to, fd, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = next
		c, err := net.Dial("udp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte(to.String())); err != nil {
			t.Fatal(err)
		}
		if in, err := r.Receive(); err != nil || len(in) != 1 || string(in[0].Data) != to.String() {
			t.Errorf("%v: %d datagrams, %v", to, len(in), err)
		}
	}
}

// TestOpenEarly opens sockets at addresses that nobody has.
func TestOpenEarly(t *testing.T) {
	for _, at := range []string{"192.0.2.77:0", "[2001:db8::77]:0"} {
		to := netip.MustParseAddrPort(at)
		if fd, err := udpio.OpenReceiver(to); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("%v: opened %d, %v, want no such address", to, fd, err)
		}
		fd, err := udpio.Open(udpio.ReceiverOptions{Listen: to, Early: true})
		if err != nil {
			t.Errorf("early: %v", err)
			continue
		}
		unix.Close(fd)
		if fd, err = udpio.OpenSender(udpio.SenderOptions{Local: to.Addr(), Early: true}); err != nil {
			t.Errorf("sender: %v", err)
			continue
		}
		unix.Close(fd)
	}
}
