package dtls_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// clear makes a record of epoch 0, or another that nobody has sealed.
func clearRecord(t record.Type, epoch uint16, seq uint64, body []byte) []byte {
	b := []byte{byte(t), 0xfe, 0xfd}
	b = binary.BigEndian.AppendUint64(b, uint64(epoch)<<48|seq)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

// handshakeMessage is one unfragmented message.
func handshakeMessage(typ byte, seq uint16, body []byte) []byte {
	b := []byte{typ, 0, byte(len(body) >> 8), byte(len(body))}
	b = binary.BigEndian.AppendUint16(b, seq)
	b = append(b, 0, 0, 0, 0, byte(len(body)>>8), byte(len(body)))
	return append(b, body...)
}

// forgedHello is a ClientHello that offers suites, with a cookie or none.
func forgedHello(seq uint16, version uint16, random byte, cookie []byte, suites ...uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, version)
	b = append(b, bytes.Repeat([]byte{random}, 32)...)
	b = append(b, 0, byte(len(cookie)))
	b = append(b, cookie...)
	b = binary.BigEndian.AppendUint16(b, uint16(2*len(suites)))
	for _, s := range suites {
		b = binary.BigEndian.AppendUint16(b, s)
	}
	b = append(b, 1, 0)
	ext := []byte{
		0, 23, 0, 0, // extended master secret
		0, 10, 0, 4, 0, 2, 0, 29, // X25519
		0, 11, 0, 2, 1, 0, // uncompressed points
		0, 13, 0, 4, 0, 2, 4, 3, // ECDSA with SHA-256
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(ext)))
	return clearRecord(record.Handshake, 0, uint64(seq), handshakeMessage(1, seq, append(b, ext...)))
}

// TestStrangersChangeNothing sends everything that an attacker can who isn't on
// the path and knows the addresses: the link, its keys and its state stay.
func TestStrangersChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := up(t, dtls.Options{})
		defer w.close()
		before := b.status("a")
		// What the library answers with an alert that it seals, once its handshake is over.
		junk := clearRecord(record.Handshake, 1, 1<<47, []byte{1})
		fits := clearRecord(record.Handshake, 1, 1<<46, make([]byte, 48))
		forged := [][]byte{
			slices.Concat(clearRecord(record.ChangeCipherSpec, 0, 1<<40, []byte{2}), junk),
			slices.Concat(clearRecord(record.ChangeCipherSpec, 0, 1<<40, nil), fits),
			slices.Concat(clearRecord(record.ChangeCipherSpec, 0, 1<<41, []byte{1, 1}), fits),
			slices.Concat(fits, clearRecord(record.ChangeCipherSpec, 0, 1<<42, []byte{0})),
			slices.Concat(clearRecord(record.ChangeCipherSpec, 1, 1<<43, []byte{0}), fits),
			slices.Concat(clearRecord(record.Handshake, 0, 1<<44, handshakeMessage(11, 9, []byte{0, 0, 0})), fits),
			slices.Concat(clearRecord(record.Handshake, 0, 1<<45, handshakeMessage(16, 0, nil)), junk),
			slices.Concat(clearRecord(record.Alert, 0, 1<<46, []byte{2, 0}), fits),
			slices.Concat(clearRecord(record.ApplicationData, 0, 1<<46, []byte(canary)), fits),
			clearRecord(record.Alert, 0, 9, []byte{2, 40}),
			clearRecord(record.Alert, 0, 10, []byte{1, 0}),
			clearRecord(record.Alert, 1, 1<<40, bytes.Repeat([]byte{0}, 26)),
			clearRecord(record.ChangeCipherSpec, 0, 11, []byte{1}),
			clearRecord(record.ChangeCipherSpec, 1, 11, []byte{1}),
			clearRecord(record.ApplicationData, 0, 12, []byte(canary)),
			clearRecord(record.ApplicationData, 1, 1<<47, bytes.Repeat([]byte{1}, 60)),
			clearRecord(record.ApplicationData, 2, 1, bytes.Repeat([]byte{1}, 60)),
			clearRecord(record.Handshake, 1, 1<<47, bytes.Repeat([]byte{1}, 60)),
			clearRecord(record.Handshake, 0, 13, handshakeMessage(0, 0, nil)),  // HelloRequest
			clearRecord(record.Handshake, 0, 14, handshakeMessage(14, 1, nil)), // ServerHelloDone
			clearRecord(record.Handshake, 0, 15, handshakeMessage(20, 1, make([]byte, 12))),
			clearRecord(record.Handshake, 0, 16, handshakeMessage(1, 0, nil)[:12]), // of no octets
			forgedHello(0, 0xfefd, 7, nil, 0xc02b),
			forgedHello(1, 0xfefd, 7, make([]byte, 20), 0xc02b),
			forgedHello(0, 0xfefd, 8, nil, 0xc037), // ECDHE_PSK
			forgedHello(0, 0xfeff, 9, nil, 0xc02b), // DTLS 1.0
		}
		for range 200 {
			for _, f := range forged {
				w.carry(sent{"a", "b", f}, nil)
				w.carry(sent{"b", "a", f}, nil)
			}
			settle(20 * time.Millisecond)
			talk(t, a, b)
		}
		after := b.status("a")
		if after.Generation != before.Generation || after.State != before.State || after.Failure != before.Failure {
			t.Errorf("status %+v, was %+v", after, before)
		}
		for _, h := range []*host{a, b} {
			if n := len(h.heard()); n != 0 {
				t.Errorf("%s heard %d frames that nobody sent", h.name, n)
			}
		}
		w.nonces()
	})
}

