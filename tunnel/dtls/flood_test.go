package dtls_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// junk are datagrams that anybody may send, of all the kinds that a link may wait
// for, and what is right at some moment of a handshake; hellos are all different.
func junk() [][]byte {
	random, number := byte(rand.N(256)), rand.Uint64N(2)<<40+rand.Uint64N(20)
	hello := append([]byte{0xfe, 0xfd}, make([]byte, 33)...)
	hello = append(hello, 0xc0, 0x2b, 0, 0, 4, 0, 23, 0, 0)
	cookie := append([]byte{0xfe, 0xfd, 20}, make([]byte, 20)...)
	all := [][]byte{
		clearRecord(record.Handshake, 0, number, nil),
		clearRecord(record.ChangeCipherSpec, 0, number, []byte{1}),
		clearRecord(record.ChangeCipherSpec, 0, number, nil),
		clearRecord(record.Alert, 0, number, []byte{2, 40}),
		sealedFinished(number, rand.Uint64()),
		forgedHello(0, 0xfefd, random, nil, 0xc02b),
		forgedHello(1, 0xfefd, random, cookie[3:], 0xc02b),
	}
	for _, m := range []struct {
		message byte
		body    []byte
	}{{3, cookie}, {2, hello}, {11, []byte{0, 0, 0}}, {12, make([]byte, 20)}, {14, nil}, {15, make([]byte, 20)}, {16, make([]byte, 20)}} {
		all = append(all, clearRecord(record.Handshake, 0, number, handshakeMessage(m.message, uint16(rand.N(16)), m.body)))
	}
	return all
}

// TestFloodAcrossRekey floods both ends of a link, while its keys grow old, with
// everything that may be forged: it gets new ones in time, and loses no frame.
func TestFloodAcrossRekey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const after = 40 * time.Second
		w, a, b := up(t, dtls.Options{RekeyAfter: after})
		defer w.close()
		w.delay(5 * time.Millisecond)
		frames := 0
		for at := time.Now(); time.Since(at) < 3*after; frames++ {
			for _, f := range junk() {
				w.carry(sent{"a", "b", f}, nil)
				w.carry(sent{"b", "a", f}, nil)
			}
			settle(rand.N(12 * time.Millisecond))
			if !a.say("b", fmt.Sprint(frames)) || !b.say("a", fmt.Sprint(frames)) {
				t.Fatalf("after %v: %+v, %+v", time.Since(at), a.status("b"), b.status("a"))
			}
		}
		settle(time.Second)
		numbered(t, a, frames)
		numbered(t, b, frames)
		if s := a.status("b"); s.Generation < 2 {
			t.Errorf("no new keys: %+v", s)
		}
	})
}

// TestStartUnderFlood starts a host again whose peer is flooded in its name.
func TestStartUnderFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.record = false
		defer w.close()
		c := newCA(t)
		cred := c.credentials("a")
		b := w.host("b", dtls.Options{}, c.credentials("b"), "a")
		a := w.host("a", dtls.Options{}, cred, "b")
		settle(2 * time.Second)
		talk(t, a, b)
		a.stop()
		a = w.host("a", dtls.Options{}, cred, "b")
		before := b.status("a").Generation
		for at := time.Now(); b.status("a").Generation == before; {
			for _, f := range junk() {
				w.carry(sent{"a", "b", f}, nil)
			}
			settle(rand.N(12 * time.Millisecond)) // not in step with who repeats its hello
			if time.Since(at) > 5*time.Minute {
				t.Fatalf("no link: %+v", b.status("a"))
			}
		}
		settle(time.Second)
		talk(t, a, b)
	})
}

// crowd is an endpoint with many peers who don't answer.
type crowd struct {
	e     *dtls.Endpoint
	peers []dtls.Peer

	mu      sync.Mutex
	answers map[netip.AddrPort]int // HelloVerifyRequests
}

func newCrowd(t *testing.T, n int, o dtls.Options) *crowd {
	t.Helper()
	c := &crowd{answers: map[netip.AddrPort]int{}}
	o.Host = "z"
	o.Send = func(to netip.AddrPort, b []byte) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if b[record.HeaderLen] == 3 {
			c.answers[to]++
		}
		return nil
	}
	for i := range n {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 4788)
		c.peers = append(c.peers, dtls.Peer{Name: fmt.Sprint("p", i), Address: at})
	}
	var err error
	if c.e, err = dtls.New(o); err != nil {
		t.Fatal(err)
	}
	if err := c.e.Apply(newCA(t).credentials("z"), c.peers); err != nil {
		t.Fatal(err)
	}
	return c
}

// greet sends a hello in the name of peer i.
func (c *crowd) greet(i int, random byte) {
	var r record.Reader
	c.e.Link(c.peers[i].Name).Open(&r, c.peers[i].Address, forgedHello(0, 0xfefd, random, nil, 0xc02b))
}

