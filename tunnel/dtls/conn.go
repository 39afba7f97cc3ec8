package dtls

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

const (
	// connQueue is how many datagrams wait for the handshake: two flights.
	connQueue = 32
	// maxOctets is what one handshake may receive in messages: some certificates,
	// repeated. Of what else it takes the library keeps little.
	maxOctets = 1 << 17
	// maxLinger is how many datagrams a server's last flight may be repeated in.
	// firstNumber leaves them sequence numbers.
	maxLinger = 16
	// randomFrom is the least number that a client's records in clear begin at. Other
	// implementations begin at 0.
	randomFrom = 1 << 32
	// patience is how many hellos a client sends before it takes what has other numbers:
	// some implementations begin at 0 all the same.
	patience = 4
	// maxClear is more than the records in clear of one side of a handshake.
	maxClear = 1 << 16
)

// conn is the wire of one handshake: a net.Conn for the library, fed by the
// link's datagrams. It decides what of the library's leaves.
//
// The numbers of records in clear tell the peer from others. A client's begin where
// nobody can guess. A server answers the first ClientHello with its number, and
// begins its next flight with the second one's (RFC 6347 clause 4.2.1). What has
// other numbers is nobody's.
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
	kept     int      // octets of messages in clear, which the library may keep
	taken    uint64   // records in clear
	first    uint64   // number of a record in clear, a client's own or of the ClientHello that has proven it
	next     uint64   // number of the next one that leaves
	strict   bool     // the peer's numbers are known to follow from first
	sent     int      // octets
	cookie   string   // that the library sent
	held     [][]byte // a server's last flight, which waits for release
	holding  bool
	finished bool    // a sealed record has left or come: only the keys can be wrong now
	whole    uint16  // numbers of the peer's messages that have come
	last     message // of a client's, before the change of the cipher
	key      uint16  // number of its ClientKeyExchange, 0 = not known yet
	proof    uint16  // of its CertificateVerify
	changed  bool    // the change of the cipher has come too
}

func newConn(client bool, last message, remote netip.AddrPort, send func([]byte) error) *conn {
	c := &conn{
		send: send, remote: remote, client: client, last: last, proven: client, holding: !client, left: -1,
		in: make(chan []byte, connQueue), gone: make(chan struct{}), deadline: make(chan struct{}),
	}
	if client {
		var random [8]byte
		_, _ = rand.Read(random[:]) // it never fails
		c.first = randomFrom + binary.BigEndian.Uint64(random[:])>>17
		c.next = c.first
	}
	return c
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
	c.kept += clearOctets(mine)
	c.taken = renumber(mine, c.taken)
	ok := c.kept <= maxOctets
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
func (c *conn) takes(b []byte) (out []byte) {
	for h, r := range records(b) {
		if !c.wants(h, r[record.HeaderLen:]) {
			continue
		}
		out = append(out, r...)
		c.note(h, r[record.HeaderLen:])
		c.strict = c.strict || c.client && h.Epoch == 0 && c.fits(h, r[record.HeaderLen:])
	}
	return out
}

// wants reports whether the handshake takes a record: nothing else ever reaches the
// library. c.mu is held.
func (c *conn) wants(h record.Header, body []byte) bool {
	switch {
	case c.ended:
		return isFinished(h)
	case !isPart(h, body, c.client):
		return false
	case h.Epoch > 0:
		return c.changed
	case h.Type == record.ChangeCipherSpec && !c.keyed():
		return false
	case c.fits(h, body):
		return true
	case c.client:
		return !c.strict && c.next-c.first >= patience
	}
	return !c.strict
}

// keyed reports whether the library has what its keys are made of, or is about to
// read it, so that a change of the cipher can be, and then a Finished. What it must
// keep until then it keeps in a buffer that it uses for other things meanwhile: it
// would fail by what it finds there. c.mu is held.
func (c *conn) keyed() bool {
	if c.client {
		return c.finished
	}
	n := c.key
	if c.last == certificateVerify {
		n = c.proof
	}
	before := uint16(2<<n-1) &^ 3 // its hellos have numbers 0 and 1
	return n > 0 && c.whole&before == before
}

// note remembers what has come: a client's messages, by their last fragments. c.mu
// is held.
func (c *conn) note(h record.Header, body []byte) {
	c.changed = c.changed || h.Type == record.ChangeCipherSpec
	if c.client || h.Type != record.Handshake || h.Epoch != 0 {
		return
	}
	for len(body) > 0 {
		f, rest, ok := parseFragment(body)
		if !ok {
			return
		}
		if body = rest; !f.ends {
			continue
		}
		c.whole |= 1 << f.number
		switch {
		case f.message == certificate && f.length == noCertificate:
			c.last = clientKeyExchange // there is nothing to prove
		case f.message == clientKeyExchange:
			c.key = f.number
		case f.message == certificateVerify:
			c.proof = f.number
		}
	}
}

// fits reports whether a record in clear has a number that the peer's may have.
// c.mu is held.
func (c *conn) fits(h record.Header, body []byte) bool {
	if c.client && h.Type == record.Handshake && message(body[0]) == helloVerify {
		return c.first <= h.Sequence && h.Sequence < c.next
	}
	return c.first <= h.Sequence && h.Sequence-c.first < maxClear
}

// hears reports whether the handshake takes some of datagram b.
func (c *conn) hears(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return someRecord(b, func(h record.Header, r []byte) bool { return c.wants(h, r[record.HeaderLen:]) })
}

// expect makes a client take nothing but what has numbers that follow from its own,
// as its peer's are known to.
func (c *conn) expect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.strict = true
}

// follows reports whether the peer's numbers follow from a client's.
func (c *conn) follows() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.strict && c.first >= randomFrom
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
	out := slices.Clone(b)
	if c.allows(out) {
		_ = c.send(out) // lost on the way
	}
	return len(b), nil
}

// allows decides about datagram b, and gives it its numbers.
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
	c.next = renumber(b, c.next)
	c.finished = c.finished || sealed
	if sealed && c.holding {
		c.held = append(c.held, b)
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

// greet is told the number of a server's first ClientHello.
func (c *conn) greet(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = number
}

// prove is told when the cookie has come back, and the number of that record.
func (c *conn) prove(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proven, c.strict = true, true
	c.first, c.next = number, number
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
	c.ended, c.left = true, maxLinger
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
