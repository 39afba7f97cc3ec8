package udpio_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/udpio"
)

// TestFlush is that a batch is sent and received without allocating, by
// UDP_SEGMENT and singly, by IPv4 and IPv6.
func TestFlush(t *testing.T) {
	for _, c := range []struct {
		addr string
		o    udpio.SenderOptions
	}{{addr: "127.0.0.1"}, {addr: "127.0.0.1", o: udpio.SenderOptions{NoChecksum: true}}, {addr: "::1"}} {
		l := newLink(t, c.addr, c.o)
		header, payload := make([]byte, 50), make([]byte, 500)
		step := func() {
			for i := range 64 {
				copy(l.s.Begin(l.sock, l.d, 3, len(header)), header)
				l.s.Payload(payload)
				l.s.End(i)
			}
			for _, f := range l.s.Flush() {
				t.Errorf("refused: %+v", f)
			}
			end := time.Now().Add(10 * time.Second)
			for got := 0; got < 64; {
				in, err := l.r.Receive()
				if err != nil || time.Now().After(end) {
					t.Fatalf("received %d of 64: %v", got, err)
				}
				for i := range in {
					for k := range in[i].Segments() {
						if len(in[i].Segment(k)) == 550 && in[i].From.Addr() == l.d.Addr().Addr() {
							got++
						}
					}
				}
			}
		}
		if n := testing.AllocsPerRun(50, step); n != 0 {
			t.Errorf("%s %+v: %v allocations, want 0", c.addr, c.o, n)
		}
	}
}

// TestReceive is that an empty socket is nothing and costs nothing.
func TestReceive(t *testing.T) {
	r := receiver(t, netip.MustParseAddrPort("[::]:0"))
	n := testing.AllocsPerRun(100, func() {
		if in, err := r.Receive(); len(in) != 0 || err != nil {
			t.Errorf("received %d, error %v", len(in), err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// TestFailures is that refusals allocate nothing either.
func TestFailures(t *testing.T) {
	l := newLink(t, "127.0.0.1", udpio.SenderOptions{Local: netip.MustParseAddr("0.0.0.0")})
	l.d = udpio.NewDest(netip.MustParseAddrPort("192.0.2.1:4789")) // no route
	n := testing.AllocsPerRun(50, func() {
		for i := range 600 { // more than one flush takes
			l.s.Begin(l.sock, l.d, 0, 8)
			l.s.End(i / 10)
		}
		count := 0
		for _, f := range l.s.Flush() {
			count += f.Count
		}
		if count != 600 {
			t.Errorf("%d refused, want 600", count)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
