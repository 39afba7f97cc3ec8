package tunnel_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/udpio"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
	"github.com/tapestry-net/tapestry/tunnel"
)

// end is a tunnel without a switch.
type end struct {
	*tunnel.Tunnel
	rx tunnel.Receiver
}

func newEnd(t testing.TB, addr string) *end {
	t.Helper()
	fd, err := udpio.OpenReceiver(netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	tun, err := tunnel.New(tunnel.Options{Socket: fd, Open: udpio.OpenSender, Ticks: make(chan time.Time)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tun.Close() })
	return &end{tun, tun.Receivers()[0]}
}

// meet makes peers of the end, ports 2 and up, each in network blue.
func (e *end) meet(t testing.TB, at ...netip.AddrPort) {
	t.Helper()
	s := tunnel.Spec{Networks: []tunnel.Network{{VID: blue, VNI: blueVNI}}}
	for i, a := range at {
		s.Peers = append(s.Peers, tunnel.PeerSpec{ID: frame.PortID(i + 2), Name: fmt.Sprint("p", i), Address: a, VIDs: []frame.VID{blue}})
	}
	if err := e.Apply(s); err != nil {
		t.Fatal(err)
	}
}

// outgoing is a batch of n copies of f for network blue.
func outgoing(f []byte, n int) *frame.Batch {
	b := frame.NewBatch(0)
	for range n {
		b.Frames = append(b.Frames, frame.Frame{Data: f, Push: frame.MakeTag(blue, 0, false), Copies: 1})
	}
	return b
}

// segments is how many frames of a wire f is.
func segments(f *frame.Frame) int {
	if f.GSO.Type == frame.GSONone {
		return 1
	}
	return (len(f.Data) - int(f.GSO.HdrLen) + int(f.GSO.Size) - 1) / int(f.GSO.Size)
}

// receive takes what n datagrams carried from e, in batches that it resets.
func (e *end) receive(t testing.TB, b *frame.Batch, n int) {
	for n > 0 {
		b.Reset()
		if err := e.rx.Receive(b); err != nil {
			t.Fatal(err)
		}
		for i := range b.Frames {
			n -= segments(&b.Frames[i])
		}
		if b.Len() == 0 {
			e.await(t)
		}
	}
}

// await waits until a datagram has come.
func (e *end) await(t testing.TB) {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(e.rx.FD()), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	if n == 0 && err == nil {
		t.Fatalf("no datagram comes within %v", patience)
	}
}

func pair(t testing.TB) (a, b *end) {
	t.Helper()
	a, b = newEnd(t, "127.0.0.1:0"), newEnd(t, "127.0.0.2:0")
	a.meet(t, b.Listen())
	b.meet(t, a.Listen())
	return a, b
}

// TestTransmit asserts that neither encapsulating nor sending allocates, nor
// receiving, cutting and admitting: TestReceive is the same journey.
func TestTransmit(t *testing.T) {
	a, b := pair(t)
	p := a.Peer(2)
	into := frame.NewBatch(1 << 18)
	for name, out := range map[string]*frame.Batch{
		"small": outgoing(hello, 64),
		"long":  outgoing(switchtest.UDPFrame(alice, bob, switchtest.Pattern(1300)), 40),
	} {
		if n := testing.AllocsPerRun(50, func() {
			if sent, err := p.Transmit(out); sent != out.Len() || err != nil {
				t.Fatalf("sent %d of %d: %v", sent, out.Len(), err)
			}
			b.receive(t, into, out.Len())
		}); n != 0 {
			t.Errorf("%s frames there: %v allocations, want 0", name, n)
		}
	}
	a.Hush()
	big := outgoing(tooLong(alice, bob, 1), 1)
	if n := testing.AllocsPerRun(50, func() {
		big.Frames[0].Refused = false
		if sent, _ := p.Transmit(big); sent != 0 || big.Frames[0].Why != frame.MTUExceeded {
			t.Fatalf("sent %d, %v", sent, big.Frames[0].Why)
		}
	}); n != 0 {
		t.Errorf("a frame that doesn't fit: %v allocations, want 0", n)
	}
}

// TestReceiveRefuses asserts that a flood of strangers and of bad datagrams
// allocates nothing.
func TestReceiveRefuses(t *testing.T) {
	a, b := pair(t)
	bad := tunnel.Spec{Networks: []tunnel.Network{{VID: blue, VNI: 99}}}
	bad.Peers = []tunnel.PeerSpec{{ID: 2, Name: "p0", Address: a.Listen(), VIDs: []frame.VID{blue}}}
	if err := b.Apply(bad); err != nil {
		t.Fatal(err)
	}
	out, into := outgoing(hello, 64), frame.NewBatch(0)
	var sent uint64
	if n := testing.AllocsPerRun(50, func() {
		_, _ = a.Peer(2).Transmit(out)
		sent += 64
		for end := time.Now().Add(patience); refused(b) < sent; {
			_ = b.rx.Receive(into)
			if time.Now().After(end) {
				t.Fatalf("%d of %d datagrams refused within %v", refused(b), sent, patience)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func refused(e *end) uint64 { return e.UnknownVNIs() }

// BenchmarkTunnel is one frame from Transmit to Receive over the loopback.
func BenchmarkTunnel(b *testing.B) {
	for _, size := range []int{18, 1358} {
		b.Run(fmt.Sprintf("%dB/batch64", size+42), func(b *testing.B) {
			from, to := pair(b)
			out, into := outgoing(switchtest.Padded(switchtest.UDPFrame(alice, bob, switchtest.Pattern(size))), 64), frame.NewBatch(1<<18)
			b.SetBytes(int64(size + 42))
			b.ReportAllocs()
			for i := 0; i < b.N; i += 64 {
				if n, err := from.Peer(2).Transmit(out); n < 64 {
					b.Fatal(n, err)
				}
				to.receive(b, into, 64)
			}
		})
	}
}

// BenchmarkFlood is one copy of a broadcast to one of many peers.
func BenchmarkFlood(b *testing.B) {
	for _, n := range []int{1, 64, 1000} {
		b.Run(fmt.Sprint(n, "peers"), func(b *testing.B) {
			e := newEnd(b, "127.0.0.1:0")
			sink, err := udpio.OpenReceiver(netip.MustParseAddrPort("0.0.0.0:0")) // stands for all peers
			if err != nil {
				b.Fatal(err)
			}
			defer unix.Close(sink)
			name, err := unix.Getsockname(sink)
			if err != nil {
				b.Fatal(err)
			}
			port := uint16(name.(*unix.SockaddrInet4).Port)
			var at []netip.AddrPort
			for i := range n {
				at = append(at, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), port))
			}
			e.meet(b, at...)
			peers := make([]*tunnel.Peer, n)
			for i := range peers {
				peers[i] = e.Peer(frame.PortID(i + 2))
			}
			out := outgoing(switchtest.Padded(switchtest.ARPFrame(alice, bob.Addr)), 1)
			b.ReportAllocs()
			for i := 0; i < b.N; i++ {
				_, _ = peers[i%n].Transmit(out)
			}
		})
	}
}

// TestTransmitTo sends one broadcast to three peers, of which one can't take it,
// and a port that is no peer.
func TestTransmitTo(t *testing.T) {
	a := newEnd(t, "127.0.0.1:0")
	b, c := newEnd(t, "127.0.0.2:0"), newEnd(t, "127.0.0.3:0")
	a.meet(t, b.Listen(), c.Listen())
	b.meet(t, a.Listen())
	c.meet(t, a.Listen())
	to := []frame.PortID{2, 3, 9, 2, 3}
	other := switchtest.Padded(switchtest.UDPFrame(alice, bob, switchtest.Pattern(300)))
	out := outgoing(hello, 5)
	out.Frames[3].Data, out.Frames[4].Data = other, other
	into := frame.NewBatch(1 << 18)
	if n := testing.AllocsPerRun(20, func() {
		for i := range out.Frames {
			out.Frames[i].Refused = false
		}
		sent, err := a.TransmitTo(to, out)
		if f := &out.Frames[2]; sent != 4 || err == nil || !f.Refused || f.Why != frame.EgressDown {
			t.Fatalf("sent %d, error %v, frame to no peer %v %v; want 4, an error, refused as egress_down", sent, err, f.Refused, f.Why)
		}
		for _, e := range []*end{b, c} {
			for want := [][]byte{hello, other}; len(want) > 0; {
				into.Reset()
				e.next(t, into)
				for i := range into.Frames {
					if got := into.Frames[i].Data; string(got) != string(want[0]) {
						t.Fatalf("heard %x\nwant %x", got, want[0])
					}
					want = want[1:]
				}
			}
		}
	}); n > 1 { // the error
		t.Errorf("%v allocations, want none", n)
	}
}

// next receives what waits, at least one frame.
func (e *end) next(t testing.TB, b *frame.Batch) {
	for b.Len() == 0 {
		if err := e.rx.Receive(b); err != nil {
			t.Fatal(err)
		}
		if b.Len() == 0 {
			e.await(t)
		}
	}
}

// TestUncutBehindJoined has a run that is joined be followed by a super-frame that
// a virtual underlay carried whole: each is a frame of its own.
func TestUncutBehindJoined(t *testing.T) {
	a := newEnd(t, "127.0.0.1:0")
	from := netip.MustParseAddrPort("127.0.0.2:4789")
	a.meet(t, from)
	segment := in(blueVNI, switchtest.UDPFrame(bob, alice, switchtest.Pattern(500)))
	whole := in(blueVNI, switchtest.UDPFrame(bob, alice, switchtest.Pattern(3000)))
	b := frame.NewBatch(0)
	if err := a.ReceiveRuns(b,
		udpio.Datagram{From: from, Data: append(slices.Clone(segment), segment...), Size: len(segment)},
		udpio.Datagram{From: from, Data: slices.Clone(whole), Size: 1000},
	); err != nil {
		t.Fatal(err)
	}
	if b.Len() != 2 || segments(&b.Frames[0]) != 2 || string(b.Frames[1].Data) != string(whole[8:]) {
		t.Errorf("%d frames, the last of %d octets; want 2, of 2 segments and of %d octets", b.Len(), len(b.Frames[b.Len()-1].Data), len(whole)-8)
	}
}