// TestHellosCostLittle floods a host with hellos that seem to come from its peers:
// it answers with no more octets than it got, remembers few, and its links and
// new ones go on.
func TestHellosCostLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := up(t, dtls.Options{MaxPending: 3})
		defer w.close()
		w.record = false
		in := 0
		var out atomic.Int64
		w.setFate(func(s sent) []sent {
			if h, _ := record.Parse(s.b); s.from == "b" && h.Epoch == 0 {
				out.Add(int64(len(s.b)))
				return nil // who sent the hello never sees the answer
			}
			return []sent{s}
		})
		for i := range 10000 {
			f := forgedHello(0, 0xfefd, byte(i), nil, 0xc02b)
			in += len(f)
			w.carry(sent{"a", "b", f}, nil)
			if i%100 == 0 {
				settle(10 * time.Millisecond)
				talk(t, a, b)
			}
		}
		settle(10 * time.Second)
		talk(t, a, b)
		if n := out.Load(); n == 0 || n > int64(in) {
			t.Errorf("%d octets sent for %d received", n, in)
		}
		if b.e.Refused() == 0 {
			t.Error("no hello was refused")
		}
	})
}

// TestNoECDHEPSK gives both roles the message that ends a process with the
// library's ECDHE_PSK suite (CVE-2026-54908): the suite can't be negotiated, so
// the message isn't parsed that way.
func TestNoECDHEPSK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		defer w.close()
		var hellos [][]byte
		var cookie []byte
		w.setFate(func(s sent) []sent {
			h, _ := record.Parse(s.b)
			switch {
			case h.Type == record.Handshake && h.Epoch == 0 && s.b[record.HeaderLen] == 1:
				hellos = append(hellos, s.b)
			case h.Type == record.Handshake && h.Epoch == 0 && s.b[record.HeaderLen] == 3:
				cookie = s.b[len(s.b)-20:]
			}
			return nil
		})
		h := w.host("b", dtls.Options{}, shared(t, 1), "a")
		settle(5 * time.Second) // it takes a server's numbers as they are by now
		if len(hellos) == 0 {
			t.Fatal("no hello")
		}
		// Version, random, session, cookie; then the suites.
		suites := hellos[0][record.HeaderLen+12+2+32+1+1:]
		n := int(binary.BigEndian.Uint16(suites))
		for i := 0; i < n; i += 2 {
			if s := record.Suite(binary.BigEndian.Uint16(suites[2+i:])); s != record.PSKWithAES128GCM && s != 0x00ff {
				t.Errorf("offers %v", s)
			}
		}
		poison := []byte{0, 1, 'x'}
		// As a server to a client that has chosen ECDHE_PSK all the same.
		serverHello := append([]byte{0xfe, 0xfd}, make([]byte, 33)...)
		serverHello = append(serverHello, 0xc0, 0x37, 0, 0, 4, 0, 23, 0, 0)
		w.carry(sent{"a", "b", clearRecord(record.Handshake, 0, 0, handshakeMessage(2, 0, serverHello))}, nil)
		w.carry(sent{"a", "b", clearRecord(record.Handshake, 0, 1, handshakeMessage(12, 1, poison))}, nil)
		w.carry(sent{"a", "b", clearRecord(record.Handshake, 0, 2, handshakeMessage(14, 2, nil))}, nil)
		settle(time.Second)
		// As a client, with each suite.
		for i, suite := range []uint16{0xc037, 0x00a8} {
			cookie = nil
			w.carry(sent{"a", "b", forgedHello(0, 0xfefd, byte(i), nil, suite)}, nil)
			settle(time.Second)
			if (cookie != nil) != (suite == 0x00a8) {
				t.Errorf("suite %v: answered with cookie %x", record.Suite(suite), cookie)
			}
			w.carry(sent{"a", "b", forgedHello(1, 0xfefd, byte(i), cookie, suite)}, nil)
			w.carry(sent{"a", "b", clearRecord(record.Handshake, 0, 2, handshakeMessage(16, 2, poison))}, nil)
			settle(15 * time.Second)
		}
		if h.say("a", "x") {
			t.Error("a link is up")
		}
	})
}

