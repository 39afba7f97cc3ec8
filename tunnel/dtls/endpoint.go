package dtls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

const (
	tick = 200 * time.Millisecond
	// inboxSize is how many datagrams of handshakes wait, of all links.
	inboxSize = 1024
	// maxRecords is how many records one AES-GCM key may seal (RFC 5288 clause 3
	// leaves it at 2^64; NIST SP 800-38D clause 8.3 is stricter).
	maxRecords = 1 << 32
	// lateBy is by how much later than the other the host with the higher name
	// renews keys, as a part of the whole: they seldom meet.
	lateBy = 8
	// leastRenewal is how long a renewal may take at least before the keys end: some
	// attempts, each of which may wait for Options.Timeout.
	leastRenewal = time.Minute
)

// Options are fixed for the life of an Endpoint.
type Options struct {
	// Host is this host's name, as it stands in its certificate.
	Host string
	// Send sends a datagram of a handshake, or a keepalive, from the socket
	// that the peers know. It must not block or call the Endpoint, may be called
	// by several goroutines at once, and keeps nothing of b.
	Send func(to netip.AddrPort, b []byte) error
	// Events is told what happened to links, by a goroutine of the Endpoint. It
	// must not call Apply or Close. nil for none.
	Events func(Event)
	// RekeyRecords and RekeyAfter are when new keys are asked for: after so many
	// records sealed, or so long; 0 = 2^30, 12 h.
	RekeyRecords uint64
	RekeyAfter   time.Duration
	// MaxRecords is how many records a key may seal at most; 0 = 2^32. After
	// twice RekeyAfter it seals none either, or a minute after it when that is
	// later.
	MaxRecords uint64
	// Overlap is how long former keys still open; 0 = 30 s.
	Overlap time.Duration
	// Keepalive is how often the peer is sent a record in any case, and a third of
	// the time after which keys that have opened nothing are given up; 0 = 5 s.
	Keepalive time.Duration
	// Timeout is how long a handshake may take; 0 = 10 s.
	Timeout time.Duration
	// MaxPending is how many handshakes may be under way, each way; 0 = 64.
	MaxPending int
	// Handed is what Hand of the process before has returned, nil for nothing. The
	// first Apply takes of it what its peers and credentials allow, and clears it.
	Handed []byte
}

// keysEnd is at which age keys seal nothing any more. It is no less than
// RekeyAfter, however long that is.
func (o *Options) keysEnd() time.Duration {
	spare := max(o.RekeyAfter, leastRenewal)
	return o.RekeyAfter + min(spare, math.MaxInt64-o.RekeyAfter)
}

// Peer is one host at the other end of a link.
type Peer struct {
	Name    string         // as it stands in its certificate
	Address netip.AddrPort // of its DTLS socket
}

// incoming is a datagram of a handshake.
type incoming struct {
	link *Link
	from netip.AddrPort
	b    []byte
}

// Endpoint is this host's end of all links.
type Endpoint struct {
	o       Options
	inbox   chan incoming
	bell    chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	workers sync.WaitGroup
	refused atomic.Uint64 // hellos, for want of room

	mu       sync.Mutex
	cred     *Credentials // nil = no link is made
	links    map[string]*Link
	underWay [2]int // unproven servers, clients
	pending  []Event
	keyLog   io.Writer
	closed   bool
}

var errClosed = errors.New("closed")

