package dtls_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// up are two hosts with an established link.
func up(t *testing.T, o dtls.Options) (w *wire, a, b *host) {
	t.Helper()
	w = newWire(t)
	c := newCA(t)
	a = w.host("a", o, c.credentials("a"), "b")
	b = w.host("b", o, c.credentials("b"), "a")
	settle(2 * time.Second)
	talk(t, a, b)
	return w, a, b
}

// TestRekeyLosesNothing sends in both directions while keys are renewed again and
// again, by handshakes that lose much on the way, and misses no frame.
func TestRekeyLosesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		o      dtls.Options
		losses int // datagrams of handshakes in a hundred
	}{
		"by records":        {dtls.Options{RekeyRecords: 500, MaxRecords: 4000, Overlap: 3 * time.Second}, 0},
		"by records, lossy": {dtls.Options{RekeyRecords: 500, MaxRecords: 20000, Overlap: 3 * time.Second}, 30},
		"by time":           {dtls.Options{RekeyAfter: 20 * time.Second, Overlap: 3 * time.Second}, 0},
		"by time, lossy":    {dtls.Options{RekeyAfter: 20 * time.Second, Overlap: 3 * time.Second}, 30},
		"each second":       {dtls.Options{RekeyAfter: time.Second}, 30},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, b := up(t, test.o)
				defer w.close()
				w.setFate(lossy(w, 30*time.Millisecond, test.losses))
				const frames = 10000
				for i := range frames {
					if !a.say("b", fmt.Sprint(i)) || !b.say("a", fmt.Sprint(i)) {
						t.Fatalf("frame %d: no link: %+v, %+v", i, a.status("b"), b.status("a"))
					}
					settle(10 * time.Millisecond)
				}
				settle(time.Second)
				for _, h := range []*host{a, b} {
					numbered(t, h, frames)
				}
				s := a.status("b")
				if s.Generation < 4 || s.Older > 2 {
					t.Errorf("status %+v, want some generations and few older keys", s)
				}
				w.noLeaks()
				w.nonces()
			})
		})
	}
}

// numbered fails the test unless h has heard the frames 0 to n-1, each once, and
// in the order in which they were sent.
func numbered(t *testing.T, h *host, n int) {
	t.Helper()
	got := h.heard()
	for i, f := range got {
		if i >= n || f != canary+fmt.Sprint(i) {
			t.Errorf("%s heard %q as frame %d", h.name, f, i)
			return
		}
	}
	if len(got) != n {
		t.Errorf("%s heard %d frames of %d", h.name, len(got), n)
	}
}

// lossy makes every datagram take d, and loses some of a hundred of handshakes, but
// never a third in a row one way: no handshake fails by it for ever.
func lossy(w *wire, d time.Duration, losses int) func(sent) []sent {
	lost := map[string]int{}
	return func(s sent) []sent {
		h, _ := record.Parse(s.b)
		w.mu.Lock()
		defer w.mu.Unlock()
		if (h.Epoch == 0 || h.Type == record.Handshake) && lost[s.from] < 2 && rand.N(100) < losses {
			lost[s.from]++
			return nil
		}
		lost[s.from] = 0
		time.AfterFunc(d, func() { w.hand(s) })
		return nil
	}
}

// TestRekeyAtTheEdges sets times and numbers that are as small and as large as they
// can be: the link is there, and either side renews its keys.
func TestRekeyAtTheEdges(t *testing.T) {
	for name, test := range map[string]struct {
		o      dtls.Options
		renews bool
	}{
		"the longest time":              {dtls.Options{RekeyAfter: math.MaxInt64}, false},
		"the most records":              {dtls.Options{RekeyRecords: 1<<32 - 1}, false},
		"all but one":                   {dtls.Options{RekeyRecords: 999, MaxRecords: 1000}, false},
		"nearly all":                    {dtls.Options{RekeyRecords: 900, MaxRecords: 1000}, true},
		"nearly all, and the time long": {dtls.Options{RekeyRecords: 900, MaxRecords: 1000, RekeyAfter: math.MaxInt64}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, b := up(t, test.o)
				defer w.close()
				for range 3 {
					settle(time.Minute)
					talk(t, a, b)
				}
				// One side alone sends: it is the one that has to ask.
				for _, pair := range [][2]*host{{a, b}, {b, a}} {
					from, to := pair[0], pair[1]
					before := from.status(to.name).Generation
					for i := range 2000 {
						if test.renews && !from.say(to.name, "x") {
							t.Fatalf("%s: frame %d: no link: %+v", from.name, i, from.status(to.name))
						}
						settle(10 * time.Millisecond)
					}
					if got := from.status(to.name).Generation; test.renews && got < before+2 {
						t.Errorf("%s has sent 2000 frames, and has had %d generations of keys", from.name, got-before)
					}
					to.heard()
				}
				talk(t, a, b)
			})
		})
	}
}

