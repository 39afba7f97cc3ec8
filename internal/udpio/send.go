package udpio

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// What a Sender gathers between two flushes.
const (
	maxDatagrams = 512
	maxMessages  = 64
	maxIovecs    = 2048
	arenaSize    = 1 << 16
	// MaxPieces is how many pieces of payload one datagram may have.
	MaxPieces = 136
	// smallPiece is up to which length in octets a piece is copied behind its
	// header: the kernel takes some 20 ns for each piece, however short.
	smallPiece = 256
)

// What one message may hold.
const (
	// maxSegments is UDP_MAX_SEGMENTS of kernels before 6.9.
	maxSegments = 64
	// maxPayload is the longest UDP payload over IPv4, and what one call with
	// UDP_SEGMENT may carry in all.
	maxPayload = 65507
	// maxMessageIovecs is UIO_MAXIOV.
	maxMessageIovecs = 1024
)

// Failure is datagrams that were not sent.
type Failure struct {
	Tag   int // as given to End
	Count int // how many of that tag, one behind the other
	// Errno is EMSGSIZE when the datagram is larger than the egress device
	// takes, EAGAIN or ENOBUFS when a queue is full, or why the kernel refuses.
	Errno syscall.Errno
}

// datagram is one gathered datagram. Its pieces follow those of the one before.
type datagram struct {
	iov, iovs int // first piece, and how many
	size      int // octets
	tag       int
	at        int  // where it begins in the arena
	flat      bool // it is in the arena as a whole
}

// run is datagrams that leave as one message.
type run struct {
	sock   *Socket
	dest   *Dest
	tos    uint8
	sent   bool // or has failed
	closed bool // by a datagram shorter than the others, which must be the last
	first  int  // datagram
	count  int
	iovs   int
	size   int // octets of each but the last
	octets int
	at     int  // as a datagram's
	flat   bool // the run is one piece of the arena
}

// Sender gathers datagrams and sends them with few system calls. ICMP errors,
// which the kernel reports on whatever is sent next from the same port, cost
// that datagram a second attempt and nothing else.
type Sender struct {
	cur struct {
		sock *Socket
		dest *Dest
		tos  uint8
		datagram
		pieces int
		tooBig bool
	}
	datagrams []datagram
	runs      []run
	iovs      int
	arena     int
	failed    []Failure
	taken     bool // the failures have been handed out

	iov      [maxIovecs]unix.Iovec
	flat     [maxMessages]unix.Iovec // of a run that is flat
	messages [maxMessages]message
	runOf    [maxMessages]int
	control  [maxMessages][sendControl]byte
	memory   [arenaSize]byte
}

// NewSender makes a Sender. It takes about 140 KB.
func NewSender() *Sender {
	return &Sender{
		datagrams: make([]datagram, 0, maxDatagrams),
		runs:      make([]run, 0, maxMessages),
		failed:    make([]Failure, 0, maxDatagrams),
	}
}

// Begin starts a datagram from sock to d with outer TOS tos and returns n
// octets of memory, at most 65,507, for its headers or for the whole of it; the caller fills them before
// End. Who begins a datagram ends it. What was gathered before is sent when
// there is no room for more.
//
// Hot path: no allocation.
func (s *Sender) Begin(sock *Socket, d *Dest, tos uint8, n int) []byte {
	if s.taken {
		s.failed, s.taken = s.failed[:0], false
	}
	if len(s.datagrams) == maxDatagrams || len(s.runs) == maxMessages ||
		s.iovs+1+MaxPieces > maxIovecs || s.arena+n > arenaSize {
		s.send()
	}
	c := &s.cur
	c.sock, c.dest, c.tos = sock, d, tos
	c.datagram = datagram{iov: s.iovs, size: n, at: s.arena, flat: n > 0}
	c.pieces, c.tooBig = 0, false
	b := s.memory[s.arena : s.arena+n : s.arena+n]
	s.arena += n
	if n > 0 {
		s.piece(b)
	}
	return b
}

