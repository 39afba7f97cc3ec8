package tunnel_test

import (
	"encoding/binary"
	"net/netip"
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

	mu     sync.Mutex
	events []tunnel.Event
}

func newClocked(t *testing.T) *clocked {
	t.Helper()
	c := &clocked{ticks: make(chan time.Time), now: time.Unix(1e9, 0), limit: 1500}
	c.host, c.q = loopHost(t, func(o *tunnel.Options) {
		o.Ticks = c.ticks
		o.Events = func(e tunnel.Event) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.events = append(c.events, e)
		}
	})
	c.p = newVTEP(t, "127.0.0.2:0", c.tun.Listen())
	c.id = c.peer(c.p.at())
	return c
}

// pass lets one second pass. The tunnel has done all that is due when it returns.
func (c *clocked) pass() {
	c.now = c.now.Add(time.Second)
	c.ticks <- c.now
	c.ticks <- c.now // taken when the first is done with
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

// seconds lets time pass while the peer answers what its path carries.
func (c *clocked) seconds(n int) {
	c.t.Helper()
	for range n {
		c.pass()
		for more := true; more; {
			more = false
			for _, b := range c.outgoing() {
				if len(b)+28 <= c.limit {
					c.p.send(tunnel.AnswerTo(b))
					more = true
				}
			}
		}
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
	for range 3 {
		c.pass()
	}
	c.want(tunnel.Up, false)
	c.pass()
	c.want(tunnel.Down, false)
	if st := c.status(); !st.Since.Equal(c.now) {
		t.Errorf("down since %v, want %v", st.Since, c.now)
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

func TestPathMTU(t *testing.T) {
	c := newClocked(t)
	mtu := func(want int) {
		t.Helper()
		if got := c.status().MTU; got != want {
			t.Fatalf("inner MTU %d, want %d of a path of %d", got, want, c.limit)
		}
	}
	c.limit = 1437
	c.seconds(120)
	mtu(1437 - 50)
	c.limit = 1000
	c.seconds(150)
	mtu(1000 - 50)
	c.limit = 9001
	c.seconds(120)
	mtu(9001 - 50)
	c.want(tunnel.Up, false)

	c.limit = 0 // nothing passes: no conclusion about sizes
	for range 60 {
		c.pass()
	}
	c.want(tunnel.Down, false)
	mtu(9001 - 50)
}

// TestPeerMoves has a peer change its address.
func TestPeerMoves(t *testing.T) {
	c := newClocked(t)
	c.seconds(1)
	before := c.tun.Peer(c.id)
	c.p = newVTEP(t, "127.0.0.9:0", c.tun.Listen())
	c.peers[0].Address = netip.MustParseAddrPort(c.p.at())
	c.apply()
	if c.tun.Peer(c.id) != before {
		t.Error("a peer at another address is another queue")
	}
	c.want(tunnel.Connecting, false)
	c.seconds(1)
	c.want(tunnel.Up, false)
	c.frame()
}
