package dtls_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// orders are all ways to say n things of a number of kinds, repetitions included.
// Who looks after each thing has seen the shorter ways too.
func orders(kinds, n int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		order := make([]int, n)
		for {
			if !yield(order) {
				return
			}
			i := n - 1
			for ; i >= 0 && order[i] == kinds-1; i-- {
				order[i] = 0
			}
			if i < 0 {
				return
			}
			order[i]++
		}
	}
}

// permutations are all orders of n things, each once.
func permutations(n int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		for o := range orders(n, n) {
			sorted := slices.Sorted(slices.Values(o))
			if len(slices.Compact(sorted)) == n && !yield(o) {
				return
			}
		}
	}
}

// retransmit is after how long a flight is repeated.
const retransmit = time.Second

// fewer is how long the orders are that are tried, n unless time is short.
func fewer(n int) int {
	if racing || testing.Short() {
		return n - 1
	}
	return n
}

// forgery makes a message of a client without credentials, with its number.
type forgery func(number uint16) []byte

func forgeries(t *testing.T, c *ca) []forgery {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := append([]byte{byte(len(k.PublicKey().Bytes()))}, k.PublicKey().Bytes()...)
	n := len(c.cert.Raw)
	chain := append([]byte{0, byte((n + 3) >> 8), byte(n + 3), 0, byte(n >> 8), byte(n)}, c.cert.Raw...)
	message := func(typ byte, body []byte) forgery {
		return func(number uint16) []byte {
			return clearRecord(record.Handshake, 0, uint64(number), handshakeMessage(typ, number, body))
		}
	}
	other := func(typ record.Type, epoch uint16, body []byte) forgery {
		return func(number uint16) []byte { return clearRecord(typ, epoch, uint64(number), body) }
	}
	return []forgery{
		message(11, []byte{0, 0, 0}), // no certificate
		message(11, chain),
		message(16, key),
		message(16, []byte{0, 1, 'a'}), // with a shared key
		message(15, append([]byte{4, 3, 0, 8}, 0x30, 6, 2, 1, 1, 2, 1, 1)),
		message(20, make([]byte, 12)),
		other(record.ChangeCipherSpec, 0, []byte{1}),
		other(record.Handshake, 1, make([]byte, 48)),
		other(record.ApplicationData, 0, []byte(canary)),
		other(record.ApplicationData, 1, append(make([]byte, 24), canary...)),
		other(record.Alert, 0, []byte{1, 0}),
	}
}

// TestIllegalPaths is a client without any credentials that returns the cookie
// and then sends what it likes, in every order: nothing is ever delivered.
func TestIllegalPaths(t *testing.T) {
	for name, credentials := range map[string]func(c *ca) *dtls.Credentials{
		"certificates": func(c *ca) *dtls.Credentials { return c.credentials("b") },
		"shared key":   func(c *ca) *dtls.Credentials { return shared(c.t, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCA(t)
				all := forgeries(t, c)
				cred := credentials(c)
				for order := range orders(len(all), fewer(4)) {
					illegal(t, cred, all, order)
				}
			})
		})
	}
}

// illegal tries one order.
func illegal(t *testing.T, cred *dtls.Credentials, all []forgery, order []int) {
	t.Helper()
	w := newWire(t)
	defer w.close()
	var cookie []byte
	w.setFate(func(s sent) []sent {
		if h, _ := record.Parse(s.b); h.Type == record.Handshake && h.Epoch == 0 && s.b[record.HeaderLen] == 3 {
			cookie = s.b[len(s.b)-20:]
		}
		return nil
	})
	b := w.host("b", dtls.Options{}, cred, "a")
	suites := []uint16{0xc02b, 0x00a8}
	w.carry(sent{"a", "b", forgedHello(0, 0xfefd, 1, nil, suites...)}, nil)
	synctest.Wait()
	if cookie == nil {
		t.Fatal("no cookie")
	}
	w.carry(sent{"a", "b", forgedHello(1, 0xfefd, 1, cookie, suites...)}, nil)
	for i, k := range order {
		synctest.Wait()
		w.carry(sent{"a", "b", all[k](uint16(2 + i))}, nil)
	}
	synctest.Wait()
	if got := b.heard(); len(got) > 0 || b.say("a", "x") || b.verdicts[dtls.Delivered] > 0 {
		t.Fatalf("order %v: delivered %q, status %+v", order, got, b.status("a"))
	}
}

// flight is a genuine flight, record by record, that was stopped on its way from
// one host to another.
type flight struct {
	w        *wire
	from, to *host
	parts    [][]byte
}

