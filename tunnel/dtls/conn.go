package dtls

import (
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// connQueue is how many datagrams wait for the handshake: two flights.
	connQueue = 32
	// maxOctets is what one handshake may receive: some certificates, repeated.
	maxOctets = 1 << 17
	// maxLinger is how many datagrams a server's last flight may be repeated in.
	// firstNumber leaves them sequence numbers.
	maxLinger = 16
)

// conn is the wire of one handshake: a net.Conn for the library, fed by the
// link's datagrams. It decides what of the library's leaves.
type conn struct {
	send   func([]byte) error
	remote netip.AddrPort
	client bool
	in     chan []byte
	gone   chan struct{}

	mu       sync.Mutex
	deadline chan struct{} // closed when the read deadline has passed
	timer    *time.Timer
	closed   bool
	proven   bool     // the peer has the address that it claims
	muted    bool     // nothing leaves any more
	once     bool     // what has left in clear is not repeated
	flights  int      // datagrams that have left since the cookie came back
	ended    bool     // a server's: only the last flight is repeated
	left     int      // sealed datagrams that may still leave; -1 = any
	received int      // octets
	sent     int      // octets
	cookie   string   // that the library sent
	held     [][]byte // a server's last flight, which waits for release
	holding  bool
	finished bool // a sealed record has left or come: only the keys can be wrong now
}

func newConn(client bool, remote netip.AddrPort, send func([]byte) error) *conn {
	return &conn{
		send: send, remote: remote, client: client, proven: client, holding: !client, left: -1,
		in: make(chan []byte, connQueue), gone: make(chan struct{}), deadline: make(chan struct{}),
	}
}

// feed gives the handshake what it takes of datagram b. What doesn't fit is as
// good as lost on the way.
func (c *conn) feed(b []byte) {
	c.mu.Lock()
	mine := c.takes(b)
	if len(mine) == 0 {
		c.mu.Unlock()
		return
	}
	c.received += len(b)
	ok := c.received <= maxOctets
	c.finished = c.finished || holdsFinished(mine)
	c.mu.Unlock()
	if !ok {
		return
	}
	select {
	case c.in <- mine:
	default:
	}
}

// takes copies what the handshake takes of datagram b. c.mu is held.
func (c *conn) takes(b []byte) []byte {
	if c.ended {
		return forLastFlight(b)
	}
	return forHandshake(b, c.client)
}

// Read waits for the next datagram.
func (c *conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	select {
	case <-deadline:
		return 0, os.ErrDeadlineExceeded
	case <-c.gone:
		return 0, io.EOF
	case d := <-c.in:
		return copy(b, d), nil
	}
}

// Write sends datagram b unless it mustn't leave; then it is lost on the way.
func (c *conn) Write(b []byte) (int, error) {
	if c.allows(b) {
		_ = c.send(b) // lost on the way
	}
	return len(b), nil
}

// allows decides about datagram b.
func (c *conn) allows(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	sealed := holdsFinished(b)
	switch {
	case c.muted || c.closed:
		return false
	case sealsOther(b):
		return false // an alert, which would have one of our numbers
	case c.once && !sealed:
		return false
	case !c.proven && c.sent+len(b) > c.received:
		return false // nobody is sent more than he has paid for
	case sealed && clashes(b):
		return false // it is sent again with another nonce
	case sealed && c.left == 0:
		return false
	case sealed && c.left > 0:
		c.left--
	}
	if cookie, ok := parseVerify(b); ok {
		c.cookie = cookie
	}
	c.finished = c.finished || sealed
	if sealed && c.holding {
		c.held = append(c.held, slices.Clone(b))
		return false
	}
	c.sent += len(b)
	if c.proven {
		c.flights++
	}
	return true
}

// hush ends the repetitions of what a server has sent: it may be that the client
// has refused it and begins anew, and that would disturb. If anybody else says so
// the handshake goes on, and ends with a lost datagram.
func (c *conn) hush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.once = c.once || !c.client && c.flights > 0
}

// release lets a server's last flight leave. The client sends data as soon as it
// has it, so the keys must be in use before.
func (c *conn) release() {
	c.mu.Lock()
	held := c.held
	c.held, c.holding = nil, false
	c.mu.Unlock()
	for _, b := range held {
		_ = c.send(b) // lost on the way
	}
}

// prove is told when the cookie has come back.
func (c *conn) prove() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proven = true
}

// issued reports whether cookie is the one that the handshake sent.
func (c *conn) issued(cookie string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cookie != "" && c.cookie == cookie
}

// sealed reports whether the handshake has come to its sealed messages.
func (c *conn) sealed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.finished
}

// linger lets only so many repetitions of the last flight leave, and nothing come
// but what asks for them.
func (c *conn) linger() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended, c.left, c.received = true, maxLinger, 0
}

// mute lets nothing leave any more.
func (c *conn) mute() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.muted = true
}

// Close ends all reading. It is idempotent.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.gone)
		if c.timer != nil {
			c.timer.Stop()
		}
	}
	return nil
}

// SetReadDeadline ends waiting Reads too: the library cancels them by it.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	select {
	case <-c.deadline:
		c.deadline = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return nil
	}
	passed := c.deadline
	if d := time.Until(t); d > 0 {
		c.timer = time.AfterFunc(d, func() { c.pass(passed) })
		return nil
	}
	close(passed)
	return nil
}

// pass closes a deadline unless it was replaced.
func (c *conn) pass(deadline chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadline == deadline {
		select {
		case <-deadline:
		default:
			close(deadline)
		}
	}
}

func (c *conn) SetWriteDeadline(time.Time) error { return nil } // Write doesn't wait
func (c *conn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *conn) LocalAddr() net.Addr              { return &net.UDPAddr{} }
func (c *conn) RemoteAddr() net.Addr             { return net.UDPAddrFromAddrPort(c.remote) }

var _ net.Conn = (*conn)(nil)