// Payload appends b to the datagram. b must stay as it is until Flush returns.
//
// Hot path: no allocation.
func (s *Sender) Payload(b []byte) {
	c := &s.cur
	if len(b) == 0 || c.tooBig {
		return
	}
	c.size += len(b)
	if c.pieces++; c.pieces > MaxPieces || c.size > maxPayload {
		c.tooBig = true
		return
	}
	if c.flat && len(b) <= smallPiece && s.arena+len(b) <= arenaSize {
		s.arena += copy(s.memory[s.arena:], b)
		s.iov[s.iovs-1].SetLen(c.size)
		return
	}
	c.flat = false
	s.piece(b)
}

func (s *Sender) piece(b []byte) {
	v := &s.iov[s.iovs]
	v.Base = &b[0]
	v.SetLen(len(b))
	s.iovs++
}

// Abandon forgets the datagram that was begun.
//
// Hot path: no allocation.
func (s *Sender) Abandon() { s.iovs, s.arena = s.cur.iov, s.cur.at }

// End finishes the datagram. tag comes back in its Failure, if it fails; tags
// need not differ. A datagram of more than 65,507 octets or MaxPieces pieces of
// payload fails with EMSGSIZE.
//
// Hot path: no allocation.
func (s *Sender) End(tag int) {
	c := &s.cur
	if c.tooBig {
		s.iovs = c.iov
		s.fail(tag, unix.EMSGSIZE)
		return
	}
	c.tag, c.iovs = tag, s.iovs-c.iov
	s.datagrams = append(s.datagrams, c.datagram)
	if n := len(s.runs); n > 0 && s.runs[n-1].join(c.sock, c.dest, c.tos, &c.datagram) {
		return
	}
	s.runs = append(s.runs, newRun(c.sock, c.dest, c.tos, len(s.datagrams)-1, &c.datagram))
}

// Repeat gathers what the last End finished once more, for another destination,
// and reports whether it did: it can't when that has been sent or refused already.
//
// Hot path: no allocation.
func (s *Sender) Repeat(sock *Socket, d *Dest, tag int) bool {
	n := len(s.datagrams)
	if s.taken || s.cur.tooBig || n == 0 || n == maxDatagrams || len(s.runs) == maxMessages {
		return false
	}
	g := s.datagrams[n-1]
	g.tag = tag
	s.datagrams = append(s.datagrams, g)
	s.runs = append(s.runs, newRun(sock, d, s.cur.tos, n, &g))
	return true
}

// newRun is a run of datagram number n alone.
func newRun(sock *Socket, dest *Dest, tos uint8, n int, d *datagram) run {
	return run{
		sock: sock, dest: dest, tos: tos, first: n, count: 1, iovs: d.iovs, size: d.size, octets: d.size,
		at: d.at, flat: d.flat, closed: d.size == 0 || sock.plain || !dest.GSO(),
	}
}

// join adds d to the run if the kernel can cut it off again.
func (r *run) join(sock *Socket, dest *Dest, tos uint8, d *datagram) bool {
	if r.closed || r.sock != sock || r.dest != dest || r.tos != tos ||
		d.size == 0 || d.size > r.size || r.count == maxSegments ||
		r.octets+d.size > maxPayload || r.iovs+d.iovs > maxMessageIovecs {
		return false
	}
	r.closed = d.size < r.size
	r.flat = r.flat && d.flat && d.at == r.at+r.octets
	r.count++
	r.iovs += d.iovs
	r.octets += d.size
	return true
}

// Flush sends what was gathered. The failures are those of all datagrams since
// the last Flush, in no order; they are valid until the next Begin.
//
// Hot path: no allocation.
func (s *Sender) Flush() []Failure {
	if s.taken {
		return nil
	}
	s.send()
	s.taken = true
	return s.failed
}

func (s *Sender) fail(tag int, errno syscall.Errno) {
	if n := len(s.failed); n > 0 && s.failed[n-1].Tag == tag && s.failed[n-1].Errno == errno {
		s.failed[n-1].Count++
		return
	}
	s.failed = append(s.failed, Failure{Tag: tag, Count: 1, Errno: errno})
}