// stopped starts two hosts and stops the flight of host from that begins with a
// message.
func stopped(t *testing.T, a, b *dtls.Credentials, from string, begins byte) *flight {
	t.Helper()
	f := &flight{w: newWire(t)}
	var mu sync.Mutex
	stop := false
	f.w.setFate(func(s sent) []sent {
		mu.Lock()
		defer mu.Unlock()
		h, _ := record.Parse(s.b)
		stop = stop || s.from == from && h.Type == record.Handshake && h.Epoch == 0 && s.b[record.HeaderLen] == begins
		if !stop {
			return []sent{s}
		}
		for b := s.b; s.from == from && len(b) > 0; {
			h, ok := record.Parse(b)
			if !ok {
				t.Fatalf("%s has sent %x", from, b)
			}
			f.parts = append(f.parts, b[:record.HeaderLen+h.Length])
			b = b[record.HeaderLen+h.Length:]
		}
		return nil
	})
	// The client is a: the other waits longer before it begins.
	f.to = f.w.host("b", dtls.Options{}, b, "a")
	f.from = f.w.host("a", dtls.Options{}, a, "b")
	if from == "b" {
		f.from, f.to = f.to, f.from
	}
	// The library misses a flight now and then, and takes it when it is repeated.
	synctest.Wait()
	none := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(f.parts) == 0
	}
	for i := 0; i < 10 && none(); i++ {
		settle(retransmit)
	}
	f.w.setFate(nil)
	synctest.Wait() // what was being stopped is
	return f
}

// deliver brings the parts in an order, of which those beyond the flight's are
// forged, and fails the test when the host takes the link for up before it has them
// all. When it has, the link comes up.
func (f *flight) deliver(t *testing.T, order []int) {
	t.Helper()
	h, _ := record.Parse(f.parts[0])
	forged := [][]byte{ // by somebody on the path, who knows the numbers
		clearRecord(record.ApplicationData, 1, 0, append(make([]byte, 24), canary...)),
		clearRecord(record.ChangeCipherSpec, 0, h.Sequence+100, []byte{1}),
		sealedFinished(0, 7),
	}
	all := slices.Concat(f.parts, forged)
	there := map[string]bool{}
	missing := len(f.parts)
	for i, k := range order {
		// A change of the cipher is as good as another: nothing tells whose it is.
		if what := string(all[k][record.HeaderLen:]); !there[what] && slices.ContainsFunc(f.parts, func(b []byte) bool {
			return string(b[record.HeaderLen:]) == what
		}) {
			there[what] = true
			missing--
		}
		f.w.hand(sent{f.from.name, f.to.name, all[k]})
		synctest.Wait()
		if got := f.to.heard(); len(got) > 0 || missing > 0 && (f.to.status(f.from.name).State.Encrypted() || f.to.say(f.from.name, "x")) {
			t.Fatalf("order %v, after %d: delivered %q, status %+v", order, i+1, got, f.to.status(f.from.name))
		}
	}
	if missing == 0 {
		settle(3 * time.Second)
		if talk(t, f.from, f.to); t.Failed() {
			t.Fatalf("order %v: no link", order)
		}
	}
}

// TestOrders brings a genuine flight to a server, and to a client, in every order,
// with omissions, repetitions and forgeries: the link is up when all was there,
// and never before.
func TestOrders(t *testing.T) {
	certificates := func(t *testing.T) (a, b *dtls.Credentials) {
		c := newCA(t)
		return c.credentials("a"), c.credentials("b")
	}
	key := func(t *testing.T) (a, b *dtls.Credentials) { return shared(t, 1), shared(t, 1) }
	for _, test := range []struct {
		name        string
		credentials func(t *testing.T) (a, b *dtls.Credentials)
		from        string
		begins      byte
		parts       int
		length      int
	}{
		{"certificates, to a server", certificates, "a", 11, 5, 4},
		{"certificates, to a client", certificates, "b", 2, 5, 4},
		{"shared key, to a server", key, "a", 16, 3, 5},
		{"shared key, to a client", key, "b", 2, 3, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := test.credentials(t)
				try := func(order []int) {
					f := stopped(t, a, b, test.from, test.begins)
					defer f.w.close()
					if len(f.parts) != test.parts {
						t.Fatalf("a flight of %d records, want %d", len(f.parts), test.parts)
					}
					f.deliver(t, order)
				}
				for order := range permutations(test.parts) {
					try(order)
				}
				for order := range orders(test.parts+3, fewer(test.length)) {
					try(order)
				}
			})
		})
	}
}
