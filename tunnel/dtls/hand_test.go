package dtls_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// hold lets what is sent to a host wait, as in a socket that nobody reads.
func (w *wire) hold(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting = map[string][]sent{}
	}
	w.waiting[name] = []sent{}
}

// release delivers what has waited.
func (w *wire) release(name string) {
	w.mu.Lock()
	queue := w.waiting[name]
	delete(w.waiting, name)
	w.mu.Unlock()
	for _, s := range queue {
		w.hand(s)
	}
}

// upgrade gives h another process, which goes on with what h's hands over, after
// edit has had its will of it. Datagrams wait meanwhile.
func (h *host) upgrade(edit func([]byte) []byte, c *dtls.Credentials, peers ...string) *host {
	h.w.t.Helper()
	h.w.hold(h.name)
	o := h.o
	o.Handed = edit(h.e.Hand())
	if err := h.e.Close(); err != nil {
		h.w.t.Error(err)
	}
	next := h.w.host(h.name, o, c, peers...)
	h.w.release(h.name)
	return next
}

func asItIs(b []byte) []byte { return b }

// TestUpgradesLoseNothing replaces the processes of both hosts again and again, at
// every phase of the renewals that follow, under frames in both directions.
func TestUpgradesLoseNothing(t *testing.T) {
	for name, shares := range map[string]bool{"certificates": false, "shared key": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t)
				defer w.close()
				ca := newCA(t)
				cred := map[string]*dtls.Credentials{"a": ca.credentials("a"), "b": ca.credentials("b")}
				if shares {
					cred["a"], cred["b"] = shared(t, 1), shared(t, 1)
				}
				o := dtls.Options{RekeyAfter: 20 * time.Second, Overlap: 3 * time.Second}
				a, b := w.host("a", o, cred["a"], "b"), w.host("b", o, cred["b"], "a")
				settle(2 * time.Second)
				talk(t, a, b)
				w.delay(30 * time.Millisecond)
				heard, frames := map[string][]string{}, 0
				pass := func(n int) {
					for range n {
						if !a.say("b", fmt.Sprint(frames)) || !b.say("a", fmt.Sprint(frames)) {
							t.Fatalf("frame %d: no link: %+v, %+v", frames, a.status("b"), b.status("a"))
						}
						settle(10 * time.Millisecond)
						heard["a"], heard["b"] = append(heard["a"], a.heard()...), append(heard["b"], b.heard()...)
						frames++
					}
				}
				for i := range 60 { // a asks for new keys after 2 s, b after 4
					a, b = a.upgrade(asItIs, cred["a"], "b"), b.upgrade(asItIs, cred["b"], "a")
					pass(198 + i)
					if i%2 == 0 {
						a = a.upgrade(asItIs, cred["a"], "b")
					}
					if i%3 != 0 {
						b = b.upgrade(asItIs, cred["b"], "a")
					}
					pass(i % 7)
				}
				settle(time.Second)
				for _, h := range []*host{a, b} {
					got := append(heard[h.name], h.heard()...)
					if len(got) != frames {
						t.Errorf("%s heard %d frames of %d", h.name, len(got), frames)
					}
					for i := range got {
						if want := canary + fmt.Sprint(i); got[i] != want {
							t.Fatalf("%s heard %q as frame %d, want %q", h.name, got[i], i, want)
						}
					}
				}
				settle(10 * time.Second)
				if s := a.status("b"); s.Taken || s.Generation < 4 {
					t.Errorf("the keys that were handed over are still in use: %+v", s)
				}
				w.noLeaks()
				w.nonces()
			})
		})
	}
}

// changed is what has changed between two processes.
type changed struct {
	edit    func([]byte) []byte // of what was handed over
	cred    func(t *testing.T, c *ca) *dtls.Credentials
	options func(*dtls.Options)
	peer    dtls.Peer
	wait    time.Duration
	life    time.Duration // of the peer's certificate
	forever bool          // there is no new link either
}

var changes = map[string]changed{
	"nothing came":     {edit: func([]byte) []byte { return nil }},
	"cut short":        {edit: func(b []byte) []byte { return b[:len(b)-1] }},
	"cut at the start": {edit: func(b []byte) []byte { return b[:9] }},
	"another version":  {edit: func(b []byte) []byte { b[7]++; return b }},
	"something behind": {edit: func(b []byte) []byte { return append(b, 0) }},
	"another host":     {edit: func(b []byte) []byte { return bytes.Replace(b, []byte("\x01a"), []byte("\x01z"), 1) }},
	"revoked": {forever: true, cred: func(_ *testing.T, c *ca) *dtls.Credentials {
		return c.credentialsWith("a", c.crl(102), nil)
	}},
	"another CA":   {forever: true, cred: func(t *testing.T, _ *ca) *dtls.Credentials { return newCA(t).credentials("a") }},
	"a shared key": {forever: true, cred: func(t *testing.T, _ *ca) *dtls.Credentials { return shared(t, 1) }},
	"expired":      {forever: true, wait: 9 * time.Second, life: 10 * time.Second},
	"silent":       {wait: 16 * time.Second},
	"too old": {wait: 62 * time.Second, options: func(o *dtls.Options) {
		o.RekeyAfter, o.Keepalive = 3*time.Second, time.Hour // keys end a minute later
	}},
	"fewer records":   {options: func(o *dtls.Options) { o.MaxRecords, o.RekeyRecords = 1<<20, 1<<10 }},
	"another address": {peer: dtls.Peer{Name: "b", Address: addresses["c"]}},
	"another name":    {forever: true, peer: dtls.Peer{Name: "c", Address: addresses["b"]}},
}

