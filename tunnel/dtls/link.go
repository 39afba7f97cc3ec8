package dtls

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// Verdict is what became of a record that was received.
type Verdict uint8

// Verdicts.
const (
	Consumed  Verdict = iota // it was the link's own
	Delivered                // plaintext is the peer's
	BadRecord                // it is nobody's: malformed, in clear, or sealed with another key
	Replayed                 // it came before, or is too old to tell
)

const maxAssociations = 3 // sealing, its predecessor, one on the way

// Link is the encrypted link to one peer.
type Link struct {
	e    *Endpoint
	name string

	sealing atomic.Pointer[association]
	opening atomic.Pointer[keyring]
	gate    gate

	// The following are guarded by Endpoint.mu.

	address  netip.AddrPort // as configured
	remote   netip.AddrPort // where the peer was last found to be
	closed   bool
	client   *attempt   // under way
	server   *attempt   // whose cookie came back
	unproven []*attempt // whose cookie hasn't, oldest first
	last     *attempt   // a server's that has ended well and may repeat its last flight
	retry    time.Time  // not before this is another attempt begun
	asked    time.Time  // keys of a handshake that began before are to be renewed
	failures int        // attempts in a row
	failure  Failure    // the last
	counted  counters

	told           State
	toldFailure    Reason
	toldGeneration uint64
}

// counters are for the auditor.
type counters struct {
	handshakes    uint64 // that ended well
	generation    uint64 // of the keys in use
	lastHandshake time.Time
}

// association is the keys of one handshake.
type association struct {
	suite        record.Suite
	seal         *record.Sealer
	open         *record.Opener
	remote       netip.AddrPort
	cred         *Credentials
	certificates [][]byte  // the peer's
	expires      time.Time // Endpoint.mu; zero with a shared key
	begun        time.Time // the handshake
	made         time.Time // when it ended
	generation   uint64
	client       bool
	taken        time.Time // when a former process's; zero = made here
	follows      bool      // a server's numbers follow from a client's, in handshakes with this peer

	heard atomic.Bool // opened something since the last tick
	fresh atomic.Bool // the peer is known to have these keys
	ended atomic.Bool // the peer has closed it
	spent atomic.Bool // has refused to seal

	// Endpoint.mu
	last   time.Time // when it was heard
	beaten time.Time // when a keepalive was sent
	beats  int       // in a row without anything heard
	until  time.Time // superseded: how long it still opens; zero = it is not
}

// keyring is what a link opens records with, newest first. It is immutable.
type keyring struct {
	associations []*association
	openers      []*record.Opener
}

// Reserve makes w seal the next n records to the peer. It reports false, and w
// seals nothing, when there is no established link: then nothing may leave.
//
// Hot path: no allocation.
func (l *Link) Reserve(w *record.Writer, n int) bool {
	a := l.sealing.Load()
	if a == nil {
		return false
	}
	if !w.Reserve(a.seal, n) {
		a.spent.Store(true)
		return false
	}
	return true
}

// Sealing reports whether the link has keys to seal with, as Reserve needs them.
//
// Hot path: no allocation.
func (l *Link) Sealing() bool {
	a := l.sealing.Load()
	return a != nil && a.seal.Left() > 0
}

// Open opens the first record of datagram b, in place, and returns its plaintext
// and the rest of b, to be opened next. plain is only good with Delivered, and
// never empty then. from is where b came from; the caller has found the link by
// its address. Datagrams of handshakes are copied and looked at elsewhere.
//
// Hot path: no allocation for data.
func (l *Link) Open(r *record.Reader, from netip.AddrPort, b []byte) (plain, rest []byte, v Verdict) {
	h, ok := record.Parse(b)
	if !ok {
		return nil, nil, BadRecord
	}
	if h.Epoch == 0 || h.Type == record.Handshake {
		return nil, nil, l.queue(h, from, b)
	}
	rest = b[record.HeaderLen+h.Length:]
	if h.Type == record.ChangeCipherSpec || h.Length < record.NonceLen+record.TagLen {
		return nil, rest, BadRecord
	}
	k := l.opening.Load()
	if k == nil {
		return nil, rest, BadRecord
	}
	plain, which, verdict := r.Open(k.openers, h, b)
	switch verdict {
	case record.Bad:
		return nil, rest, BadRecord
	case record.Replayed:
		return nil, rest, Replayed
	}
	l.hear(k.associations[which], h.Type, plain)
	if h.Type == record.Alert || len(plain) == 0 || isKeepalive(plain) {
		return nil, rest, Consumed
	}
	return plain, rest, Delivered
}

