package tunnel_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/udpio"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
	"github.com/tapestry-net/tapestry/tunnel"
	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// sealedEnd is a tunnel without a switch whose network green is encrypted.
type sealedEnd struct {
	*tunnel.Tunnel
	clear, sealed tunnel.Receiver
	at            netip.AddrPort // of its encrypted links
	b             *frame.Batch
}

const (
	sealedVID frame.VID = 30
	sealedVNI vxlan.VNI = 10030
)

func newSealedEnd(t testing.TB, host, addr string) *sealedEnd {
	t.Helper()
	at := netip.MustParseAddrPort(addr)
	fd, err := udpio.OpenReceiver(at)
	if err != nil {
		t.Fatal(err)
	}
	links, err := udpio.OpenBoth(netip.AddrPortFrom(at.Addr(), 0))
	if err != nil {
		t.Fatal(err)
	}
	o := tunnel.Options{Socket: fd, Open: udpio.OpenSender, Encryption: &tunnel.Encryption{Socket: links, Host: host}, Ticks: make(chan time.Time)}
	o.Asked = func(q tunnel.Question) { _ = q.Answer(fmt.Appendf(q.Text, " sealed: %v", q.Sealed)) }
	tun, err := tunnel.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tun.Close() })
	r := tun.Receivers()
	return &sealedEnd{tun, r[0], r[2], tun.ListenDTLS(), frame.NewBatch(1 << 18)}
}