// TestHandedRefused changes something between two processes: the next one has no
// link, or new keys, and never those that were handed over.
func TestHandedRefused(t *testing.T) {
	for name, c := range changes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t)
				defer w.close()
				ca := newCA(t)
				life := c.life
				if life == 0 {
					life = time.Hour
				}
				cred := ca.credentials("a") // serial 101
				a := w.host("a", dtls.Options{}, cred, "b")
				b := w.host("b", dtls.Options{}, ca.credentialsWith("b", nil, expiresIn(life)), "a")
				settle(2 * time.Second)
				talk(t, a, b)
				o := a.o
				o.Handed = a.e.Hand()
				a.stop()
				settle(c.wait)
				peer := dtls.Peer{Name: "b", Address: addresses["b"]}
				if c.edit != nil {
					o.Handed = c.edit(o.Handed)
				}
				if c.cred != nil {
					cred = c.cred(t, ca)
				}
				if c.options != nil {
					c.options(&o)
				}
				if c.peer.Name != "" {
					peer = c.peer
				}
				a = w.begin("a", o)
				if err := a.e.Apply(cred, []dtls.Peer{peer}); err != nil {
					t.Fatal(err)
				}
				a.mu.Lock()
				a.links["b"] = a.e.Link(peer.Name)
				a.mu.Unlock()
				if a.say("b", "x") {
					t.Error("the link goes on")
				}
				settle(40 * time.Second)
				if !c.forever {
					talk(t, a, b)
				} else if a.say("b", "x") {
					t.Errorf("there is a link: %+v", a.status(peer.Name))
				}
				w.noLeaks()
				w.nonces()
			})
		})
	}
}

// TestHandedOnce: what is handed over is used by one Endpoint, and cleared; the one
// before neither seals nor opens with it, and says nothing to the peer.
func TestHandedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := up(t, dtls.Options{})
		defer w.close()
		cred := newCA(t).credentials("a")
		w.mu.Lock()
		before := len(w.log)
		w.mu.Unlock()
		o := a.o
		o.Handed = a.e.Hand()
		if a.say("b", "x") || len(a.e.Hand()) != 0 || len(o.Handed) == 0 {
			t.Error("a goes on after it has handed its links over")
		}
		if !b.say("a", "x") || len(a.heard()) != 0 {
			t.Error("b was told, or a still opens")
		}
		var r record.Reader
		if _, _, v := a.e.Link("b").Open(&r, b.addr, forgedHello(0, 0xfefd, 1, nil, 0xc02b)); v != dtls.BadRecord {
			t.Errorf("a takes a hello after it has handed its links over: %v", v)
		}
		if err := a.e.Apply(cred, nil); err == nil {
			t.Error("a takes peers after it has handed its links over")
		}
		a.stop()
		w.mu.Lock()
		if after := len(w.log); after != before+1 { // b's frame
			t.Errorf("%d datagrams were sent meanwhile, want 1", after-before)
		}
		w.mu.Unlock()
		handed := bytes.Clone(o.Handed)
		a = w.host("a", o, nil, "b") // without credentials nothing is taken
		if bytes.Equal(o.Handed, handed) || bytes.Count(o.Handed, []byte{0}) != len(handed) {
			t.Error("what was handed over is still in memory")
		}
		a.apply(cred, "b")
		if a.say("b", "x") {
			t.Error("the second Apply has taken what was handed over")
		}
		if got := w.host("c", dtls.Options{}, nil, "b").e.Hand(); got != nil {
			t.Errorf("%d octets are handed over without a link", len(got))
		}
	})
}

// FuzzHanded makes anything be handed over behind a good beginning.
func FuzzHanded(f *testing.F) {
	var whole []byte
	cred := shared(f, 1)
	w := newWire(f)
	a, b := w.host("a", dtls.Options{}, cred, "b"), w.host("b", dtls.Options{}, cred, "a")
	for deadline := time.Now().Add(20 * time.Second); !a.say("b", "x") || !b.say("a", "x"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatal("no link")
		}
	}
	whole = a.e.Hand()
	w.close()
	const header = 8 + 4 + 1 + 32
	f.Add(whole[header:])
	f.Add(whole[header : len(whole)-1])
	f.Add(append(bytes.Clone(whole[header:]), whole[header:]...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, rest []byte) {
		o := dtls.Options{Host: "a", Send: discard, Handed: append(bytes.Clone(whole[:header]), rest...)}
		e, err := dtls.New(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Apply(cred, []dtls.Peer{{Name: "b", Address: addresses["b"]}}); err != nil {
			t.Fatal(err)
		}
		var r record.Reader
		_, _, _ = e.Link("b").Open(&r, addresses["b"], bytes.Clone(rest))
		_ = e.Link("b").Status()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}
