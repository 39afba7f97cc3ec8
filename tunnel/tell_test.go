package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

// echoing answers each question with the peer's name and the question.
func echoing(o *tunnel.Options) {
	o.Asked = func(q tunnel.Question) { _ = q.Answer(append([]byte(q.Peer+" asks "), q.Text...)) }
}

// friends are two tunnels that know each other.
func friends(t *testing.T) (a *host, b frame.PortID) {
	t.Helper()
	a, _ = loopHost(t, echoing)
	other := newHost(t, nil, "127.0.0.2:0", loopQueue(t), echoing)
	other.peer(a.tun.Listen().String())
	return a, a.peer(other.tun.Listen().String())
}

func TestAsk(t *testing.T) {
	a, b := friends(t)
	for _, text := range []string{"", "hop", strings.Repeat("x", tunnel.MaxText-20)} {
		before := time.Now()
		r, err := a.tun.Ask(t.Context(), b, []byte(text), false)
		if err != nil || string(r.Text) != "peer2 asks "+text {
			t.Errorf("got %.40q, %v", r.Text, err)
		}
		if r.Asked.Before(before) || r.Came.Before(r.Asked) || r.Came.After(time.Now()) {
			t.Errorf("asked at %v, told at %v", r.Asked, r.Came)
		}
	}
	if _, err := a.tun.Ask(t.Context(), b, make([]byte, tunnel.MaxText+1), false); err == nil {
		t.Error("a question without end is asked")
	}
	if _, err := a.tun.Ask(t.Context(), 99, nil, false); err == nil {
		t.Error("a peer that isn't there is asked")
	}
	if _, err := a.tun.Ask(t.Context(), b, []byte("a secret"), true); !errors.Is(err, tunnel.ErrNotSealed) {
		t.Errorf("without a link to the peer a secret is told: %v", err)
	}
	a.conserve()
}