// TestMessageOrder gives a host the datagrams of genuine handshakes in any order,
// with repetitions, omissions and changes, as an attacker on the path can: data
// are delivered when both have the same keys, and never else.
func TestMessageOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		losses := rapid.IntRange(0, 40).Draw(rt, "losses")
		synctest.Test(t, func(t *testing.T) {
			w := newWire(t)
			defer w.close()
			w.fate = mischief(w, seed, losses)
			c := newCA(t)
			a := w.host("a", dtls.Options{}, c.credentials("a"), "b")
			b := w.host("b", dtls.Options{}, c.credentials("b"), "a")
			for i := range 40 {
				settle(250 * time.Millisecond)
				a.say("b", fmt.Sprint(i))
				b.say("a", fmt.Sprint(i))
			}
			for _, h := range []*host{a, b} {
				got := h.heard()
				once := slices.Compact(slices.Sorted(slices.Values(got)))
				if len(once) != len(got) {
					t.Errorf("%s heard a frame twice: %q", h.name, got)
				}
				for _, f := range got {
					if len(f) < len(canary) || f[:len(canary)] != canary {
						t.Errorf("%s heard %q, which nobody sent", h.name, f)
					}
				}
			}
			w.setFate(nil)
			settle(time.Minute)
			a.heard()
			b.heard()
			talk(t, a, b)
			w.noLeaks()
			w.nonces()
		})
	})
}

// mischief loses, doubles, changes, cuts and reorders datagrams, and replays old
// ones either way; the same for the same seed.
func mischief(w *wire, seed uint64, losses int) func(sent) []sent {
	state := seed | 1
	roll := func(n int) int {
		state = state*6364136223846793005 + 1442695040888963407
		return int(state>>33) % n
	}
	var old []sent
	return func(s sent) []sent {
		w.mu.Lock()
		defer w.mu.Unlock()
		old = append(old, s)
		out := []sent{s}
		if roll(100) < losses {
			out = nil
		}
		switch roll(8) {
		case 0:
			out = append(out, old[roll(len(old))])
		case 1: // back to who sent it
			r := old[roll(len(old))]
			out = append(out, sent{r.to, r.from, r.b})
		case 2:
			c := slices.Clone(s.b)
			c[roll(len(c))] ^= 1 << roll(8)
			out = append([]sent{{s.from, s.to, c}}, out...)
		case 3:
			out = append(out, sent{s.from, s.to, s.b[:roll(len(s.b)+1)]})
		case 4:
			time.AfterFunc(time.Duration(roll(1000))*time.Millisecond, func() { w.hand(s) })
			out = nil
		case 5: // out of its order: one after a later one
			if n := len(old); n > 2 {
				out = append(out, old[n-2], old[n-3])
			}
		}
		return out
	}
}