// New makes an Endpoint without credentials or peers.
func New(o Options) (*Endpoint, error) {
	if o.Host == "" || o.Send == nil {
		return nil, errors.New("new endpoint: Options.Host and Options.Send are needed")
	}
	def(&o.RekeyRecords, 1<<30)
	def(&o.RekeyAfter, 12*time.Hour)
	def(&o.MaxRecords, maxRecords)
	def(&o.Overlap, 30*time.Second)
	def(&o.Keepalive, 5*time.Second)
	def(&o.Timeout, 10*time.Second)
	def(&o.MaxPending, 64)
	if o.MaxRecords > maxRecords || o.RekeyRecords >= o.MaxRecords {
		return nil, fmt.Errorf("new endpoint: rekey after %d records, at most %d: want fewer than %d, and at most %d",
			o.RekeyRecords, o.MaxRecords, o.MaxRecords, uint64(maxRecords))
	}
	e := &Endpoint{
		o: o, inbox: make(chan incoming, inboxSize), bell: make(chan struct{}, 1), links: make(map[string]*Link),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.workers.Go(e.run)
	return e, nil
}

// def gives v a value if it has none.
func def[T comparable](v *T, value T) {
	var none T
	if *v == none {
		*v = value
	}
}

// Apply makes the Endpoint have these credentials and peers, all or nothing. A
// link goes on if its peer has the name and address it had and the credentials still accept
// what the peer has shown. Links to others are closed at once. Without
// credentials there is no link at all.
func (e *Endpoint) Apply(c *Credentials, peers []Peer) error {
	if c != nil {
		if err := c.fits(e.o.Host); err != nil {
			return fmt.Errorf("apply credentials: %w", err)
		}
	}
	want := make(map[string]Peer, len(peers))
	for _, p := range peers {
		if _, twice := want[p.Name]; twice || p.Name == "" || p.Name == e.o.Host || !p.Address.IsValid() {
			return fmt.Errorf("apply peer %q at %v: want a name that nobody else has, and an address", p.Name, p.Address)
		}
		want[p.Name] = p
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return fmt.Errorf("apply peers: %w", errClosed)
	}
	defer e.forgetHanded()
	changed := e.cred != c
	e.cred = c
	for name, l := range e.links {
		if _, ok := want[name]; !ok {
			e.closeLink(l)
			delete(e.links, name)
		}
	}
	for name, p := range want {
		l := e.links[name]
		if l == nil {
			l = &Link{e: e, name: name}
			e.links[name] = l
		}
		e.adjust(l, p.Address, changed)
	}
	if e.o.Handed != nil && c != nil {
		e.resume(e.o.Handed, time.Now())
	}
	e.wake()
	return nil
}

// adjust makes l be to address, and fit the credentials.
func (e *Endpoint) adjust(l *Link, address netip.AddrPort, changed bool) {
	if moved := l.address != address; moved || changed {
		l.abort()
		l.failures, l.retry = 0, time.Time{}
		if e.o.Host > l.name {
			l.retry = time.Now().Add(e.o.Timeout / 20) // the other begins
		}
		if moved {
			l.dropAll(Withdrawn, "the peer has another address")
			l.address, l.remote = address, address
		}
	}
	l.heed()
	if e.cred == nil {
		l.dropAll(Withdrawn, "no credentials")
		return
	}
	if !changed {
		return
	}
	for _, a := range l.associations() {
		if !a.cred.same(e.cred) {
			l.drop(a, Withdrawn, "the credentials changed")
		} else if e.cred.key == nil {
			var err error
			if a.expires, err = e.cred.verify(a.certificates, l.name, time.Now()); err != nil {
				r := classify(err)
				l.drop(a, r.Reason, r.detail)
			}
		}
	}
}

// Link returns the link to a peer of the last Apply, nil when there is none.
func (e *Endpoint) Link(peer string) *Link {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.links[peer]
}

// Refused is how many ClientHellos were not answered for want of room.
func (e *Endpoint) Refused() uint64 { return e.refused.Load() }

// SetKeyLog writes the secrets of handshakes that end from now on to w, in the
// format that tshark reads (NSS key log); nil ends it. Who has them reads
// everything that their keys seal. Former secrets are not there to be told: nobody
// needs them who hasn't recorded their handshakes. Renew makes new ones.
func (e *Endpoint) SetKeyLog(w io.Writer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keyLog = w
}

// Renew asks for new keys of all links, soon, by handshakes that begin from now on.
// What goes by then is not disturbed.
func (e *Endpoint) Renew() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	for _, l := range e.links {
		l.asked = now
	}
	e.wake()
}

