package dtls

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
)

// kind is what a datagram of a handshake is to a link. None is authentic.
type kind uint8

const (
	unwanted   kind = iota // nothing waits for it
	greeting               // a ClientHello without a cookie
	returning              // a ClientHello with a cookie that was sent to it
	ongoing                // of a handshake under way
	explaining             // an alert, which may say why one doesn't go on
	repeating              // a sealed Finished, which asks for the last flight again
	numKinds
)

// perTick is how many datagrams of a kind a link takes between two ticks: some
// flights. Each kind has its own, so that a flood of one is no end of the others,
// and what is unwanted takes from none.
var perTick = [numKinds]uint32{greeting: 32, returning: 16, ongoing: 128, explaining: 4, repeating: 16}

// heeded is what waits for a link's datagrams. It is immutable.
type heeded struct {
	ongoing  []*conn
	unproven []*conn
	last     *conn // nil = none
}

// gate decides which datagrams of handshakes a link takes. Its methods may be
// called by any number of goroutines, and take no lock of the Endpoint.
type gate struct {
	heeds  atomic.Pointer[heeded] // nil = nothing is taken
	counts [numKinds]struct {
		now, before atomic.Uint32 // since the last tick, between the two before
	}
}

// admits reports whether there is room for another datagram of kind k. When more
// come than there is room for, each has the same chance: who comes first, and
// again and again, doesn't keep the others out.
func (g *gate) admits(k kind) bool {
	c := &g.counts[k]
	n := max(c.now.Add(1), c.before.Load())
	return n <= perTick[k] || rand.Uint32N(n) < perTick[k]
}

// tick makes room for the next datagrams.
func (g *gate) tick() {
	for i := range g.counts {
		c := &g.counts[i]
		c.before.Store(c.now.Swap(0))
	}
}

// kindOf says what datagram b is.
func (g *gate) kindOf(from netip.AddrPort, b []byte) kind {
	w := g.heeds.Load()
	if w == nil {
		return unwanted
	}
	if h, ok := parseHello(b); ok {
		switch {
		case h.cookie == "":
			return greeting
		case issuer(w.ongoing, from, h.cookie) >= 0 || issuer(w.unproven, from, h.cookie) >= 0:
			return returning
		}
		return unwanted
	}
	for _, c := range w.ongoing {
		if c.remote != from {
			continue
		}
		if _, ok := parseAlert(b); ok {
			return explaining
		}
		if c.hears(b) {
			return ongoing
		}
	}
	if w.last != nil && w.last.remote == from && holdsFinished(b) {
		return repeating
	}
	return unwanted
}

// issuer is which of list sent cookie to a client at from, less than 0 for none.
func issuer(list []*conn, from netip.AddrPort, cookie string) int {
	return slices.IndexFunc(list, func(c *conn) bool { return c.remote == from && c.issued(cookie) })
}

// heed makes the gate know what l waits for. Endpoint.mu is held.
func (l *Link) heed() {
	if l.closed || l.e.closed || l.e.cred == nil {
		l.gate.heeds.Store(nil)
		return
	}
	w := &heeded{}
	for _, a := range []*attempt{l.client, l.server} {
		if a != nil {
			w.ongoing = append(w.ongoing, a.conn)
		}
	}
	for _, a := range l.unproven {
		w.unproven = append(w.unproven, a.conn)
	}
	if l.last != nil {
		w.last = l.last.conn
	}
	l.gate.heeds.Store(w)
}
