package tunnel

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

const (
	// raiseEvery is how often a larger path MTU is looked for, in intervals; to
	// peers at rest restEvery times as seldom.
	raiseEvery = 60
	// A round of probes is over when all are answered, or after two ticks.
	roundTicks = 2
	// Nobody's path is narrower (RFC 791 clause 3.1, RFC 8200 clause 5).
	floorIPv4 = 576
	floorIPv6 = 1280
	// What stands between the start of the outer packet and a message.
	headersIPv4 = 20 + 8
	headersIPv6 = 40 + 8
)

// round is the probes to one peer that are under way together, numbered one
// behind the other; the first is the short one.
type round struct {
	open  bool
	heard bool   // one of them was answered, or one of a former round that late
	count uint8  // at most 16
	told  uint16 // a bit for each that was answered or refused
	first uint32
	sent  time.Time
}

// tell notes what became of probe seq, if it is one of the round.
func (r *round) tell(seq uint32) {
	if i := seq - r.first; i < uint32(r.count) {
		r.told |= 1 << i
	}
}

// complete reports whether nothing is left to wait for.
func (r *round) complete() bool { return r.open && r.told == 1<<r.count-1 }

// probe is one that is about to leave.
type probe struct {
	peer  *Peer
	seq   uint32
	size  int // of the UDP payload
	errno syscall.Errno
}

// floor is the least packet that p's path carries, and headers what of it is
// not message.
func (p *Peer) floor() (floor, headers int) {
	floor, headers = floorIPv4, headersIPv4
	if p.outer().IPv6 {
		floor, headers = floorIPv6, headersIPv6
	}
	if p.tended.sealed {
		headers += record.Overhead
	}
	return floor, headers
}

// begin starts the search for p's path MTU. A peer that answers no probe is
// taken to get whatever the device lets out, up to the underlay's MTU.
func (t *Tunnel) begin(p *Peer) {
	l := &p.tended
	limit := l.underlay
	if l.answering {
		limit = 0
	}
	p.reprobe()
	floor, _ := p.floor()
	l.search.Start(floor, l.underlay, limit)
	l.raise = t.now.Add(raiseEvery * t.o.Interval)
}

// resize makes mtu that of the underlay on the way to p. What answers have shown
// of the path stays until more is shown to pass: only this host's end is known to
// be wider.
func (t *Tunnel) resize(p *Peer, mtu int) {
	l := &p.tended
	if mtu == l.underlay {
		return
	}
	l.underlay, l.beat = mtu, t.now
	switch {
	case l.search.MTU() == 0: // not asked yet
		p.inner.Store(int32(p.outer().InnerMTU(mtu)))
	case l.answering && mtu > l.search.MTU():
		l.raise = time.Time{}
	default:
		l.round = round{}
		t.begin(p)
		t.settle(p)
	}
}

// reprobe lets runs to p leave by UDP_SEGMENT again, should it have been refused:
// the underlay may be another one. A refusal costs one system call a datagram of
// one run.
func (p *Peer) reprobe() {
	p.dest.Load().Reprobe()
	if to := p.sealedTo.Load(); to != nil {
		to.Reprobe()
	}
}

// ask sends p a round: whether it is there, and whether the present size passes
// still, or a larger one.
func (t *Tunnel) ask(p *Peer) {
	l := &p.tended
	l.beat = t.now.Add(t.every(p))
	stuck := p.stuck.Swap(false)
	switch s := &l.search; {
	case l.state == Down:
		t.gather(p, messageLen)
		return
	case s.MTU() == 0:
		t.begin(p)
	case !t.now.Before(l.raise.Add(t.raiseLater(p))):
		l.raise = t.now.Add(raiseEvery * t.o.Interval)
		p.reprobe()
		s.Raise()
	case l.answering || stuck:
		s.Ask()
	}
	t.sendRound(p)
}

// raiseLater is how much later than others p gets a search for a larger MTU.
func (t *Tunnel) raiseLater(p *Peer) time.Duration {
	if t.atRest(p) {
		return (restEvery - 1) * raiseEvery * t.o.Interval
	}
	return 0
}

// sendRound gathers the sizes that the search wants, and a short one.
func (t *Tunnel) sendRound(p *Peer) {
	l := &p.tended
	sizes := l.search.Sizes()
	l.round = round{open: true, count: uint8(1 + len(sizes)), first: l.seq + 1, sent: t.now}
	_, headers := p.floor()
	t.gather(p, messageLen)
	for _, n := range sizes {
		t.gather(p, int(n)-headers)
	}
}

// conclude ends p's round and begins the next one, if the search goes on.
func (t *Tunnel) conclude(p *Peer) {
	l := &p.tended
	l.round.open = false
	l.search.Next(l.round.heard)
	t.settle(p)
	if !l.search.Resting() {
		t.sendRound(p)
	}
}

// settle makes what the search found the path MTU of p and tells, if that is
// new.
func (t *Tunnel) settle(p *Peer) {
	inner := int32(p.outer().InnerMTU(p.tended.search.MTU()))
	if p.inner.Swap(inner) != inner {
		t.pending = append(t.pending, Event{t.now, p.status()})
	}
}

// gather adds a probe of so many octets of UDP payload to those that leave with
// the next flush.
func (t *Tunnel) gather(p *Peer, size int) {
	l := &p.tended
	l.seq++
	if l.asked.IsZero() {
		l.asked = t.now
	}
	m := message{kind: kindProbe, seq: l.seq, token: t.token(p, l.seq, uint32(size)), size: uint32(size)}
	errno := t.send(p, &m, size, len(t.out), l.sealed)
	t.out = append(t.out, probe{p, l.seq, size, errno})
}

// flush sends what was gathered, for all peers together. What the device refuses
// is known at once, so the search goes on with smaller sizes until some are on
// their way.
func (t *Tunnel) flush() {
	for {
		for _, f := range t.own.Flush() {
			if f.Tag != tagAnswer {
				t.out[f.Tag].errno = f.Errno
			}
		}
		if len(t.out) == 0 {
			return
		}
		out := t.out
		t.out, t.left = t.left[:0], out
		for i := 0; i < len(out); {
			n := 1
			for i+n < len(out) && out[i+n].peer == out[i].peer {
				n++
			}
			t.sent(out[i].peer, out[i:i+n])
			i += n
		}
	}
}

// sent takes what became of the probes of p that have just left, or not.
func (t *Tunnel) sent(p *Peer, out []probe) {
	l := &p.tended
	_, headers := p.floor()
	more := false
	for i := range out {
		o := &out[i]
		switch {
		case o.size == messageLen: // about presence
		case o.errno == unix.EMSGSIZE:
			l.search.Refused(o.size + headers)
			l.round.tell(o.seq)
			more = true
		case o.errno == 0 && !l.answering:
			l.search.Passed(o.size + headers)
			more = true
		}
	}
	if more && (l.search.Resting() || !l.answering) {
		l.round.heard = true
		t.conclude(p)
	}
}
