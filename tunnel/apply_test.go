package tunnel_test

import (
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
	"github.com/tapestry-net/tapestry/tunnel"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// TestApplyClosed closes a network, which then passes nothing either way, and
// opens it under another VNI; the other network goes on.
func TestApplyClosed(t *testing.T) {
	h, q := loopHost(t, nil)
	h.nets = append(h.nets, tunnel.Network{VID: 20, VNI: 10020})
	p := newVTEP(t, "127.0.0.2:0", h.tun.Listen())
	id := h.peer(p.at(), blue, 20)
	comes := func(vni vxlan.VNI, want frame.Reason) {
		t.Helper()
		before, heard := h.tun.Status()[0].Drops, h.sw.Stats().RxFrames
		p.send(in(vni, hello))
		until(t, "the datagram", func() bool {
			return h.sw.Stats().RxFrames > heard && want == frame.ReasonNone || h.tun.Status()[0].Drops[want] > before[want]
		})
		q.Drain()
	}
	leaves := func(vid frame.VID, want frame.Reason) {
		t.Helper()
		b := frame.NewBatch(0)
		b.Frames = append(b.Frames, frame.Frame{Data: hello, Push: frame.MakeTag(vid, 0, false), Copies: 1})
		_, _ = h.tun.Peer(id).Transmit(b)
		if got := b.Frames[0].Why; got != want {
			t.Errorf("frame of VID %d: %v, want %v", vid, got, want)
		}
	}
	comes(blueVNI, frame.ReasonNone)
	leaves(blue, frame.ReasonNone)
	h.nets[0] = tunnel.Network{VID: blue, VNI: 10030, Closed: true}
	h.apply()
	comes(blueVNI, frame.UnknownVNI)
	comes(10030, frame.UnknownVNI)
	leaves(blue, frame.EgressDown)
	comes(10020, frame.ReasonNone)
	leaves(20, frame.ReasonNone)
	h.nets[0].Closed = false
	h.apply()
	comes(blueVNI, frame.UnknownVNI)
	comes(10030, frame.ReasonNone)
	leaves(blue, frame.ReasonNone)

	h.nets = append(h.nets, tunnel.Network{VID: blue, VNI: 7, Closed: true})
	if err := h.tun.Apply(tunnel.Spec{Networks: h.nets}); err == nil {
		t.Error("a VID is accepted twice because one of its networks is closed")
	}
}

// TestApplyClosedKeepsLink closes the one encrypted network of a peer: nothing
// leaves, and the link is there still when the network is opened again.
func TestApplyClosedKeepsLink(t *testing.T) {
	a, b := sealedPair(t)
	made := a.Status()[0].Link.Generation
	spec := tunnel.Spec{
		Networks: []tunnel.Network{{VID: sealedVID, VNI: sealedVNI, Encrypt: true, Closed: true}}, Credentials: key(t),
		Peers: []tunnel.PeerSpec{{ID: 2, Name: "b", Address: b.Listen(), VIDs: []frame.VID{sealedVID}, DTLS: b.at}},
	}
	for _, closed := range []bool{true, false} {
		spec.Networks[0].Closed = closed
		if err := a.Apply(spec); err != nil {
			t.Fatal(err)
		}
		want := 0
		if !closed {
			want = 1
		}
		if sent, _ := a.Peer(2).Transmit(sealedBatch(hello, 1)); sent != want {
			t.Errorf("closed %v: %d frames sent, want %d", closed, sent, want)
		}
	}
	if l := a.Status()[0].Link; !l.State.Encrypted() || l.Generation != made {
		t.Errorf("link is %v with keys %d, want an established one with keys %d", l.State, l.Generation, made)
	}
}

// TestApplyUnderlayMTU has two passive peers behind different interfaces, whose
// MTUs change: each is sent what its own takes.
func TestApplyUnderlayMTU(t *testing.T) {
	ticks, now := make(chan time.Time), time.Unix(1e9, 0)
	h, _ := loopHost(t, func(o *tunnel.Options) { o.Ticks = ticks })
	var ends []*vtep
	for _, at := range []string{"127.0.0.2:0", "127.0.0.3:0"} {
		p := newVTEP(t, at, h.tun.Listen())
		h.peer(p.at())
		ends = append(ends, p)
	}
	pass := func() {
		for range 10 {
			now = now.Add(time.Second / 5)
			ticks <- now
			ticks <- now
		}
	}
	want := func(when string, first, second int) {
		t.Helper()
		for i, want := range []int{first, second} {
			if got := h.tun.Status()[i].MTU; got != want {
				t.Errorf("%s: inner MTU of peer %d is %d, want %d", when, i, got, want)
			}
		}
	}
	h.peers[0].UnderlayMTU, h.peers[1].UnderlayMTU = 9000, 1400
	h.apply()
	want("before anything is heard", 8950, 1350)
	for i, p := range ends {
		n := h.sw.Stats().RxFrames
		p.send(in(blueVNI, switchtest.Padded(switchtest.ARPFrame(switchtest.Station4(byte(50+i)), alice.Addr))))
		until(t, "a frame of the peer", func() bool { return h.sw.Stats().RxFrames == n+1 })
	}
	pass()
	if s := h.tun.Status()[0]; s.State != tunnel.Up || !s.Passive {
		t.Fatalf("peer is %v, passive %v", s.State, s.Passive)
	}
	want("passive", 8950, 1350)
	h.peers[0].UnderlayMTU, h.peers[1].UnderlayMTU = 1400, 9000
	h.apply()
	want("just changed", 1350, 8950)
	pass()
	want("changed", 1350, 8950)
}

// TestApplyUnderlayMTUAnswering has a peer that answers, and a path that is
// narrower than this host's interface: what was found stays in force when the
// interface widens, and gives way when it narrows.
func TestApplyUnderlayMTUAnswering(t *testing.T) {
	c := newClocked(t)
	mtu := func(when string, want int) {
		t.Helper()
		if got := c.status().MTU; got != want {
			t.Errorf("%s: inner MTU %d, want %d", when, got, want)
		}
	}
	c.inUse(5)
	mtu("at first", 1450)
	c.peers[0].UnderlayMTU = 9000
	c.apply()
	mtu("the interface is wider", 1450)
	c.inUse(10)
	mtu("the path is not", 1450)
	c.limit = 9000
	c.peers[0].UnderlayMTU = 9001
	c.apply()
	c.inUse(10)
	mtu("now it is", 8950)
	c.limit = 1400
	c.peers[0].UnderlayMTU = 1400
	c.apply()
	mtu("the interface is narrower", 1350)
	c.inUse(10)
	mtu("and so is the path", 1350)
}
