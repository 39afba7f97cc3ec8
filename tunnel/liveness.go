package tunnel

import (
	"hash/maphash"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/inject"
	"github.com/tapestry-net/tapestry/tunnel/pathmtu"
)

const (
	// lostAfter intervals without an answer make a peer that has answered down.
	lostAfter = 3
	// passiveAfter intervals without a message make a peer that is down, and sends
	// frames, a passive one: another VTEP has taken its address.
	passiveAfter = 30
	// restAfter intervals without a frame to or from a peer put it at rest: it is
	// asked every restEvery intervals only.
	restAfter = 10
	restEvery = 5
	// window is how many probes back an answer may be to.
	window = 64
	// tosControl is CS6, network control (RFC 4594 clause 3.2).
	tosControl = 0xc0
	// tagAnswer marks an answer among what is gathered: nobody asks what became
	// of it.
	tagAnswer = -1
	// answersAtOnce bounds the messages that are answered by one system call.
	answersAtOnce = 64
)

// tended is what the tunnel remembers of a peer's presence.
type tended struct {
	state     State
	answering bool // it has answered, and is expected to
	sealed    bool // it is asked by the link
	underlay  int  // MTU of the way there as far as this host can tell
	since     time.Time
	asked     time.Time // first probe since the last answer, zero = none
	claimed   time.Time // last frame or first probe of a passive peer that has asked, zero = it has not
	spoke     time.Time // last message
	used      time.Time // last seen to send or to be sent frames
	frames    uint64    // admitted when last looked
	seq       uint32    // of the last probe
	beat      time.Time // next probe
	raise     time.Time // next search for a larger path MTU
	round     round
	search    pathmtu.Search
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
			t.answerAll(h)
		case i := <-t.complained:
			c := &t.complaints[i]
			if b := answerTooBig(c); b != nil {
				t.inject.Put(inject.Frame{In: c.peer.id, VID: c.net.VID, Own: true, Data: b})
			}
			t.spare <- i
		}
	}
}

// tick looks after every peer.
func (t *Tunnel) tick(now time.Time) {
	t.ticked.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = now
	for _, c := range t.view.Load().list {
		t.look(c)
	}
	t.flush()
}

// look draws conclusions from what c's peer has sent, and asks it whether it is
// there when that is due.
func (t *Tunnel) look(c *carrier) {
	p := c.peer
	l := &p.tended
	t.choose(p)
	if l.since.IsZero() {
		l.since, l.used = t.now, t.now
	}
	n := c.frames.n.Load()
	spoken := n != l.frames
	l.frames = n
	if spoken || p.used.Load() {
		p.used.Store(false)
		l.used = t.now
	}
	if spoken && !l.claimed.IsZero() {
		l.claimed = t.now
	}
	silent := func(since time.Time, intervals time.Duration) bool { return t.now.Sub(since) > intervals*t.o.Interval }
	switch {
	case l.state == Connecting && spoken:
		t.enter(p, Up)
	case l.state == Up && l.answering && !l.asked.IsZero() && silent(l.asked, lostAfter-1):
		l.round.open = false
		t.enter(p, Down)
	case l.state == Up && !l.claimed.IsZero() && silent(l.claimed, lostAfter-1):
		t.enter(p, Connecting)
	case l.state == Down && spoken && silent(l.spoke, passiveAfter):
		l.answering = false
		t.begin(p)
		t.enter(p, Up)
	}
	wait := roundTicks * t.o.Interval / ticksInterval
	switch {
	case l.round.open && l.answering:
		if t.now.Sub(l.round.sent) >= wait {
			t.conclude(p)
		}
	case !t.now.Before(l.beat), p.stuck.Load(), l.beat.Sub(t.now) > t.every(p):
		t.ask(p)
	}
}

// choose makes p be asked by its link when there is one. Another way begins the
// search anew: what a probe can tell of the path is 37 octets apart.
func (t *Tunnel) choose(p *Peer) {
	l := &p.tended
	if sealed := p.linked(); sealed != l.sealed {
		l.sealed, l.round, l.beat = sealed, round{}, t.now
		if l.search.MTU() != 0 {
			t.begin(p)
		}
	}
}

