package dtls

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

const (
	// maxUnproven is how many handshakes of a peer may wait for its cookie: what
	// comes from its address may come from others too.
	maxUnproven = 8
	// keepUnproven is how long one is sure of its place, and dropUnproven how long
	// it is kept at all.
	keepUnproven = tick / 2
	dropUnproven = 3 * time.Second
	// lingering is how long a server remembers its last flight (twice the maximum
	// segment lifetime, as RFC 6347 clause 4.2.4 asks).
	lingering = 60 * time.Second

	// reservedPart is which part of the clients that may be under way are for links
	// that are up: peers that don't answer take the rest.
	reservedPart = 4

	backoffFirst = time.Second
	backoffMost  = 15 * time.Second
)

// attempt is a handshake under way. Its fields but conn are guarded by
// Endpoint.mu.
type attempt struct {
	conn    *conn
	cred    *Credentials
	begun   time.Time
	cancel  context.CancelFunc
	heard   bool   // a client's: something came back
	alerted string // what the peer, or anybody, has said in clear
	end     func() // of a lingering server
}

// attempt is a handshake with the peer at remote that start is to begin.
func (l *Link) attempt(client bool, remote netip.AddrPort) *attempt {
	last := certificateVerify
	if l.e.cred.key != nil {
		last = clientKeyExchange
	}
	c := newConn(client, last, remote, func(b []byte) error { return l.e.o.Send(remote, b) })
	return &attempt{conn: c, cred: l.e.cred, begun: time.Now()}
}

// start begins handshake a, which has its place in l, so that it is heeded before
// it says anything; a server's with datagram b.
func (l *Link) start(a *attempt, b []byte) {
	e := l.e
	var ctx context.Context
	ctx, a.cancel = context.WithTimeout(e.ctx, e.o.Timeout)
	if b != nil {
		a.conn.feed(b)
	}
	l.heed()
	e.workers.Go(func() {
		g, err := shake(ctx, a.conn, parties{a.cred, e.o.Host, l.name})
		a.cancel()
		l.ended(a, g, err)
		e.wake()
	})
}

// abort ends all handshakes of l. Endpoint.mu is held.
func (l *Link) abort() {
	l.stop(&l.client)
	l.stop(&l.server)
	for len(l.unproven) > 0 {
		l.forget(0)
	}
	l.letGo()
	l.heed()
}

// stop ends the handshake at slot, if there is one.
func (l *Link) stop(slot **attempt) {
	if a := *slot; a != nil {
		*slot = nil
		if a.conn.client {
			l.e.underWay[1]--
		}
		a.conn.mute()
		a.cancel()
		l.heed()
	}
}

// forget ends unproven handshake i.
func (l *Link) forget(i int) {
	a := l.unproven[i]
	l.unproven = slices.Delete(l.unproven, i, i+1)
	l.e.underWay[0]--
	a.conn.mute()
	a.cancel()
	l.heed()
}

// letGo ends the memory of the last flight.
func (l *Link) letGo() {
	if l.last != nil {
		l.e.workers.Go(l.last.end)
		l.last = nil
		l.heed()
	}
}

// deliver takes a datagram of a handshake, none of which is authentic. Endpoint.mu
// is held.
func (l *Link) deliver(from netip.AddrPort, b []byte) {
	if l.e.cred == nil || l.closed || l.e.closed {
		return
	}
	if h, ok := parseHello(b); ok {
		if h.cookie == "" {
			l.greet(from, b, h.number)
		} else {
			l.prove(from, b, h)
		}
		return
	}
	said, isAlert := parseAlert(b)
	for _, a := range []*attempt{l.client, l.server} {
		switch {
		case a == nil || a.conn.remote != from:
		case isAlert:
			// Anybody may have sent it: it explains a failure, and makes none.
			a.alerted = fmt.Sprintf("alert %d", said.description)
			a.conn.hush()
		default:
			a.heard = true
			a.conn.feed(b)
		}
	}
	if l.last != nil && l.last.conn.remote == from && holdsFinished(b) {
		l.last.conn.feed(b)
	}
}

