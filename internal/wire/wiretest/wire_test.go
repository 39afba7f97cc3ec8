package wiretest_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// arrival is one packet that came out, and when.
type arrival struct {
	Data  string
	After time.Duration
}

// carry sends packets 0, 1, 2, … one a millisecond over a wire in virtual time
// and returns what arrives by its end.
func carry(t *testing.T, seed uint64, n int, set func(w *wiretest.Wire, i int)) (got []arrival, c wiretest.Counts, hash uint64) {
	synctest.Test(t, func(t *testing.T) {
		a, in := wiretest.Pipe()
		b, out := wiretest.Pipe()
		w := wiretest.Join(a, b, seed)
		start := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, 2000)
			for {
				n, err := out.Read(buf)
				if err != nil {
					return
				}
				got = append(got, arrival{string(buf[:n]), time.Since(start)})
			}
		}()
		for i := range n {
			set(w, i)
			if _, err := in.Write(fmt.Appendf(nil, "packet %04d", i)); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Millisecond)
			if c := w.Counts(wiretest.AToB); c.Missing() != 0 {
				t.Fatalf("%d missing: %+v", c.Missing(), c)
			}
		}
		<-time.After(time.Hour)
		c, hash = w.Counts(wiretest.AToB), w.Hash(wiretest.AToB)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return got, c, hash
}

// always sets one Link before the first packet.
func always(l wiretest.Link) func(*wiretest.Wire, int) {
	return func(w *wiretest.Wire, i int) {
		if i == 0 {
			w.Set(l)
		}
	}
}

func TestPerfect(t *testing.T) {
	got, c, _ := carry(t, 1, 100, always(wiretest.Link{}))
	for i, a := range got {
		if want := (arrival{fmt.Sprintf("packet %04d", i), time.Duration(i) * time.Millisecond}); a != want {
			t.Errorf("arrival %d is %v, want %v", i, a, want)
		}
	}
	if want := (wiretest.Counts{Offered: 100, Delivered: 100}); c != want {
		t.Errorf("counts %+v, want %+v", c, want)
	}
}

func TestSeedDecides(t *testing.T) {
	bad := wiretest.Link{Loss: 0.1, Duplicate: 0.1, Corrupt: 0.1, Reorder: 0.1, Delay: 5 * time.Millisecond, Jitter: 3 * time.Millisecond, Rate: 20000}
	got, c, hash := carry(t, 7, 500, always(bad))
	again, c2, hash2 := carry(t, 7, 500, always(bad))
	if diff := cmp.Diff(got, again); diff != "" || c != c2 || hash != hash2 {
		t.Errorf("another run with the same seed: counts %+v and %+v, hash %x and %x\n%s", c, c2, hash, hash2, diff)
	}
	if _, _, other := carry(t, 8, 500, always(bad)); other == hash {
		t.Error("another seed, the same fates")
	}
	for name, n := range map[string]uint64{"lost": c.Lost, "duplicated": c.Duplicated, "corrupted": c.Corrupted, "reordered": c.Reordered} {
		if n < 25 || n > 90 {
			t.Errorf("%d of 500 %s, want about 50", n, name)
		}
	}
}

// TestLuckOfOthers is that losing some packets changes no other packet's luck.
func TestLuckOfOthers(t *testing.T) {
	got, _, _ := carry(t, 3, 300, always(wiretest.Link{Loss: 0.3}))
	half, _, _ := carry(t, 3, 300, func(w *wiretest.Wire, i int) {
		w.Cut(i < 150)
		w.Set(wiretest.Link{Loss: 0.3})
	})
	var want []arrival
	for _, a := range got {
		if a.Data >= "packet 0150" {
			want = append(want, a)
		}
	}
	if diff := cmp.Diff(want, half); diff != "" {
		t.Error("-want +got\n", diff)
	}
}

func TestDelayAndRate(t *testing.T) {
	got, _, _ := carry(t, 1, 3, always(wiretest.Link{Delay: 20 * time.Millisecond}))
	for i, a := range got {
		if want := time.Duration(20+i) * time.Millisecond; a.After != want {
			t.Errorf("packet %d after %v, want %v", i, a.After, want)
		}
	}
	// 11 octets at 1,100 a second are 10 ms each.
	got, _, _ = carry(t, 1, 3, always(wiretest.Link{Rate: 1100}))
	for i, a := range got {
		if want := time.Duration(i+1) * 10 * time.Millisecond; a.After != want {
			t.Errorf("packet %d after %v, want %v", i, a.After, want)
		}
	}
}