// answered is how many hellos in the name of peer i were answered.
func (c *crowd) answered(i int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers[c.peers[i].Address]
}

// TestGreetingsAreFair floods a host in the name of some peers: the hello of
// another finds room.
func TestGreetingsAreFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const flooded = 20
		c := newCrowd(t, flooded+10, dtls.Options{})
		defer c.e.Close()
		for round := range 50 {
			for n := range 10 {
				for i := range flooded {
					c.greet(i, byte(10*round+n))
				}
			}
			synctest.Wait()
			last := flooded + round%10
			before := c.answered(last)
			c.greet(last, byte(round))
			synctest.Wait()
			if c.answered(last) == before {
				t.Fatalf("round %d: the hello of a peer that has sent no other isn't answered", round)
			}
			settle(100 * time.Millisecond)
		}
		if c.e.Refused() == 0 {
			t.Error("no hello was refused")
		}
	})
}

// TestRenewalsComeFirst gives two hosts with a link many peers who don't answer:
// the link gets new keys in time all the same.
func TestRenewalsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.record = false
		defer w.close()
		c := newCA(t)
		o := dtls.Options{MaxPending: 4, RekeyAfter: 20 * time.Second}
		dead := []string{}
		for i := range 100 {
			dead = append(dead, fmt.Sprint("dead", i))
		}
		ca, cb := c.credentials("a"), c.credentials("b")
		a, b := w.host("a", o, ca, "b"), w.host("b", o, cb, "a")
		settle(2 * time.Second)
		talk(t, a, b)
		a.apply(ca, append([]string{"b"}, dead...)...)
		b.apply(cb, append([]string{"a"}, dead...)...)
		for range 100 {
			settle(time.Second)
			if talk(t, a, b); t.Failed() {
				return
			}
		}
		if s := a.status("b"); s.Generation < 5 {
			t.Errorf("the link has had few keys: %+v", s)
		}
	})
}

// heap is what is in use, once what isn't was collected.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestFloodsAreBounded holds the memory and the goroutines of a host that is flooded
// in the name of many peers to what its handshakes may have, and gives them back.
func TestFloodsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			flooded   = 100
			handshake = 64 << 10 // octets
		)
		pending := 2 * 64 // each way
		c := newCrowd(t, flooded, dtls.Options{})
		defer c.e.Close()
		settle(time.Minute)
		before, goroutines := heap(), runtime.NumGoroutine()
		var most int64
		mostGoroutines := 0
		for round := range 20 {
			for n := range 50 {
				for i := range flooded {
					c.greet(i, byte(round+n))
				}
			}
			synctest.Wait()
			most, mostGoroutines = max(most, heap()-before), max(mostGoroutines, runtime.NumGoroutine()-goroutines)
			settle(50 * time.Millisecond)
		}
		t.Logf("%d octets and %d goroutines more in a flood", most, mostGoroutines)
		if most > int64(pending*handshake) || mostGoroutines > 6*pending {
			t.Errorf("%d octets and %d goroutines more, want at most %d and %d", most, mostGoroutines, pending*handshake, 6*pending)
		}
		settle(time.Minute)
		if n := runtime.NumGoroutine() - goroutines; n > 6*64 { // the clients that are under way
			t.Errorf("%d goroutines more after the flood", n)
		}
	})
}

// TestLingeringIsBounded holds a server that remembers its last flight to few octets
// and goroutines, and to none of its own when the minute has passed.
func TestLingeringIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const links = 64
		c := newCA(t)
		ca, cb := c.credentials("a"), c.credentials("b")
		var wires []*wire
		for range links {
			w := newWire(t)
			w.record = false
			defer w.close()
			w.host("a", dtls.Options{}, nil, "b")
			w.host("b", dtls.Options{}, nil, "a")
			wires = append(wires, w)
		}
		settle(time.Second)
		before, goroutines := heap(), runtime.NumGoroutine()
		for _, w := range wires {
			w.hosts["a"].apply(ca, "b")
			w.hosts["b"].apply(cb, "a")
		}
		settle(20 * time.Second)
		most, mostGoroutines := heap()-before, runtime.NumGoroutine()-goroutines
		t.Logf("%d octets and %d goroutines a lingering server", most/links, mostGoroutines/links)
		if most > links*128<<10 || mostGoroutines > links*5 {
			t.Errorf("%d octets and %d goroutines for %d lingering servers", most, mostGoroutines, links)
		}
		settle(2 * time.Minute)
		if n := runtime.NumGoroutine() - goroutines; n > 0 {
			t.Errorf("%d goroutines are left", n)
		}
		for _, w := range wires {
			talk(t, w.hosts["a"], w.hosts["b"])
		}
	})
}