// greet takes a ClientHello without cookie, which anybody may have sent. Keys
// that are in use are not touched.
func (l *Link) greet(from netip.AddrPort, b []byte, number uint64) {
	if !l.makeRoom() {
		l.e.refused.Add(1)
		return
	}
	a := l.attempt(false, from)
	a.conn.greet(number)
	l.e.underWay[0]++
	l.unproven = append(l.unproven, a)
	l.start(a, b)
}

// makeRoom makes room for another unproven handshake of l: where the most are that
// wait, if l has fewer, or among l's own.
func (l *Link) makeRoom() bool {
	if n := len(l.unproven); n < maxUnproven {
		if l.e.underWay[0] < l.e.o.MaxPending {
			return true
		}
		if most := l.e.fullest(); len(most.unproven) > n+1 || most.yields() {
			most.forget(0)
			return true
		}
	}
	if l.yields() {
		l.forget(0)
		return true
	}
	return false
}

// yields reports whether the oldest unproven handshake of l isn't sure of its place
// any more. That is left to chance: a flood would keep out for ever whose hellos are
// in step with it.
func (l *Link) yields() bool {
	return len(l.unproven) > 0 && time.Since(l.unproven[0].begun) >= keepUnproven+rand.N(keepUnproven)
}

// prove takes a ClientHello with a cookie. When it is one of ours, who sent it
// has the address that he claims. When this host is the client of a handshake
// that goes on, the lower name remains the client.
func (l *Link) prove(from netip.AddrPort, b []byte, h hello) {
	if a := l.server; a != nil && a.conn.remote == from && a.conn.issued(h.cookie) {
		a.conn.feed(b)
		return
	}
	i := slices.IndexFunc(l.unproven, func(a *attempt) bool { return a.conn.remote == from && a.conn.issued(h.cookie) })
	if i < 0 || l.client != nil && l.client.heard && l.e.o.Host < l.name {
		return
	}
	a := l.unproven[i]
	l.unproven = slices.Delete(l.unproven, i, i+1)
	l.e.underWay[0]--
	for len(l.unproven) > 0 {
		l.forget(0)
	}
	l.stop(&l.client)
	l.stop(&l.server)
	l.server = a
	l.heed()
	a.conn.prove(h.number)
	a.conn.feed(b)
}

// ended takes the outcome of a handshake.
func (l *Link) ended(a *attempt, g *agreed, err error) {
	e := l.e
	e.mu.Lock()
	defer e.mu.Unlock()
	proven := true
	switch i := slices.Index(l.unproven, a); {
	case l.client == a:
		l.client = nil
		e.underWay[1]--
	case l.server == a:
		l.server = nil
	case i >= 0:
		l.unproven = slices.Delete(l.unproven, i, i+1)
		e.underWay[0]--
		proven = false
	default: // it was given up
		if g != nil {
			g.forget()
			e.workers.Go(g.end)
		}
		return
	}
	defer l.heed()
	now := time.Now()
	var as *association
	if err == nil {
		if as, err = e.associate(a, g, now); err != nil {
			e.workers.Go(g.end)
		}
	}
	if err != nil {
		l.failed(a, err, proven, now)
		e.note(l)
		return
	}
	l.install(as)
	l.letGo()
	if !as.client {
		a.end = g.end
		a.begun = now
		l.last = a
		a.conn.release()
	}
	l.look(now)
	e.note(l)
}

// failed remembers why a handshake failed, and when to try again.
func (l *Link) failed(a *attempt, err error, proven bool, now time.Time) {
	r := classify(err)
	if r.Reason == NoAnswer {
		switch {
		case !proven:
			return
		case a.alerted != "":
			r = refusal{PeerRefused, a.alerted + ", which isn't authentic"}
		case a.cred.key != nil && a.conn.sealed():
			r = refusal{WrongKey, ""}
		}
	}
	if proven || l.sealing.Load() == nil {
		l.fail(r.Reason, r.detail)
	}
	if proven {
		l.failures++
		wait := min(backoffFirst<<min(l.failures-1, 10), backoffMost)
		l.retry = now.Add(wait*3/4 + rand.N(wait/2))
	}
}