// atRest reports whether p has nothing to do, and nothing hangs on it.
func (t *Tunnel) atRest(p *Peer) bool { return t.now.Sub(p.tended.used) > restAfter*t.o.Interval }

// every is how often p is asked: each interval while it is in use, or owes an
// answer. Peers at rest differ a little, so that they don't all come at once.
func (t *Tunnel) every(p *Peer) time.Duration {
	if l := &p.tended; !t.atRest(p) || l.state == Up && l.answering && !l.asked.IsZero() || !l.claimed.IsZero() {
		return t.o.Interval
	}
	return restEvery*t.o.Interval + time.Duration(p.id%ticksInterval)*t.o.Interval/ticksInterval
}

// enter changes p's state and tells.
func (t *Tunnel) enter(p *Peer, s State) {
	l := &p.tended
	l.state, l.since, l.used, l.claimed = s, t.now, t.now, time.Time{}
	p.reprobe()
	p.down.Store(s == Down)
	t.pending = append(t.pending, Event{t.now, p.status()})
}

// answerAll takes h and what else has come, and answers it together.
func (t *Tunnel) answerAll(h heard) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range answersAtOnce {
		t.answer(h)
		select {
		case h = <-t.messages:
			continue
		default:
		}
		break
	}
	t.flush()
}

// answer takes a message of a peer.
func (t *Tunnel) answer(h heard) {
	p := h.peer
	l := &p.tended
	l.spoke = t.now
	if h.kind == kindProbe {
		h.kind, h.message.size = kindAnswer, uint32(h.size)
		_ = t.send(p, &h.message, messageLen, tagAnswer, h.sealed) // as good as lost on the way
		switch {
		case l.state != Up:
			l.beat = t.now // it is there: ask at the next tick
		case l.answering:
		case h.sealed: // it is of our kind, and answers from now on
			t.expect(p)
			l.asked = t.now
		case l.claimed.IsZero(): // so anybody may say: its answer will tell
			l.claimed, l.beat = t.now, t.now
		}
		return
	}
	if h.sealed != l.sealed || l.seq-h.seq >= window || h.token != t.token(p, h.seq, h.message.size) {
		return
	}
	l.asked = time.Time{}
	if !l.answering {
		t.expect(p)
	}
	if l.state != Up {
		t.enter(p, Up)
		l.beat = t.now
	}
	l.round.heard = true
	l.round.tell(h.seq)
	if _, headers := p.floor(); h.message.size > messageLen {
		l.search.Passed(int(h.message.size) + headers)
	}
	if l.round.complete() {
		t.conclude(p)
	}
}

// expect makes p, which has been connecting, passive or another VTEP, one that
// answers.
func (t *Tunnel) expect(p *Peer) {
	l := &p.tended
	l.answering, l.claimed = true, time.Time{}
	l.round.open = false
	t.begin(p)
	if l.state == Up { // passive until now
		t.pending = append(t.pending, Event{t.now, p.status()})
	}
}

// token is what only the receiver of probe seq, of size octets, can return: its
// answer is a proof of the size, too.
func (t *Tunnel) token(p *Peer, seq, size uint32) uint64 {
	return maphash.Comparable(t.seed, struct {
		id        frame.PortID
		seq, size uint32
	}{p.id, seq, size})
}

var zeros [1 << 16]byte

// send gathers m, padded to size octets, for the next flush: by the link, or in
// clear to a peer that carries a network in clear. Tunnel.mu is held.
func (t *Tunnel) send(p *Peer, m *message, size, tag int, sealed bool) syscall.Errno {
	if sealed {
		return t.sealMessage(p, m, nil, size, tag)
	}
	if p.only.Load() {
		return unix.ENETDOWN
	}
	d := p.dest.Load()
	sock := t.pool(d).Pick(0)
	if sock == nil {
		return unix.ENETDOWN
	}
	m.put(t.own.Begin(sock, d, tosControl, messageLen))
	t.own.Payload(zeros[:max(size-messageLen, 0)])
	t.own.End(tag)
	return 0
}