// TestKeysEnd lets no renewal succeed: the link ends rather than seal too much.
func TestKeysEnd(t *testing.T) {
	for name, o := range map[string]dtls.Options{
		"by records": {RekeyRecords: 100, MaxRecords: 300},
		"by time":    {RekeyAfter: 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, b := up(t, o)
				defer w.close()
				w.only(func(s sent) bool { h, _ := record.Parse(s.b); return h.Epoch > 0 && h.Type != record.Handshake })
				left := 0
				for range 2000 {
					if a.say("b", "x") {
						left++
					}
					settle(50 * time.Millisecond)
				}
				if o.MaxRecords > 0 && left > int(o.MaxRecords) || left == 2000 {
					t.Errorf("%d frames left", left)
				}
				if a.say("b", "x") || !a.failures("b")[dtls.Spent] {
					t.Errorf("the link still takes frames, or doesn't say why it ended: %+v", a.status("b"))
				}
				if got := len(b.heard()); got != left {
					t.Errorf("b heard %d of %d", got, left)
				}
				// It comes back when handshakes pass again.
				w.only(nil)
				settle(30 * time.Second)
				talk(t, a, b)
				w.noLeaks()
			})
		})
	}
}

// TestBothRenew makes both sides renew at the same moment, again and again.
func TestBothRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := up(t, dtls.Options{RekeyRecords: 100, MaxRecords: 5000})
		defer w.close()
		w.delay(100 * time.Millisecond)
		for i := range 3000 {
			if !a.say("b", fmt.Sprint(i)) {
				t.Fatalf("frame %d: no link: %+v", i, a.status("b"))
			}
			if i%100 == 50 { // b has sealed more than its share at once
				for range 150 {
					b.say("a", "burst")
				}
			}
			settle(10 * time.Millisecond)
		}
		settle(time.Second)
		if got := len(b.heard()); got != 3000 {
			t.Errorf("b heard %d frames of 3000", got)
		}
		w.noLeaks()
		w.nonces()
	})
}

// TestLastFlightLost loses the server's last flight: the client repeats its own.
func TestLastFlightLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		defer w.close()
		lost := 0
		w.fate = func(s sent) []sent {
			if s.from == "b" && finishedIn(s.b) && lost < 2 {
				lost++
				return nil
			}
			return []sent{s}
		}
		c := newCA(t)
		a := w.host("a", dtls.Options{}, c.credentials("a"), "b")
		b := w.host("b", dtls.Options{}, c.credentials("b"), "a")
		settle(8 * time.Second)
		talk(t, a, b)
		if lost != 2 || a.status("b").Generation != 1 {
			t.Errorf("lost %d flights, status %+v", lost, a.status("b"))
		}
		w.nonces()
	})
}

// TestRestart kills a host and starts it again, either one, and with either the
// name that is the client: the other accepts it at once, though it believes the
// link is up.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		defer w.close()
		c := newCA(t)
		cred := map[string]*dtls.Credentials{"a": c.credentials("a"), "b": c.credentials("b")}
		hosts := map[string]*host{}
		start := func(n, peer string) { hosts[n] = w.host(n, dtls.Options{}, cred[n], peer) }
		start("a", "b")
		start("b", "a")
		settle(2 * time.Second)
		for i := range 6 {
			n, peer := "a", "b"
			if i%2 == 1 {
				n, peer = peer, n
			}
			hosts[n].stop()
			settle(time.Second)
			start(n, peer)
			settle(2 * time.Second)
			talk(t, hosts[n], hosts[peer])
			if s := hosts[peer].status(n); s.State != dtls.Established {
				t.Errorf("restart %d of %s: %+v", i, n, s)
			}
		}
		w.noLeaks()
		w.nonces()
	})
}

// TestSilence cuts the wire: the link is given up, and comes back.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := up(t, dtls.Options{})
		defer w.close()
		w.only(func(sent) bool { return false })
		settle(20 * time.Second)
		if a.say("b", "x") || b.say("a", "x") || !a.failures("b")[dtls.Silent] {
			t.Errorf("the link is still up: %+v", a.status("b"))
		}
		w.only(nil)
		settle(20 * time.Second)
		talk(t, a, b)
		w.noLeaks()
	})
}

