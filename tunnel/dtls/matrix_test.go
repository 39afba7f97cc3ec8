package dtls_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
)

// stage is two hosts, what they have, and a counter of frames.
type stage struct {
	t      *testing.T
	w      *wire
	o      dtls.Options
	c      *ca
	a, b   *host
	cred   map[string]*dtls.Credentials
	frames int
}

// run lets d pass while both sides send all the time.
func (s *stage) run(d time.Duration) {
	s.t.Helper()
	for range d / (50 * time.Millisecond) {
		for _, h := range []*host{s.a, s.b} {
			if h != nil {
				s.frames++
				h.say(map[string]string{"a": "b", "b": "a"}[h.name], fmt.Sprint(" frame ", s.frames))
			}
		}
		settle(50 * time.Millisecond)
	}
}

func (s *stage) start(name string) {
	peer := map[string]string{"a": "b", "b": "a"}[name]
	h := s.w.host(name, s.o, s.cred[name], peer)
	if name == "a" {
		s.a = h
	} else {
		s.b = h
	}
}

// check fails the test when anything left in clear, or arrived that wasn't sent,
// or arrived twice.
func (s *stage) check() {
	s.t.Helper()
	for _, h := range []*host{s.a, s.b} {
		if h == nil {
			continue
		}
		got := h.heard()
		slices.Sort(got)
		if n := len(got); n != len(slices.Compact(got)) {
			s.t.Errorf("%s heard a frame twice", h.name)
		}
	}
	s.w.noLeaks()
	s.w.nonces()
}

// TestFailClosed walks every fault through every state with a canary in all
// frames: it never is on the wire, and where the fault ends the right to a link
// no frame leaves.
func TestFailClosed(t *testing.T) {
	states := map[string]func(*stage){
		"no peer yet": func(s *stage) { s.start("a"); s.run(2 * time.Second) },
		"handshaking": func(s *stage) {
			s.w.delay(500 * time.Millisecond)
			s.start("a")
			s.start("b")
			s.run(1200 * time.Millisecond)
		},
		"established": func(s *stage) { s.start("a"); s.start("b"); s.run(3 * time.Second) },
		"rekeying": func(s *stage) {
			s.w.delay(300 * time.Millisecond)
			s.start("a")
			s.start("b")
			s.run(30 * time.Second)
		},
	}
	// closes says whether a may send nothing some time after the fault.
	faults := map[string]struct {
		closes bool
		do     func(*stage)
	}{
		"nothing":      {false, func(s *stage) {}},
		"peer killed":  {true, func(s *stage) { s.kill("b") }},
		"own kill":     {false, func(s *stage) { s.kill("a"); s.start("a") }},
		"peer restart": {false, func(s *stage) { s.kill("b"); s.run(time.Second); s.start("b") }},
		"both restart": {false, func(s *stage) { s.kill("a"); s.kill("b"); s.start("b"); s.start("a") }},
		"cut wire":     {true, func(s *stage) { s.w.only(func(sent) bool { return false }) }},
		"one way": {true, func(s *stage) {
			s.w.only(func(d sent) bool { return d.from == "a" })
		}},
		"no credentials":    {true, func(s *stage) { s.a.apply(nil, "b") }},
		"other shared key":  {true, func(s *stage) { s.a.apply(shared(s.t, 9), "b") }},
		"other CA":          {true, func(s *stage) { s.a.apply(newCA(s.t).credentials("a"), "b") }},
		"revoked":           {true, func(s *stage) { s.a.apply(s.c.credentialsWith("a", s.c.crl(101, 102), nil), "b") }},
		"own new key":       {false, func(s *stage) { s.a.apply(s.c.credentials("a"), "b") }},
		"removed":           {true, func(s *stage) { s.a.apply(s.cred["a"]) }},
		"removed and added": {false, func(s *stage) { s.a.apply(s.cred["a"]); s.a.apply(s.cred["a"], "b") }},
		"all changed": {true, func(s *stage) {
			s.w.only(nil)
			s.w.setFate(func(d sent) []sent { d.b = slices.Clone(d.b); d.b[len(d.b)-1] ^= 1; return []sent{d} })
		}},
	}
	for state, enter := range states {
		for fault, f := range faults {
			t.Run(state+"/"+fault, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &stage{t: t, w: newWire(t), c: newCA(t), o: dtls.Options{RekeyAfter: 7 * time.Second}}
					defer s.w.close()
					s.cred = map[string]*dtls.Credentials{"a": s.c.credentials("a"), "b": s.c.credentials("b")}
					enter(s)
					f.do(s)
					s.run(2 * time.Second)
					s.run(25 * time.Second)
					if f.closes && s.a.say("b", "x") {
						t.Errorf("a may still send: %+v", s.a.status("b"))
					}
					s.check()
					// All is well again: so is the link.
					s.w.setFate(nil)
					if s.b == nil {
						s.start("b")
					}
					s.a.apply(s.cred["a"], "b")
					settle(40 * time.Second)
					s.a.heard()
					s.b.heard()
					talk(t, s.a, s.b)
					s.check()
				})
			})
		}
	}
}

func (s *stage) kill(name string) {
	for _, h := range []**host{&s.a, &s.b} {
		if *h != nil && (*h).name == name {
			(*h).stop()
			*h = nil
		}
	}
}
