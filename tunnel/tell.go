package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// A question to another tunnel of our kind, and its answer, are messages with a
// text, which the tunnel carries and doesn't read:
//
//	0        44      46
//	message  length  text, zeros …
//
// A question is padded to talkLen octets and an answer is never longer: who
// forges a peer's address to have us answer it can't make us send more than he
// has sent himself. Both fit any path of IPv6 without being cut.
const (
	talkLen     = 1200
	talkHeadLen = messageLen + 2
	// MaxText is the longest text of a question or an answer, in octets.
	MaxText = talkLen - talkHeadLen
)

const (
	// asksPerSecond is how many questions of one peer are handed over; the others
	// are as good as lost on the way. A trace takes some twenty.
	asksPerSecond = 200
	// maxTalks bounds the questions and answers that wait to be looked at.
	maxTalks = 64
	// askEvery is after how long a question is sent again, and doubled each time.
	askEvery = 80 * time.Millisecond
	maxAsks  = 4
)

// Question is what a peer asks. It may be answered once, by any goroutine, or
// not at all.
type Question struct {
	Peer  string
	ID    frame.PortID // the peer's
	Text  []byte       // the receiver's own
	Heard time.Time
	// Sealed says that it came by the encrypted link: from the peer and nobody else.
	// In clear, whoever can write the peer's address may have asked.
	Sealed bool
	t      *Tunnel
	peer   *Peer
	m      message
}

// Told is the answer to a question, and when by our clock the question that it
// is to was sent and the answer came.
type Told struct {
	Text        []byte
	Asked, Came time.Time
}

// ErrNotSealed is returned for what may be said by an encrypted link alone, when
// there is none.
var ErrNotSealed = errors.New("there is no encrypted link to the peer")

// ErrNoAnswer is returned by Ask for a peer that does not answer in time.
var ErrNoAnswer = errors.New("the peer does not answer")

// talk is a question or an answer that has come.
type talk struct {
	peer   *Peer
	m      message
	sealed bool
	n      int
	text   [MaxText]byte
}

// talks are a tunnel's conversations with its peers.
type talks struct {
	slots [maxTalks]talk
	spare chan int
	came  chan int

	mu      sync.Mutex
	seq     uint32
	pending map[uint64]*asked // by token
}

// asked is a question that waits for its answer.
type asked struct {
	at     time.Time
	peer   *Peer
	sealed bool // and the answer must be
	told   chan Told
}

func (c *talks) init() {
	c.spare, c.came, c.pending = make(chan int, maxTalks), make(chan int, maxTalks), map[uint64]*asked{}
	for i := range maxTalks {
		c.spare <- i
	}
}

// textOf is the text of datagram b, a message that is a question or an answer.
//
// Hot path: no allocation. Everything read is behind one check of b's length.
func textOf(b []byte) (text []byte, ok bool) {
	if len(b) < talkHeadLen || len(b) > talkLen {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(b[messageLen:]))
	if n > len(b)-talkHeadLen {
		return nil, false
	}
	return b[talkHeadLen : talkHeadLen+n], true
}

// hearTalk takes a question or an answer off the receiver's hands, without
// allocation. When too many wait already it is lost, as it may be on the way.
func (t *Tunnel) hearTalk(p *Peer, m message, datagram []byte, sealed bool) {
	text, ok := textOf(datagram)
	if !ok || m.kind == kindAsk && len(datagram) < talkLen {
		return
	}
	select {
	case i := <-t.talks.spare:
		s := &t.talks.slots[i]
		s.peer, s.m, s.sealed, s.n = p, m, sealed, copy(s.text[:], text)
		t.talks.came <- i // has room for every slot
	default:
	}
}

// converse runs until Close: it hands questions over and answers to those who
// have asked.
func (t *Tunnel) converse() {
	for {
		select {
		case <-t.quit:
			return
		case i := <-t.talks.came:
			s := &t.talks.slots[i]
			now := time.Now()
			text := append([]byte(nil), s.text[:s.n]...)
			peer, m, sealed := s.peer, s.m, s.sealed
			t.talks.spare <- i
			if m.kind == kindTell {
				t.talks.told(peer, m.token, text, now, sealed)
			} else if t.o.Asked != nil && peer.asks.take(now) {
				t.o.Asked(Question{Peer: peer.name, ID: peer.id, Text: text, Heard: now, Sealed: sealed, t: t, peer: peer, m: m})
			}
		}
	}
}

// allowance is how many questions of a peer are still heard in this second. It
// belongs to the goroutine that converses.
type allowance struct {
	second int64
	used   int
}