// RekeyAt makes new keys be asked for after so many records sealed, or so long,
// from now on; 0 leaves that as it is. Links go on.
func (e *Endpoint) RekeyAt(records uint64, after time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	def(&records, e.o.RekeyRecords)
	def(&after, e.o.RekeyAfter)
	e.o.RekeyRecords, e.o.RekeyAfter = min(records, e.o.MaxRecords-1), after
	e.wake()
}

// logKeys is called with mu held. A writer that fails is given up.
func (e *Endpoint) logKeys(s *record.Secrets) {
	if e.keyLog == nil {
		return
	}
	line := fmt.Appendf(nil, "CLIENT_RANDOM %x %x\n", s.ClientRandom, s.Master)
	if _, err := e.keyLog.Write(line); err != nil {
		e.keyLog = nil
	}
	clear(line)
}

// Close closes all links and waits for the Endpoint's goroutines. It is
// idempotent.
func (e *Endpoint) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	for _, l := range e.links {
		e.closeLink(l)
	}
	e.mu.Unlock()
	e.cancel()
	e.workers.Wait()
	return nil
}

// closeLink ends l for good.
func (e *Endpoint) closeLink(l *Link) {
	l.abort()
	l.dropAll(ReasonNone, "")
	l.closed = true
	l.heed()
	e.note(l)
}

// wake makes the Endpoint look after its links soon.
//
// Hot path: no allocation. It is called once for each new key.
func (e *Endpoint) wake() {
	select {
	case e.bell <- struct{}{}:
	default:
	}
}

// run looks after the links until Close.
func (e *Endpoint) run() {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-e.ctx.Done():
			e.tell()
			return
		case <-t.C:
			e.lookAll(true)
		case <-e.bell:
			e.lookAll(false)
		case d := <-e.inbox:
			e.mu.Lock()
			d.link.deliver(d.from, d.b)
			e.note(d.link)
			e.mu.Unlock()
		}
		e.tell()
	}
}

// fullest is the link with the most unproven handshakes; of several, the one whose
// first is oldest.
func (e *Endpoint) fullest() (most *Link) {
	for _, l := range e.links {
		switch {
		case len(l.unproven) == 0:
		case most == nil || len(l.unproven) > len(most.unproven),
			len(l.unproven) == len(most.unproven) && l.unproven[0].begun.Before(most.unproven[0].begun):
			most = l
		}
	}
	return most
}

func (e *Endpoint) lookAll(ticked bool) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	for _, l := range e.links {
		if ticked {
			l.gate.tick()
		}
		l.look(now)
		e.note(l)
	}
}

// note remembers to tell what changed about l.
func (e *Endpoint) note(l *Link) {
	s := l.status()
	if s.State == l.told && s.Failure.Reason == l.toldFailure && s.Generation == l.toldGeneration {
		return
	}
	l.told, l.toldFailure, l.toldGeneration = s.State, s.Failure.Reason, s.Generation
	e.pending = append(e.pending, Event{time.Now(), s})
}

// tell tells what was noted.
func (e *Endpoint) tell() {
	e.mu.Lock()
	events := e.pending
	e.pending = nil
	e.mu.Unlock()
	if e.o.Events == nil {
		return
	}
	for _, ev := range events {
		e.o.Events(ev)
	}
}

// associate makes keys of what was agreed, and forgets the secret.
func (e *Endpoint) associate(a *attempt, g *agreed, now time.Time) (*association, error) {
	defer g.forget()
	if a.cred.key == nil && g.expires.IsZero() {
		return nil, refusal{NoCertificate, ""}
	}
	s, o, err := record.New(&g.secrets, g.next, e.o.MaxRecords)
	if err != nil {
		return nil, err
	}
	e.logKeys(&g.secrets)
	return &association{
		suite: g.secrets.Suite, seal: s, open: o, remote: a.conn.remote, cred: a.cred,
		certificates: g.certificates, expires: g.expires, begun: a.begun, made: now, last: now, client: a.conn.client,
		follows: a.conn.follows(),
	}, nil
}
