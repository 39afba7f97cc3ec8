package tunnel_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
	"github.com/tapestry-net/tapestry/switch/switchtest"
	"github.com/tapestry-net/tapestry/tunnel"
)

// clocked is a host whose time only the test moves, and one peer of our kind
// whose path carries outer packets of at most limit octets.
type clocked struct {
	*host
	q     *mem.Port
	p     *vtep
	id    frame.PortID
	ticks chan time.Time
	now   time.Time
	limit int
	token uint64
	// octets of all probes that the peer's host has received, without headers.
	octets int
	// fate, if there is one, says how often an answer arrives: 0 is loss.
	fate func() int
	// headers of the outer packet: 48 over IPv6.
	headers int

	mu     sync.Mutex
	events []tunnel.Event
}

func newClocked(t *testing.T) *clocked {
	t.Helper()
	return newClockedAt(t, "127.0.0.1:0", "127.0.0.2:0", 28)
}

// newClockedAt has the tunnel listen on own and its peer on other.
func newClockedAt(t *testing.T, own, other string, headers int) *clocked {
	t.Helper()
	c := &clocked{ticks: make(chan time.Time), now: time.Unix(1e9, 0), limit: 1500, headers: headers}
	c.host, c.q = loopHostAt(t, own, func(o *tunnel.Options) {
		o.Ticks = c.ticks
		o.Events = func(e tunnel.Event) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.events = append(c.events, e)
		}
	})
	c.p = newVTEP(t, other, c.tun.Listen())
	c.id = c.peer(c.p.at())
	return c
}

// tick lets a fifth of a second pass. The tunnel has done all that is due when
// it returns.
func (c *clocked) tick() {
	c.now = c.now.Add(time.Second / 5)
	c.ticks <- c.now
	c.ticks <- c.now // taken when the first is done with
}

// pass lets one second pass.
func (c *clocked) pass() {
	for range 5 {
		c.tick()
	}
}

// outgoing returns the probes that the tunnel has sent: all before the answer to
// one of the test's own, since one socket carries them in order.
func (c *clocked) outgoing() [][]byte {
	c.t.Helper()
	c.token++
	c.p.send(tunnel.Probe(0, c.token))
	var probes [][]byte
	for {
		b := make([]byte, 1<<16)
		_ = c.p.SetReadDeadline(time.Now().Add(patience))
		n, err := c.p.Read(b)
		if err != nil {
			c.t.Fatal(err)
		}
		if _, ok := tunnel.ParseMessage(b[:n]); !ok {
			continue
		}
		if tunnel.AnswerTo(b[:n]) != nil {
			probes = append(probes, b[:n])
		} else if binary.BigEndian.Uint64(b[32:]) == c.token {
			return probes
		}
	}
}

// answer has the peer answer what its path carries, until nothing more comes.
func (c *clocked) answer() {
	c.t.Helper()
	for more := true; more; {
		more = false
		for _, b := range c.outgoing() {
			c.octets += len(b)
			if len(b)+c.headers > c.limit {
				continue
			}
			times := 1
			if c.fate != nil {
				times = c.fate()
			}
			for range times {
				c.p.send(tunnel.AnswerTo(b))
				more = true
			}
		}
	}
}

// seconds lets time pass while the peer answers what its path carries.
func (c *clocked) seconds(n int) {
	c.t.Helper()
	for range 5 * n {
		c.tick()
		c.answer()
	}
}

// inUse is seconds with a frame of the peer in each.
func (c *clocked) inUse(n int) {
	c.t.Helper()
	for range n {
		c.frame()
		c.seconds(1)
	}
}

func (c *clocked) status() tunnel.Status { return c.tun.Status()[0] }

func (c *clocked) want(s tunnel.State, passive bool) {
	c.t.Helper()
	if st := c.status(); st.State != s || st.Passive != passive {
		c.t.Fatalf("peer is %v, passive %v; want %v, %v", st.State, st.Passive, s, passive)
	}
}