// TestAskNobody: a peer that doesn't answer is asked a few times, and no longer
// than the caller waits.
func TestAskNobody(t *testing.T) {
	a, _ := loopHost(t, nil)
	v := newVTEP(t, "127.0.0.2:0", a.tun.Listen())
	id := a.peer(v.at())
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { _, err := a.tun.Ask(ctx, id, []byte("hello"), false); failed <- err }()
	first := v.question()
	if second := v.question(); bytes.Equal(first, second) {
		t.Error("the second try is the first one's twin: its answer can't be told from that one's")
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	go func() { _, err := a.tun.Ask(t.Context(), id, []byte("hello"), false); failed <- err }()
	if err := <-failed; !errors.Is(err, tunnel.ErrNoAnswer) {
		t.Errorf("got %v", err)
	}
}

// question returns the next question that reaches v.
func (v *vtep) question() []byte {
	v.t.Helper()
	b := make([]byte, 1<<16)
	for {
		_ = v.SetReadDeadline(time.Now().Add(patience))
		n, _, err := v.ReadFromUDPAddrPort(b)
		if err != nil {
			v.t.Fatal(err)
		}
		if ask, _, _ := tunnel.Kind(b[:n]); ask {
			return bytes.Clone(b[:n])
		}
	}
}

// TestAskBelievesThePeerAlone: an answer counts when it comes from the peer that
// was asked and bears the token of the question.
func TestAskBelievesThePeerAlone(t *testing.T) {
	a, _ := loopHost(t, nil)
	v, other := newVTEP(t, "127.0.0.2:0", a.tun.Listen()), newVTEP(t, "127.0.0.3:0", a.tun.Listen())
	id := a.peer(v.at())
	a.peer(other.at())
	got := make(chan string)
	go func() {
		r, err := a.tun.Ask(t.Context(), id, []byte("who"), false)
		if err != nil {
			t.Error(err)
		}
		got <- string(r.Text)
	}()
	q := v.question()
	_, _, token := tunnel.Kind(q)
	other.send(tunnel.TellWith(token, []byte("the other peer")))
	v.send(tunnel.TellWith(token+1, []byte("a guess")))
	v.send(tunnel.TellWith(token, []byte("me")))
	if s := <-got; s != "me" {
		t.Errorf("%q was believed", s)
	}
}

// TestAnswerIsNoLonger: nobody makes us send more than was sent to us, and
// strangers and those who ask without end get nothing.
func TestAnswerIsNoLonger(t *testing.T) {
	asked := make(chan string, 1000)
	var first sync.Once
	a, _ := loopHost(t, func(o *tunnel.Options) {
		o.Asked = func(q tunnel.Question) {
			asked <- string(q.Text)
			first.Do(func() {
				if q.Answer(make([]byte, tunnel.MaxText+1)) == nil {
					t.Error("an answer without end is sent")
				}
				if err := q.Answer(make([]byte, tunnel.MaxText)); err != nil {
					t.Error(err)
				}
			})
		}
	})
	v := newVTEP(t, "127.0.0.2:0", a.tun.Listen())
	a.peer(v.at())
	stranger := newVTEP(t, "127.0.0.9:0", a.tun.Listen())
	stranger.send(tunnel.AskWith(7, []byte("stranger"), 1200))
	v.send(tunnel.AskWith(8, []byte("short"), 0))
	ask := tunnel.AskWith(9, []byte("whole"), 1200)
	v.send(ask)
	if got := <-asked; got != "whole" {
		t.Errorf("%q was taken for a question", got)
	}
	b := make([]byte, 1<<16)
	for {
		_ = v.SetReadDeadline(time.Now().Add(patience))
		n, _, err := v.ReadFromUDPAddrPort(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, tell, token := tunnel.Kind(b[:n]); tell {
			if n > len(ask) || token != 9 {
				t.Errorf("an answer of %d octets to question %d of %d", n, token, len(ask))
			}
			break
		}
	}
	// Questions beyond the allowance are not handed over. Loopback loses what the
	// loop is too slow for, so how many there are is only bounded.
	for range 1500 {
		v.send(ask)
	}
	v.sound(a)
	if n := len(asked); n > 2*200 {
		t.Errorf("%d questions of one second are handed over", n)
	}
}

// sound waits until the tunnel has read all that v has sent before.
func (v *vtep) sound(a *host) {
	v.t.Helper()
	before := a.tun.Refused()[frame.UnknownVNI]
	until(v.t, "the tunnel has read on", func() bool {
		v.send(in(0xffffff, make([]byte, 60)))
		return a.tun.Refused()[frame.UnknownVNI] > before
	})
}

// TestAskEndsWithTheTunnel: nobody waits for a tunnel that was closed.
func TestAskEndsWithTheTunnel(t *testing.T) {
	e := newEnd(t, "127.0.0.1:0")
	deaf, err := net.ListenPacket("udp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	e.meet(t, deaf.LocalAddr().(*net.UDPAddr).AddrPort())
	failed := make(chan error)
	go func() { _, err := e.Ask(context.Background(), 2, nil, false); failed <- err }()
	if _, _, err := deaf.ReadFrom(make([]byte, 2000)); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil || errors.Is(err, tunnel.ErrNoAnswer) {
		t.Errorf("got %v", err)
	}
}

// FuzzTalk: a text is part of its datagram, and what we write reads back.
func FuzzTalk(f *testing.F) {
	f.Add(tunnel.AskWith(1, []byte("where"), 1200))
	f.Add(tunnel.TellWith(1, []byte("here")))
	f.Add(tunnel.TellWith(1, nil)[:45])
	f.Fuzz(func(t *testing.T, b []byte) {
		text, ok := tunnel.TextOf(b[:len(b):len(b)])
		if ok && (len(text) > tunnel.MaxText || len(text) > 0 && !bytes.Contains(b, text)) {
			t.Errorf("%d octets of text in %x", len(text), b)
		}
		if len(b) > tunnel.MaxText {
			return
		}
		if got, ok := tunnel.TextOf(tunnel.AskWith(1, b, 1200)); !ok || !bytes.Equal(got, b) {
			t.Errorf("%x reads back as %x, %v", b, got, ok)
		}
	})
}

func TestTextOf(t *testing.T) {
	b := tunnel.AskWith(1, []byte("where"), 1200)
	if n := testing.AllocsPerRun(1000, func() { tunnel.TextOf(b) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}