// TestCredentialsChange revokes, withdraws and replaces while the link is up.
func TestCredentialsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		defer w.close()
		c := newCA(t)
		cert, key := c.issue("b", nil) // serial 101
		first := must(t)(dtls.Certificates(cert, key, c.pem(), nil))
		a := w.host("a", dtls.Options{}, c.credentials("a"), "b")
		b := w.host("b", dtls.Options{}, first, "a")
		settle(2 * time.Second)
		talk(t, a, b)

		a.apply(c.credentials("a"), "b") // a renewed certificate
		if !a.say("b", "x") {
			t.Error("a new certificate of ours has closed the link")
		}
		b.heard()

		a.apply(c.credentialsWith("a", c.crl(101), nil), "b")
		if a.say("b", "x") || a.status("b").Failure.Reason != dtls.Revoked {
			t.Errorf("revoked: %+v", a.status("b"))
		}
		settle(time.Minute)
		if a.say("b", "x") {
			t.Error("revoked, and up again")
		}
		b.apply(c.credentials("b"), "a")
		settle(time.Minute)
		talk(t, a, b)

		a.apply(nil, "b")
		if a.say("b", "x") {
			t.Error("without credentials, and up")
		}
		a.apply(shared(t, 1), "b")
		settle(time.Minute)
		if a.say("b", "x") {
			t.Error("shared key against certificate, and up")
		}
		b.apply(shared(t, 1), "a")
		settle(time.Minute)
		talk(t, a, b)
		a.apply(shared(t, 2), "b")
		if a.say("b", "x") {
			t.Error("another shared key, and up")
		}
		w.noLeaks()
		w.nonces()
	})
}

// TestExpiresInUse lets a certificate expire while the link is up: the peer's own,
// one above it, or the CA's.
func TestExpiresInUse(t *testing.T) {
	for name, credentials := range map[string]func(c *ca) (a, b *dtls.Credentials){
		"the peer's": func(c *ca) (a, b *dtls.Credentials) {
			return c.credentials("a"), c.credentialsWith("b", nil, expiresIn(time.Minute))
		},
		"an intermediate": func(c *ca) (a, b *dtls.Credentials) {
			below := c.under(time.Minute)
			cert, key := below.issue("b", nil)
			return c.credentials("a"), must(c.t)(dtls.Certificates(append(cert, below.pem()...), key, c.pem(), nil))
		},
		"the CA's": func(c *ca) (a, b *dtls.Credentials) {
			cert, key := c.issue("a", nil)
			return must(c.t)(dtls.Certificates(cert, key, c.again(time.Minute).pem(), nil)), c.credentials("b")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t)
				defer w.close()
				ca, cb := credentials(newCA(t))
				a := w.host("a", dtls.Options{}, ca, "b")
				b := w.host("b", dtls.Options{}, cb, "a")
				settle(2 * time.Second)
				talk(t, a, b)
				settle(time.Minute)
				if a.say("b", "x") || !a.failures("b")[dtls.Expired] {
					t.Errorf("expired, and up: %+v", a.status("b"))
				}
				w.noLeaks()
			})
		})
	}
}

// TestLivesLonger renews a CA's certificate while a link is up that the former one
// would end: it goes on.
func TestLivesLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		defer w.close()
		c := newCA(t)
		cert, key := c.issue("a", nil)
		a := w.host("a", dtls.Options{}, must(t)(dtls.Certificates(cert, key, c.again(time.Minute).pem(), nil)), "b")
		b := w.host("b", dtls.Options{}, c.credentials("b"), "a")
		settle(2 * time.Second)
		talk(t, a, b)
		a.apply(must(t)(dtls.Certificates(cert, key, append(c.again(time.Minute).pem(), c.again(10*time.Minute).pem()...), nil)), "b")
		settle(2 * time.Minute)
		talk(t, a, b)
		if s := a.status("b"); s.Generation != 1 {
			t.Errorf("another link: %+v", s)
		}
		settle(10 * time.Minute)
		if a.say("b", "x") {
			t.Errorf("expired, and up: %+v", a.status("b"))
		}
	})
}

// TestPeerRemoved takes a peer away and adds it again.
func TestPeerRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := up(t, dtls.Options{})
		defer w.close()
		gone := a.e.Link("b")
		c := shared(t, 3)
		a.apply(c)
		if a.say("b", "x") || gone.Status().State != dtls.Closed {
			t.Errorf("removed, and up: %+v", gone.Status())
		}
		settle(time.Second)
		if b.say("a", "x") {
			t.Error("b wasn't told that the link is closed")
		}
		a.apply(c, "b")
		b.apply(c, "a")
		settle(20 * time.Second)
		talk(t, a, b)
		w.noLeaks()
	})
}

// TestPeerMoves gives a peer another address: the link to the former one ends.
func TestPeerMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := up(t, dtls.Options{})
		defer w.close()
		c := newCA(t).credentials("a")
		if err := a.e.Apply(c, []dtls.Peer{{Name: "b", Address: addresses["c"]}}); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		if s := a.status("b"); a.say("b", "x") || b.say("a", "x") || s.Failure.Reason != dtls.Withdrawn || s.Address != addresses["c"] {
			t.Errorf("moved, and up: %+v", s)
		}
		w.noLeaks()
	})
}