func TestReorder(t *testing.T) {
	got, c, _ := carry(t, 5, 200, always(wiretest.Link{Reorder: 0.1, HoldBack: 5 * time.Millisecond}))
	late := uint64(0)
	for i := 1; i < len(got); i++ {
		if got[i].Data < got[i-1].Data {
			late++
		}
	}
	if late == 0 || late > c.Reordered || len(got) != 200 {
		t.Errorf("%d of %d arrivals out of order, %d held back", late, len(got), c.Reordered)
	}
	// Jitter alone keeps the order.
	got, _, _ = carry(t, 5, 200, always(wiretest.Link{Jitter: 50 * time.Millisecond}))
	for i, a := range got {
		if want := fmt.Sprintf("packet %04d", i); a.Data != want {
			t.Fatalf("arrival %d is %q, want %q", i, a.Data, want)
		}
	}
}

func TestCorrupt(t *testing.T) {
	got, c, _ := carry(t, 5, 50, always(wiretest.Link{Corrupt: 1}))
	for i, a := range got {
		bits, sent := 0, fmt.Sprintf("packet %04d", i)
		for k := range sent {
			for x := sent[k] ^ a.Data[k]; x != 0; x &= x - 1 {
				bits++
			}
		}
		if bits != 1 {
			t.Errorf("packet %d: %d bits flipped, want 1", i, bits)
		}
	}
	if c.Corrupted != 50 {
		t.Errorf("%d counted, want 50", c.Corrupted)
	}
}

func TestCutAndFull(t *testing.T) {
	got, c, _ := carry(t, 5, 30, func(w *wiretest.Wire, i int) {
		w.CutWay(wiretest.AToB, i >= 10 && i < 20)
	})
	if len(got) != 20 || c.Cut != 10 {
		t.Errorf("%d arrived, %d cut; want 20, 10", len(got), c.Cut)
	}
	got, c, _ = carry(t, 5, 30, always(wiretest.Link{Delay: time.Minute, Queue: 110}))
	if len(got) != 10 || c.Full != 20 {
		t.Errorf("%d arrived, %d found the queue full; want 10, 20", len(got), c.Full)
	}
}

func TestTooLong(t *testing.T) {
	// All have 11 octets.
	got, c, _ := carry(t, 5, 20, func(w *wiretest.Wire, i int) { w.Set(wiretest.Link{Longest: 11 - i/10}) })
	if len(got) != 10 || c.TooLong != 10 || c.Missing() != 0 {
		t.Errorf("%d arrived, %d were too long; want 10 each: %+v", len(got), c.TooLong, c)
	}
}

// TestConservation holds for any Link.
func TestConservation(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := rapid.SampledFrom([]float64{0, 0.2, 1})
		ms := rapid.IntRange(0, 20)
		l := wiretest.Link{
			Loss: p.Draw(rt, "loss"), Duplicate: p.Draw(rt, "duplicate"), Corrupt: p.Draw(rt, "corrupt"), Reorder: p.Draw(rt, "reorder"),
			Delay: time.Duration(ms.Draw(rt, "delay")) * time.Millisecond, Jitter: time.Duration(ms.Draw(rt, "jitter")) * time.Millisecond,
			Rate: rapid.SampledFrom([]int{0, 1000, 100000}).Draw(rt, "rate"), Queue: rapid.SampledFrom([]int{0, 50}).Draw(rt, "queue"),
			Longest: rapid.SampledFrom([]int{0, 10, 11}).Draw(rt, "longest"),
		}
		got, c, _ := carry(t, rapid.Uint64().Draw(rt, "seed"), 50, always(l))
		if c.Missing() != 0 || c.Held != 0 || c.Offered != 50 || c.Delivered != uint64(len(got)) {
			rt.Fatalf("%d arrived, %d missing: %+v", len(got), c.Missing(), c)
		}
	})
}