func (a *allowance) take(now time.Time) bool {
	if s := now.Unix(); s != a.second {
		a.second, a.used = s, 0
	}
	a.used++
	return a.used <= asksPerSecond
}

// told passes an answer on to who has asked that peer with that token.
func (c *talks) told(p *Peer, token uint64, text []byte, now time.Time, sealed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.pending[token]
	if a == nil || a.peer != p || a.sealed && !sealed {
		return
	}
	delete(c.pending, token)
	select {
	case a.told <- Told{text, a.at, now}:
	default: // another try has been answered
	}
}

// Ask asks a peer a question of at most MaxText octets, and asks again while no
// answer comes, until ctx ends; the error is then ErrNoAnswer or ctx's. With
// sealed it is asked by the encrypted link or not at all: ErrNotSealed. It may be
// called from any goroutine.
func (t *Tunnel) Ask(ctx context.Context, id frame.PortID, text []byte, sealed bool) (Told, error) {
	p := t.Peer(id)
	switch {
	case p == nil:
		return Told{}, fmt.Errorf("ask peer %d: no peer has this ID", id)
	case len(text) > MaxText:
		return Told{}, fmt.Errorf("ask peer %s: %d octets: want %d at most", p.name, len(text), MaxText)
	}
	told := make(chan Told, 1)
	wait := askEvery
	for range maxAsks {
		token, err := t.pose(p, text, told, sealed)
		defer t.talks.forget(token)
		if err != nil {
			return Told{}, fmt.Errorf("ask peer %s: %w", p.name, err)
		}
		again := time.NewTimer(wait)
		select {
		case r := <-told:
			again.Stop()
			return r, nil
		case <-ctx.Done():
			again.Stop()
			return Told{}, ctx.Err()
		case <-t.quit:
			again.Stop()
			return Told{}, errClosed
		case <-again.C:
			wait *= 2
		}
	}
	return Told{}, fmt.Errorf("ask peer %s: %w", p.name, ErrNoAnswer)
}

// pose sends one question, and returns the token that its answer must bear.
func (t *Tunnel) pose(p *Peer, text []byte, told chan Told, sealed bool) (uint64, error) {
	c := &t.talks
	c.mu.Lock()
	c.seq++
	seq := c.seq
	token := maphash.Comparable(t.seed, struct {
		id  frame.PortID
		seq uint32
		ask bool
	}{p.id, seq, true})
	c.pending[token] = &asked{time.Now(), p, sealed, told}
	c.mu.Unlock()
	return token, t.say(p, &message{kind: kindAsk, seq: seq, token: token, size: talkLen}, text, talkLen, sealed)
}

func (c *talks) forget(token uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, token)
}

// Answer sends a text of at most MaxText octets to who has asked. An answer that
// can't be sent is as good as lost on the way.
func (q *Question) Answer(text []byte) error {
	if len(text) > MaxText {
		return fmt.Errorf("answer peer %s: %d octets: want %d at most", q.Peer, len(text), MaxText)
	}
	m := q.m
	size := talkHeadLen + len(text)
	m.kind, m.size = kindTell, uint32(size)
	if err := q.t.say(q.peer, &m, text, size, q.Sealed); err != nil {
		return fmt.Errorf("answer peer %s: %w", q.Peer, err)
	}
	return nil
}

// say sends a message with a text, padded to size octets. It may be about frames of
// an encrypted network: to a peer that carries one, and with sealed to any, it goes
// by the link or not at all.
func (t *Tunnel) say(p *Peer, m *message, text []byte, size int, sealed bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return errClosed
	}
	if p.link.Load() != nil {
		if errno := t.sealMessage(p, m, text, size, 0); errno != 0 {
			return errno
		}
	} else if sealed {
		return ErrNotSealed
	} else if err := t.sayPlain(p, m, text, size); err != nil {
		return err
	}
	if failed := t.own.Flush(); len(failed) > 0 {
		return failed[0].Errno
	}
	return nil
}

// sayPlain gathers a message with a text in clear.
func (t *Tunnel) sayPlain(p *Peer, m *message, text []byte, size int) error {
	d := p.dest.Load()
	sock := t.pool(d).Pick(0)
	if sock == nil {
		return unix.ENETDOWN
	}
	b := t.own.Begin(sock, d, tosControl, talkHeadLen)
	m.put(b)
	binary.BigEndian.PutUint16(b[messageLen:], uint16(len(text)))
	t.own.Payload(text)
	t.own.Payload(zeros[:max(size-talkHeadLen-len(text), 0)])
	t.own.End(0)
	return nil
}