// look looks after l: what was heard, what is too old, what is due. Endpoint.mu
// is held.
func (l *Link) look(now time.Time) {
	for _, a := range slices.Clone(l.associations()) {
		l.lookAt(a, now)
	}
	for len(l.unproven) > 0 && now.Sub(l.unproven[0].begun) > dropUnproven {
		l.forget(0)
	}
	if l.last != nil && now.Sub(l.last.begun) > lingering {
		l.letGo()
	}
	a := l.sealing.Load()
	if a != nil && now.Sub(a.beaten) >= l.pause(a) {
		l.beat(a, now)
	}
	if a == nil || l.due(a, now) {
		l.renew(now)
	}
}

// lookAt looks after one association.
func (l *Link) lookAt(a *association, now time.Time) {
	heard := a.heard.Swap(false)
	if heard {
		a.last = now
	}
	inUse := l.sealing.Load()
	switch {
	case a.ended.Load():
		// It has closed the link: its former keys are gone too.
		for _, old := range slices.Clone(l.associations()) {
			if old.generation < a.generation {
				l.drop(old, ReasonNone, "")
			}
		}
		l.drop(a, PeerClosed, "")
	case !a.expires.IsZero() && now.After(a.expires):
		l.drop(a, Expired, "while in use")
	case a.spent.Load() || a.seal.Left() == 0:
		l.drop(a, Spent, "")
	case now.Sub(a.made) >= l.e.o.keysEnd():
		l.drop(a, Spent, "too old")
	case now.Sub(a.last) >= 3*l.e.o.Keepalive:
		l.drop(a, Silent, "")
	case !a.until.IsZero() && now.After(a.until) && !heard:
		l.drop(a, ReasonNone, "")
	case a.fresh.Load() && a.until.IsZero() && a != inUse && (inUse == nil || inUse.generation < a.generation):
		l.use(a)
	}
}

// pause is how long to wait with the next keepalive: a server can't send before it
// has heard something.
func (l *Link) pause(a *association) time.Duration {
	if a.fresh.Load() {
		return l.e.o.Keepalive
	}
	return min(tick<<min(a.beats, 10), l.e.o.Keepalive)
}

// due reports whether a's keys are to be renewed. The host with the higher name is
// later, but before the keys end: it may be the only one that seals.
func (l *Link) due(a *association, now time.Time) bool {
	o := &l.e.o
	records, after := o.RekeyRecords, o.RekeyAfter
	if o.Host > l.name {
		records += min(records/lateBy, (o.MaxRecords-records)/2)
		after += min(after/lateBy, (o.keysEnd()-after)/2)
	}
	return a.begun.Before(l.asked) || l.stale(a, now) || a.seal.Sealed() >= records || now.Sub(a.made) >= after
}

// renew begins a handshake unless one is under way, or keys wait for the peer's
// first record, or it is too early.
func (l *Link) renew(now time.Time) {
	inUse := l.sealing.Load()
	room := l.e.o.MaxPending
	if inUse == nil {
		room -= room / reservedPart
	}
	if l.e.cred == nil || l.closed || l.client != nil || l.server != nil || now.Before(l.retry) || l.e.underWay[1] >= room {
		return
	}
	if slices.ContainsFunc(l.associations(), func(a *association) bool {
		return !a.fresh.Load() && now.Sub(a.made) < l.e.o.Timeout && (inUse == nil || a.generation > inUse.generation)
	}) {
		return
	}
	l.e.underWay[1]++
	l.client = l.attempt(true, l.address)
	if inUse != nil && inUse.follows {
		l.client.conn.expect()
	}
	l.start(l.client, nil)
}