func TestPipe(t *testing.T) {
	a, b := wiretest.Pipe()
	for range 1024 {
		if _, err := a.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, wiretest.ErrFull) {
		t.Errorf("write to a full pipe: %v, want %v", err, wiretest.ErrFull)
	}
	b.Close()
	if _, err := a.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write to a closed pipe: %v, want %v", err, io.ErrClosedPipe)
	}
}

// TestUDP relays between two sockets of the loopback.
func TestUDP(t *testing.T) {
	hear := func() *net.UDPConn {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	addr := func(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
	a, b := hear(), hear()
	nearA, nearB := netip.MustParseAddrPort("127.0.0.1:7501"), netip.MustParseAddrPort("127.0.0.1:7502")
	endA, err := wiretest.UDP(nearA, addr(a))
	if err != nil {
		t.Fatal(err)
	}
	endB, err := wiretest.UDP(nearB, addr(b))
	if err != nil {
		t.Fatal(err)
	}
	w := wiretest.Join(endA, endB, 1)
	defer w.Close()
	buf := make([]byte, 100)
	for _, c := range []struct {
		from, to   *net.UDPConn
		near, back netip.AddrPort
	}{{a, b, nearA, nearB}, {b, a, nearB, nearA}} {
		if _, err := c.from.WriteToUDPAddrPort([]byte("hello"), c.near); err != nil {
			t.Fatal(err)
		}
		n, from, err := c.to.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != "hello" || from != c.back {
			t.Errorf("read %q from %v, error %v; want hello from %v", buf[:n], from, err, c.back)
		}
	}
}

// TestMissed overflows the buffer of an interface's end that nobody reads.
func TestMissed(t *testing.T) {
	netnstest.Require(t, "packet", "ip")
	ns := netnstest.New(t)
	ns.Run("ip", "link", "add", "m0", "up", "type", "veth", "peer", "name", "m1")
	ns.Run("ip", "link", "set", "m1", "up")
	open := func(name string) (e io.ReadWriteCloser) {
		ns.Do(func() (err error) { e, err = wiretest.Device(name); return err })
		t.Cleanup(func() { e.Close() })
		return e
	}
	from, to := open("m0"), open("m1").(interface{ Missed() uint64 })
	frame := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5}, make([]byte, 1400)...)
	for end := time.Now().Add(20 * time.Second); to.Missed() == 0; {
		if time.Now().After(end) {
			t.Fatal("nothing is missed")
		}
		for range 1000 {
			_, _ = from.Write(frame) // refused while the buffers of the sender are full
		}
	}
	if a, b := to.Missed(), to.Missed(); b < a {
		t.Errorf("%d missed, then %d", a, b)
	}
}

// TestLAN pings across bad wires, then across one that is cut.
func TestLAN(t *testing.T) {
	netnstest.Require(t, "ping")
	nodes := []*netnstest.NS{netnstest.New(t), netnstest.New(t), netnstest.New(t)}
	l := wiretest.NewLAN(t, 1, nodes...)
	for _, w := range l.Wires {
		w.Set(wiretest.Link{Duplicate: 0.5, Delay: time.Millisecond, Jitter: time.Millisecond})
	}
	nodes[0].Run("ping", "-c", "3", "-i", "0.01", "-s", "1472", "-M", "do", "192.0.2.3")
	nodes[1].Run("ping", "-c", "3", "-i", "0.01", "-W", "5", "2001:db8::3")
	l.Wires[2].Cut(true)
	if out, err := nodes[0].Try("ping", "-c", "1", "-W", "0.1", "192.0.2.3"); err == nil {
		t.Errorf("ping across a cut wire:\n%s", out)
	}
	l.Wires[2].Cut(false)
	// The interface goes down under the wire, and comes back.
	nodes[2].Run("ip", "link", "set", wiretest.Interface, "down")
	nodes[2].Run("ip", "link", "set", wiretest.Interface, "up")
	nodes[0].Run("ping", "-c", "1", "-W", "5", "192.0.2.3")
	for _, w := range l.Wires {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	if c := l.Counts(); c.Missing() != 0 || c.Duplicated == 0 || c.Cut == 0 || c.Corrupted != 0 {
		t.Errorf("%d missing: %+v", c.Missing(), c)
	}
}