func TestPeerGoesAndComes(t *testing.T) {
	c := newClocked(t)
	c.pass()
	c.want(tunnel.Connecting, false)
	c.seconds(1)
	c.want(tunnel.Up, false)
	c.pass()
	c.pass()
	c.want(tunnel.Up, false)
	c.pass()
	c.want(tunnel.Down, false)
	if st := c.status(); st.Since.After(c.now) || c.now.Sub(st.Since) > time.Second {
		t.Errorf("down since %v, want a moment before %v", st.Since, c.now)
	}
	c.q.Inject(hello)
	until(t, "a frame to a peer that is down to be refused", func() bool {
		st, _ := c.sw.PortStats(c.id)
		return st.Drops[frame.EgressDown] == 1
	})
	c.seconds(1)
	c.want(tunnel.Up, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	var states []tunnel.State
	for _, e := range c.events {
		if n := len(states); n == 0 || states[n-1] != e.State {
			states = append(states, e.State)
		}
	}
	if len(states) < 2 || states[0] != tunnel.Up || states[1] != tunnel.Down {
		t.Errorf("events %v, want up, down, up", states)
	}
}

func TestPassivePeer(t *testing.T) {
	c := newClocked(t)
	for range 10 {
		c.pass()
	}
	c.want(tunnel.Connecting, false)
	c.frame()
	c.pass()
	c.want(tunnel.Up, true)
	for range 100 {
		c.pass()
	}
	c.want(tunnel.Up, true)
	if got := c.status().MTU; got != 1450 {
		t.Errorf("MTU of a passive peer %d, want 1450", got)
	}
}

// TestPassivePeerThatAsks has a peer send a frame and a probe, and die before it
// has answered anything: nobody is up there.
func TestPassivePeerThatAsks(t *testing.T) {
	c := newClocked(t)
	c.frame()
	c.pass()
	c.want(tunnel.Up, true)
	c.outgoing() // asks the tunnel to know when all has come
	for range 4 {
		c.pass()
	}
	c.want(tunnel.Connecting, false)
}

// frame sends a frame from the peer and waits until it is forwarded.
func (c *clocked) frame() {
	c.t.Helper()
	n := c.sw.Stats().RxFrames
	c.p.send(in(blueVNI, switchtest.Padded(switchtest.ARPFrame(bob, alice.Addr))))
	until(c.t, "a frame of the peer", func() bool { return c.sw.Stats().RxFrames == n+1 })
}

// TestReplacedByAnotherVTEP has a peer that answered give its address to one
// that never will.
func TestReplacedByAnotherVTEP(t *testing.T) {
	c := newClocked(t)
	c.seconds(2)
	for range 31 {
		c.pass()
	}
	c.want(tunnel.Down, false)
	c.frame()
	c.pass()
	c.want(tunnel.Up, true)
}

func TestForgedAnswers(t *testing.T) {
	c := newClocked(t)
	c.pass()
	for _, b := range c.outgoing() {
		b = tunnel.AnswerTo(b)
		b[39]++ // of the token
		c.p.send(b)
	}
	c.outgoing()
	c.pass()
	c.want(tunnel.Connecting, false)
}

// TestPathMTU narrows and widens a path in silence. Under traffic a size that
// passes is in force within three intervals, and the exact one soon after.
func TestPathMTU(t *testing.T) {
	c := newClocked(t)
	mtu := func(want int) {
		t.Helper()
		if got := c.status().MTU; got != want {
			t.Fatalf("inner MTU %d, want %d of a path of %d", got, want, c.limit)
		}
	}
	c.inUse(3)
	mtu(1450)
	for _, limit := range []int{1437, 1000, 1400, 9001, 1280} {
		raised := limit > c.limit
		c.limit = limit
		if raised {
			c.inUse(63)
			mtu(limit - 50)
			continue
		}
		if c.inUse(3); c.status().MTU > limit-50 {
			t.Errorf("inner MTU %d after 3 s on a path of %d", c.status().MTU, limit)
		}
		c.inUse(2)
		mtu(limit - 50)
	}
	c.want(tunnel.Up, false)

	c.limit = 0 // nothing passes: no conclusion about sizes
	for range 60 {
		c.pass()
	}
	c.want(tunnel.Down, false)
	mtu(1280 - 50)
}

// TestPathMTUOverIPv6 narrows the path and widens it again.
func TestPathMTUOverIPv6(t *testing.T) {
	c := newClockedAt(t, "[::1]:0", "[::1]:0", 48)
	c.limit = 1437
	c.inUse(5)
	if got := c.status().MTU; got != 1437-70 {
		t.Fatalf("inner MTU %d of a path of 1437, want %d", got, 1437-70)
	}
	c.limit = 1500
	if c.inUse(66); c.status().MTU != 1500-70 {
		t.Errorf("inner MTU %d of a path of 1500, want %d", c.status().MTU, 1500-70)
	}
}

// TestBadWire loses a fifth of all answers and doubles a fifth: neither the
// path MTU nor the state moves in five minutes, and a narrower path is found.
func TestBadWire(t *testing.T) {
	c := newClocked(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	c.inUse(3)
	c.fate = func() int { return []int{0, 2, 1, 1, 1}[rnd.IntN(5)] }
	c.mu.Lock()
	told := len(c.events)
	c.mu.Unlock()
	for range 30 {
		c.frame()
		c.seconds(10)
	}
	c.mu.Lock()
	if len(c.events) != told || c.events[told-1].MTU != 1450 {
		t.Errorf("told %+v on a path that only loses", c.events[told:])
	}
	c.mu.Unlock()
	c.limit = 1400
	c.inUse(10)
	if got := c.status().MTU; got != 1350 {
		t.Errorf("inner MTU %d of a path of 1400, want 1350", got)
	}
	c.want(tunnel.Up, false)
}

// TestLateAnswers has answers come behind those to later probes: they prove
// their sizes all the same.
func TestLateAnswers(t *testing.T) {
	c := newClocked(t)
	c.limit = 1437
	var late [][]byte
	for range 100 {
		c.frame()
		c.tick()
		now := c.outgoing()
		for _, b := range late {
			if len(b)+c.headers <= c.limit {
				c.p.send(tunnel.AnswerTo(b))
			}
		}
		slices.Reverse(now)
		late = now
	}
	c.outgoing()
	c.want(tunnel.Up, false)
	if got := c.status().MTU; got != 1387 {
		t.Errorf("inner MTU %d of a path of 1437, want 1387", got)
	}
}

// TestRest bounds what asking costs: a peer in use is asked every second, one at
// rest every fifth, and use wakes it at once.
func TestRest(t *testing.T) {
	c := newClocked(t)
	c.seconds(20)
	cost := func(seconds int) int {
		c.octets = 0
		c.seconds(seconds)
		return c.octets / seconds
	}
	if n := cost(100); n > 400 {
		t.Errorf("%d octets a second to a peer at rest, want at most 400", n)
	}
	c.q.Inject(hello)
	c.p.hear()
	c.seconds(1) // looks for a larger path MTU, which is due
	c.seconds(20)
	c.q.Inject(hello)
	c.p.hear()
	c.octets = 0
	c.tick()
	if c.answer(); c.octets == 0 {
		t.Error("a peer that is used again is not asked at once")
	}
	if n := cost(5); n < 1400 || n > 1600 {
		t.Errorf("%d octets a second to a peer in use, want one full packet", n)
	}
}

// TestPeerMoves has a peer change its address.
func TestPeerMoves(t *testing.T) {
	c := newClocked(t)
	c.limit = 1400
	c.inUse(5)
	before := c.tun.Peer(c.id)
	c.p = newVTEP(t, "127.0.0.9:0", c.tun.Listen())
	c.peers[0].Address = netip.MustParseAddrPort(c.p.at())
	c.apply()
	if c.tun.Peer(c.id) != before {
		t.Error("a peer at another address is another queue")
	}
	c.want(tunnel.Connecting, false)
	if got := c.status().MTU; got != 1450 {
		t.Errorf("inner MTU %d of a path that nobody knows, want 1450", got)
	}
	c.limit = 1300
	c.inUse(5)
	c.want(tunnel.Up, false)
	if got := c.status().MTU; got != 1250 {
		t.Errorf("inner MTU %d of the new path of 1300, want 1250", got)
	}
}
