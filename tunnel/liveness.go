package tunnel

import (
	"hash/maphash"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	// lostAfter intervals without an answer make a peer that has answered down.
	lostAfter = 3
	// passiveAfter intervals without a message make a peer that is down, and sends
	// frames, a passive one: another VTEP has taken its address.
	passiveAfter = 30
	// window is how many probes back an answer may be to.
	window = 64
	// tosControl is CS6, network control (RFC 4594 clause 3.2).
	tosControl = 0xc0
)

// tended is what the tunnel remembers of a peer's presence.
type tended struct {
	state     State
	since     time.Time
	answering bool      // it has answered, and is expected to
	answered  time.Time // last answer
	spoke     time.Time // last message
	frames    uint64    // admitted when last looked
	seq       uint32    // of the last probe
	beat      time.Time // next probe
	search    search
}

// tend runs until Close: it asks peers whether they are there, takes their
// answers, and answers what didn't fit.
func (t *Tunnel) tend() {
	ticks := t.o.Ticks
	if ticks == nil {
		k := time.NewTicker(t.o.Interval / ticksInterval)
		defer k.Stop()
		ticks = k.C
	}
	for {
		t.mu.Lock()
		told := t.pending
		t.pending = nil
		t.mu.Unlock()
		for _, e := range told {
			if t.o.Events != nil {
				t.o.Events(e)
			}
		}
		select {
		case <-t.quit:
			return
		case now := <-ticks:
			t.tick(now)
		case h := <-t.messages:
			t.answer(h)
		case i := <-t.complained:
			c := &t.complaints[i]
			if b := answerTooBig(c); b != nil {
				t.inject.put(injected{c.peer.id, c.net.VID, b})
			}
			t.spare <- i
		}
	}
}

// tick looks after every peer.
func (t *Tunnel) tick(now time.Time) {
	t.tokens.Store(complaintsPerTick)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = now
	for _, c := range t.view.Load().list {
		t.look(c.peer)
	}
}

// look asks p whether it is there when that is due, and draws conclusions.
func (t *Tunnel) look(p *Peer) {
	l := &p.tended
	if l.since.IsZero() {
		l.since = t.now
	}
	n := p.frames.n.Load()
	spoken := n != l.frames
	l.frames = n
	silent := func(since time.Time, intervals time.Duration) bool { return t.now.Sub(since) > intervals*t.o.Interval }
	switch {
	case l.state == Connecting && spoken:
		t.enter(p, Up)
	case l.state == Up && l.answering && silent(l.answered, lostAfter):
		t.enter(p, Down)
	case l.state == Down && spoken && silent(l.spoke, passiveAfter):
		l.answering = false
		l.search = search{}
		t.enter(p, Up)
	}
	if !t.now.Before(l.beat) {
		l.beat = t.now.Add(t.o.Interval)
		_, _ = t.probe(p, messageLen) // as good as lost on the way
	}
	t.measure(p)
}

// enter changes p's state and tells.
func (t *Tunnel) enter(p *Peer, s State) {
	l := &p.tended
	l.state, l.since = s, t.now
	p.down.Store(s == Down)
	t.pending = append(t.pending, Event{t.now, p.status()})
}

// answer takes a message of a peer.
func (t *Tunnel) answer(h heard) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &h.peer.tended
	l.spoke = t.now
	if h.kind == kindProbe {
		h.kind, h.message.size = kindAnswer, uint32(h.size)
		_ = t.send(h.peer, &h.message, messageLen)
		return
	}
	if l.seq-h.seq >= window || h.token != t.token(h.peer, h.seq) {
		return
	}
	l.answered = t.now
	if !l.answering {
		l.answering = true
		l.search = search{}
	}
	if l.state != Up {
		t.enter(h.peer, Up)
	}
	if s := &l.search; s.size != 0 && h.seq == s.seq {
		t.passed(h.peer)
	}
}

// token is what only the receiver of probe seq can return.
func (t *Tunnel) token(p *Peer, seq uint32) uint64 {
	return maphash.Comparable(t.seed, struct {
		id  frame.PortID
		seq uint32
	}{p.id, seq})
}

// probe sends a probe of so many octets of UDP payload and returns its number.
func (t *Tunnel) probe(p *Peer, size int) (uint32, syscall.Errno) {
	l := &p.tended
	l.seq++
	return l.seq, t.send(p, &message{kind: kindProbe, seq: l.seq, token: t.token(p, l.seq), size: uint32(size)}, size)
}

var zeros [1 << 16]byte

// send sends m padded to size octets. Tunnel.mu is held.
func (t *Tunnel) send(p *Peer, m *message, size int) syscall.Errno {
	d := p.dest.Load()
	sock := t.pool(d).Pick(0)
	if sock == nil {
		return unix.ENETDOWN
	}
	m.put(t.own.Begin(sock, d, tosControl, messageLen))
	t.own.Payload(zeros[:max(size-messageLen, 0)])
	t.own.End(0)
	if failed := t.own.Flush(); len(failed) > 0 {
		return failed[0].Errno
	}
	return 0
}