// hear notes that a has opened a record.
//
// Hot path: no allocation.
func (l *Link) hear(a *association, t record.Type, plain []byte) {
	if !a.heard.Load() {
		a.heard.Store(true)
	}
	if !a.fresh.Load() && a.fresh.CompareAndSwap(false, true) {
		l.e.wake()
	}
	if t == record.Alert && len(plain) == 2 && (alert{plain[0], plain[1]}).ends() {
		a.ended.Store(true)
		l.e.wake()
	}
}

// queue passes a datagram of a handshake on. None of it is authentic.
func (l *Link) queue(h record.Header, from netip.AddrPort, b []byte) Verdict {
	if h.Type == record.ApplicationData {
		return BadRecord
	}
	switch k := l.gate.kindOf(from, b); {
	case k == unwanted:
		return BadRecord
	case !l.gate.admits(k):
		if k == greeting {
			l.e.refused.Add(1)
		}
		return BadRecord
	}
	select {
	case l.e.inbox <- incoming{l, from, slices.Clone(b)}:
		return Consumed
	default:
		return BadRecord
	}
}

// The following are called with Endpoint.mu held.

// setOpening replaces the keyring.
func (l *Link) setOpening(list []*association) {
	if len(list) == 0 {
		l.opening.Store(nil)
		return
	}
	k := &keyring{associations: list}
	for _, a := range list {
		k.openers = append(k.openers, a.open)
	}
	l.opening.Store(k)
}

// associations are those that open, newest first.
func (l *Link) associations() []*association {
	if k := l.opening.Load(); k != nil {
		return k.associations
	}
	return nil
}

// install adds the keys of a handshake. The side that was the client seals with
// them at once: the server has had them before it sent its last message. The
// server waits until it has opened something.
func (l *Link) install(a *association) {
	l.counted.handshakes++
	l.counted.lastHandshake = a.made
	a.generation = l.counted.handshakes
	l.remote, l.failures = a.remote, 0
	list := append([]*association{a}, l.associations()...)
	if len(list) > maxAssociations {
		// The one in use is no newer than the others that could go.
		i := len(list) - 1
		if list[i] == l.sealing.Load() {
			i--
		}
		list = slices.Delete(list, i, i+1)
	}
	l.setOpening(list)
	if a.client {
		l.use(a)
	}
}

// use makes the link seal with a, from the next batch on.
func (l *Link) use(a *association) {
	now := time.Now()
	for _, old := range l.associations() {
		if old != a && old.until.IsZero() && old.generation < a.generation {
			old.until = now.Add(l.e.o.Overlap)
		}
	}
	a.until = time.Time{}
	l.counted.generation = a.generation
	l.sealing.Store(a)
	l.beat(a, now)
}

// keepalive is what a link says when it has nothing to say: a VXLAN header of VNI
// 0, which anybody discards. Not an empty record: to an OpenSSL application that
// is an error.
const keepalive = 0x08 << 56

// isKeepalive reports whether plain is the link's own.
//
// Hot path: no allocation.
func isKeepalive(plain []byte) bool {
	return len(plain) == 8 && binary.BigEndian.Uint64(plain) == keepalive
}

// beat sends a keepalive: the peer learns that we have the keys.
func (l *Link) beat(a *association, now time.Time) {
	a.beaten = now
	a.beats++
	l.sendRecord(a, record.ApplicationData, binary.BigEndian.AppendUint64(nil, keepalive))
}

// sendRecord seals and sends something of the link's own.
func (l *Link) sendRecord(a *association, t record.Type, plain []byte) {
	var w record.Writer
	b := make([]byte, len(plain)+record.Overhead)
	copy(b[record.Headroom:], plain)
	if w.Reserve(a.seal, 1) && w.Seal(t, b) {
		_ = l.e.o.Send(a.remote, b) // lost on the way
	}
}

// drop forgets a. If it was in use another takes its place that the peer is known
// to have, or nothing: then nothing may leave.
func (l *Link) drop(a *association, why Reason, detail string) {
	list := slices.DeleteFunc(slices.Clone(l.associations()), func(b *association) bool { return a == b })
	inUse := l.sealing.Load() == a
	if inUse {
		l.sealing.Store(nil)
	}
	l.setOpening(list)
	if !inUse {
		return
	}
	l.fail(why, detail)
	for _, b := range list {
		if b.fresh.Load() && !b.ended.Load() && b.seal.Left() > 0 {
			l.use(b)
			return
		}
	}
}

// dropAll forgets every key, and says so to the peer.
func (l *Link) dropAll(why Reason, detail string) {
	if a := l.sealing.Load(); a != nil {
		l.sendRecord(a, record.Alert, []byte{warning, closeNotify})
	}
	had := l.sealing.Swap(nil) != nil
	l.setOpening(nil)
	if had && why != ReasonNone {
		l.fail(why, detail)
	}
}

// fail remembers why there is no link.
func (l *Link) fail(why Reason, detail string) {
	l.failure = Failure{Time: time.Now(), Reason: why, Detail: detail}
}
