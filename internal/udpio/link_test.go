package udpio_test

import (
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/udpio"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// link is a Sender and a Receiver that hear each other.
type link struct {
	t    testing.TB
	r    *udpio.Receiver
	sock *udpio.Socket
	d    *udpio.Dest
	s    *udpio.Sender
}

// newLink joins both over the loopback, at addr.
func newLink(t testing.TB, addr string, o udpio.SenderOptions) *link {
	t.Helper()
	a := netip.MustParseAddr(addr)
	r := receiver(t, netip.AddrPortFrom(a, 0))
	if !o.Local.IsValid() {
		o.Local = a
	}
	return &link{t: t, r: r, sock: sender(t, o), d: udpio.NewDest(netip.AddrPortFrom(a, r.Addr().Port())), s: udpio.NewSender()}
}

func receiver(t testing.TB, at netip.AddrPort) *udpio.Receiver {
	t.Helper()
	fd, err := udpio.OpenReceiver(at)
	if err != nil {
		t.Fatal(err)
	}
	r, err := udpio.NewReceiver(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func sender(t testing.TB, o udpio.SenderOptions) *udpio.Socket {
	t.Helper()
	fd, err := udpio.OpenSender(o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := udpio.NewSocket(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// add gathers one datagram in two pieces.
func (l *link) add(b []byte, tos uint8, tag int) {
	n := min(len(b), 30)
	copy(l.s.Begin(l.sock, l.d, tos, n), b)
	l.s.Payload(b[n:])
	l.s.End(tag)
}

// flush sends, and fails the test when anything is refused.
func (l *link) flush() {
	l.t.Helper()
	if f := l.s.Flush(); len(f) > 0 {
		l.t.Fatalf("flush: %+v", f)
	}
}

// heard is one datagram as it came out.
type heard struct {
	From netip.AddrPort
	Data string
	TOS  uint8
	TTL  uint8
}

// receive waits for n datagrams.
func receive(t testing.TB, r *udpio.Receiver, n int) []heard {
	t.Helper()
	var out []heard
	for len(out) < n {
		in, err := r.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for i := range in {
			for k := range in[i].Segments() {
				out = append(out, heard{in[i].From, string(in[i].Segment(k)), in[i].TOS, in[i].TTL})
			}
		}
		if len(in) == 0 && !readable(t, r.FD(), 5000) {
			t.Fatalf("got %d datagrams, want %d", len(out), n)
		}
	}
	if len(out) > n {
		t.Fatalf("got %d datagrams, want %d", len(out), n)
	}
	return out
}

// readable waits until fd can be read, for so many milliseconds at most.
func readable(t testing.TB, fd, ms int) bool {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, ms)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
}