// key is the shared one of all ends.
func key(t testing.TB) *dtls.Credentials {
	t.Helper()
	c, err := dtls.SharedKey([]byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// meet makes other a peer, port 2, with networks blue in clear and green sealed.
func (e *sealedEnd) meet(t testing.TB, name string, other *sealedEnd) {
	t.Helper()
	s := tunnel.Spec{
		Networks: []tunnel.Network{{VID: blue, VNI: blueVNI}, {VID: sealedVID, VNI: sealedVNI, Encrypt: true}}, Credentials: key(t),
		Peers: []tunnel.PeerSpec{{ID: 2, Name: name, Address: other.Listen(), VIDs: []frame.VID{blue, sealedVID}, DTLS: other.at}},
	}
	if err := e.Apply(s); err != nil {
		t.Fatal(err)
	}
}

// poll takes what has come by the link, and returns the frames.
func (e *sealedEnd) poll(t testing.TB) []frame.Frame {
	e.b.Reset()
	if err := e.sealed.Receive(e.b); err != nil {
		t.Fatal(err)
	}
	return e.b.Frames
}

func sealedPair(t testing.TB) (a, b *sealedEnd) {
	t.Helper()
	a, b = newSealedEnd(t, "a", "127.0.0.1:0"), newSealedEnd(t, "b", "127.0.0.2:0")
	a.meet(t, "b", b)
	b.meet(t, "a", a)
	until(t, "the link", func() bool {
		a.poll(t)
		b.poll(t)
		return a.Status()[0].Link.State.Encrypted() && b.Status()[0].Link.State.Encrypted()
	})
	return a, b
}

// sealedBatch is n copies of f for network green.
func sealedBatch(f []byte, n int) *frame.Batch {
	b := frame.NewBatch(0)
	for range n {
		b.Frames = append(b.Frames, frame.Frame{Data: f, Push: frame.MakeTag(sealedVID, 0, false), Copies: 1})
	}
	return b
}

// TestSealed asserts that frames come out as they went in, stored tags and
// fragments gathered, and in no other network than theirs.
func TestSealed(t *testing.T) {
	a, b := sealedPair(t)
	f := switchtest.UDPFrame(alice, bob, switchtest.Pattern(700))
	out := frame.NewBatch(0)
	out.Frames = append(out.Frames,
		frame.Frame{Data: f, Push: frame.MakeTag(sealedVID, 0, false), Copies: 1},
		frame.Frame{Data: switchtest.Tagged(sealedVID, 0, f), Pop: true, Push: frame.MakeTag(sealedVID, 0, false), Copies: 1},
		frame.Frame{Data: f[:100], Frags: [][]byte{f[100:300], f[300:]}, Push: frame.MakeTag(sealedVID, 0, false), Copies: 1})
	for i := range out.Frames {
		fate := a.Peer(2).Explain(&out.Frames[i])
		if fate.Refused != frame.ReasonNone || fate.Outer.Len != len(f)-14+50+37 || fate.Outer.Destination != b.at {
			t.Errorf("foretold: %+v, outer %+v", fate, fate.Outer)
		}
	}
	datagram := make([]byte, vxlan.HeaderLen)
	vxlan.Put(datagram, sealedVNI)
	for sealed, want := range map[bool]frame.Reason{true: frame.ReasonNone, false: frame.PlaintextRefused} {
		if x := b.Explain(a.Listen().Addr(), append(datagram, f...), 0, sealed); x.Refused != want {
			t.Errorf("sealed %v: foretold to be refused as %v, want %v", sealed, x.Refused, want)
		}
	}
	if sent, err := a.Peer(2).Transmit(out); sent != 3 || err != nil {
		t.Fatalf("sent %d: %v", sent, err)
	}
	got := 0
	until(t, "three frames", func() bool {
		for _, g := range b.poll(t) {
			if g.VID != sealedVID || g.In != 2 {
				t.Errorf("frame of port %d, VID %d", g.In, g.VID)
			}
			got += segments(&g)
			if g.GSO.Type == frame.GSONone && !bytes.Equal(g.Data, f) {
				t.Errorf("got % x, want % x", g.Data, f)
			}
		}
		return got >= 3
	})
}

// TestSealedNothingElse asserts that a frame of an encrypted network has no other
// way out or in: neither before there is a link nor after it is closed.
func TestSealedNothingElse(t *testing.T) {
	a, b := newSealedEnd(t, "a", "127.0.0.1:0"), newSealedEnd(t, "b", "127.0.0.2:0")
	refused := func(when string) {
		t.Helper()
		out := sealedBatch(hello, 3)
		sent, err := a.Peer(2).Transmit(out)
		if sent != 0 || err == nil {
			t.Errorf("%s: sent %d", when, sent)
		}
		for _, f := range out.Frames {
			if !f.Refused || f.Why != frame.NotEncryptedYet {
				t.Errorf("%s: refused %v, %v", when, f.Refused, f.Why)
			}
		}
		for _, r := range []tunnel.Receiver{b.clear, b.sealed} {
			b.b.Reset()
			if err := r.Receive(b.b); err != nil || len(b.b.Frames) != 0 {
				t.Errorf("%s: %d frames came: %v", when, len(b.b.Frames), err)
			}
		}
	}
	a.meet(t, "b", b)
	refused("before the peer knows us")
	b.meet(t, "a", a)
	until(t, "the link", func() bool {
		a.poll(t)
		b.poll(t)
		return a.Status()[0].Link.State.Encrypted() && b.Status()[0].Link.State.Encrypted()
	})
	a.withoutKeys(t, b)
	refused("without keys")
}

// withoutKeys takes the credentials away.
func (e *sealedEnd) withoutKeys(t *testing.T, other *sealedEnd) {
	t.Helper()
	err := e.Apply(tunnel.Spec{
		Networks: []tunnel.Network{{VID: sealedVID, VNI: sealedVNI, Encrypt: true}},
		Peers:    []tunnel.PeerSpec{{ID: 2, Name: "b", Address: other.Listen(), VIDs: []frame.VID{sealedVID}, DTLS: other.at}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSealedHearsNoPlaintext sends what is no record to the port of encrypted
// links: a frame of an encrypted network is refused as such, whoever sends it.
func TestSealedHearsNoPlaintext(t *testing.T) {
	a, b := sealedPair(t)
	noLink := newVTEP(t, "127.0.0.3:0", b.at)
	stranger := newVTEP(t, "127.0.0.4:0", b.at)
	peer := newVTEP(t, "127.0.0.1:0", b.at)
	if err := b.Apply(tunnel.Spec{
		Networks: []tunnel.Network{{VID: blue, VNI: blueVNI}, {VID: sealedVID, VNI: sealedVNI, Encrypt: true}}, Credentials: key(t),
		Peers: []tunnel.PeerSpec{
			{ID: 2, Name: "a", Address: a.Listen(), VIDs: []frame.VID{blue, sealedVID}, DTLS: a.at},
			{ID: 3, Name: "clear", Address: netip.MustParseAddrPort(noLink.at()), VIDs: []frame.VID{blue}},
		},
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		from *vtep
		b    []byte
		want frame.Reason
	}{
		{"a peer's frame", peer, in(sealedVNI, hello), frame.PlaintextRefused},
		{"a peer's frame of a network in clear", peer, in(blueVNI, hello), frame.BadRecord},
		{"a peer's nonsense", peer, []byte("nonsense that is as long as a frame is at least"), frame.BadRecord},
		{"a frame of a peer without link", noLink, in(sealedVNI, hello), frame.PlaintextRefused},
		{"another frame of it", noLink, in(blueVNI, hello), frame.BadRecord},
		{"nothing of it", noLink, nil, frame.BadRecord},
		{"a stranger's frame", stranger, in(sealedVNI, hello), frame.PlaintextRefused},
		{"another frame of his", stranger, in(blueVNI, hello), frame.UnknownPeer},
	} {
		want := b.Refused()
		want[c.want]++
		c.from.send(c.b)
		until(t, c.name, func() bool {
			if len(b.poll(t)) != 0 {
				t.Errorf("%s becomes a frame", c.name)
			}
			return b.Refused() == want
		})
	}
}

// TestSealedQuestions asserts that questions and answers, which may be about frames
// of an encrypted network, go by the link, and are refused in clear.
func TestSealedQuestions(t *testing.T) {
	a, b := sealedPair(t)
	told, quit := make(chan tunnel.Told, 1), make(chan struct{})
	go func() {
		defer close(quit)
		r, err := a.Ask(t.Context(), 2, []byte("what of it?"), true)
		if err != nil {
			t.Error(err)
		}
		told <- r
	}()
	until(t, "an answer", func() bool {
		for _, e := range []*sealedEnd{a, b} {
			e.poll(t)
			if in, err := e.listenClear(); in != 0 || err != nil {
				t.Fatalf("%d datagrams came in clear: %v", in, err)
			}
		}
		select {
		case <-quit:
			return true
		default:
			return false
		}
	})
	if r := <-told; string(r.Text) != "what of it? sealed: true" {
		t.Errorf("told %q", r.Text)
	}
	clear := newEnd(t, "127.0.0.1:0")
	clear.meet(t, b.Listen())
	other := newSealedEnd(t, "c", "127.0.0.2:0")
	other.meet(t, "p0", &sealedEnd{Tunnel: clear.Tunnel, at: clear.Listen()})
	clear.meet(t, other.Listen())
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := clear.Ask(ctx, 2, []byte("in clear"), false)
		asked <- err
	}()
	until(t, "the question to be refused", func() bool {
		_, err := other.listenClear()
		return err != nil || other.Status()[0].Drops[frame.PlaintextRefused] > 0
	})
	cancel()
	if err := <-asked; err == nil {
		t.Error("a question in clear was answered")
	}
}

// listenClear is how many frames or refusals come in clear now.
func (e *sealedEnd) listenClear() (n int, err error) {
	e.b.Reset()
	err = e.clear.Receive(e.b)
	for _, drops := range e.Refused() {
		n += int(drops)
	}
	return n + len(e.b.Frames), err
}

// TestSealedAllocates asserts that sealing, sending, opening and admitting
// allocate nothing.
func TestSealedAllocates(t *testing.T) {
	a, b := sealedPair(t)
	for name, out := range map[string]*frame.Batch{
		"small": sealedBatch(hello, 64),
		"long":  sealedBatch(switchtest.UDPFrame(alice, bob, switchtest.Pattern(1300)), 40),
	} {
		if n := testing.AllocsPerRun(50, func() {
			if sent, err := a.Peer(2).Transmit(out); sent != out.Len() || err != nil {
				t.Fatalf("sent %d of %d: %v, %v", sent, out.Len(), err, out.Frames[0].Why)
			}
			for n := out.Len(); n > 0; {
				for _, f := range b.poll(t) {
					n -= segments(&f)
				}
			}
		}); n != 0 {
			t.Errorf("%s frames: %v allocations, want 0", name, n)
		}
	}
}

// TestSealedOverflow asserts that a record that has been opened and finds no room
// in a batch begins the next one: none is lost and none is opened twice.
func TestSealedOverflow(t *testing.T) {
	a, b := sealedPair(t)
	want := 0
	for size := range 60 {
		out := frame.NewBatch(0)
		// Lengths that alternate make runs of their own, so that nothing joins.
		for i := range 4 {
			text := fmt.Sprintf("%d %d %s", size, i, strings.Repeat("x", size*i))
			out.Frames = append(out.Frames, sealedBatch(switchtest.UDPFrame(alice, bob, []byte(text)), 1).Frames...)
		}
		if sent, err := a.Peer(2).Transmit(out); sent != 4 || err != nil {
			t.Fatalf("sent %d: %v", sent, err)
		}
		want += 4
	}
	got, small := 0, frame.NewBatch(0)
	small.Frames = make([]frame.Frame, 0, 3)
	until(t, "all frames", func() bool {
		small.Frames = small.Frames[:0]
		if err := b.sealed.Receive(small); err != nil {
			t.Fatal(err)
		}
		for i := range small.Frames {
			got += segments(&small.Frames[i])
		}
		return got >= want
	})
	if d := b.Status()[0].Drops; got != want || d[frame.Replayed] != 0 || d[frame.BadRecord] != 0 {
		t.Errorf("%d frames, want %d; drops %v", got, want, d)
	}
}
