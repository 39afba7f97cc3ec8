package dtls_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// canary stands in every frame: nothing on a wire may ever hold it.
const canary = "canary-in-clear"

// sent is one datagram on the wire.
type sent struct {
	from, to string
	b        []byte
}

// wire joins hosts in memory. It keeps all that it ever carried.
type wire struct {
	t testing.TB
	// fate may change what becomes of a datagram: it returns those to deliver.
	fate func(sent) []sent
	// told is told all events; fixed before the first host.
	told func(dtls.Event)

	mu    sync.Mutex
	hosts map[string]*host
	log   []sent
	// waiting are datagrams to a host that is between two processes.
	waiting map[string][]sent
	record  bool // keep what is carried and told; fixed before the first host
}

func newWire(t testing.TB) *wire { return &wire{t: t, hosts: map[string]*host{}, record: true} }

// host is one end with its links, and what its peers' frames were.
type host struct {
	w    *wire
	name string
	addr netip.AddrPort
	o    dtls.Options
	e    *dtls.Endpoint

	mu       sync.Mutex // all below, and Open: it has one goroutine in life
	links    map[string]*dtls.Link
	reader   record.Reader
	frames   []string
	verdicts [4]int
	events   []dtls.Event

	writer record.Writer // the test's goroutine
}

var addresses = map[string]netip.AddrPort{
	"a": netip.MustParseAddrPort("192.0.2.1:4788"), "b": netip.MustParseAddrPort("192.0.2.2:4788"),
	"c": netip.MustParseAddrPort("192.0.2.3:4788"),
}

func init() {
	for i := range 100 { // who is never there
		at := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		addresses[fmt.Sprint("dead", i)] = netip.AddrPortFrom(at, 4788)
	}
}

func nameOf(a netip.AddrPort) string {
	for n, b := range addresses {
		if a == b {
			return n
		}
	}
	return ""
}

// host starts a host, in place of the one of that name.
func (w *wire) host(name string, o dtls.Options, c *dtls.Credentials, peers ...string) *host {
	w.t.Helper()
	h := w.begin(name, o)
	h.apply(c, peers...)
	return h
}

// begin is host without credentials and peers.
func (w *wire) begin(name string, o dtls.Options) *host {
	w.t.Helper()
	h := &host{w: w, name: name, addr: addresses[name], links: map[string]*dtls.Link{}}
	o.Host = name
	o.Send = func(to netip.AddrPort, b []byte) error {
		w.carry(sent{name, nameOf(to), slices.Clone(b)}, h)
		return nil
	}
	o.Events = func(e dtls.Event) {
		if w.told != nil {
			w.told(e)
		}
		if !w.record {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events = append(h.events, e)
	}
	h.o = o
	var err error
	if h.e, err = dtls.New(o); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.hosts[name] = h
	w.mu.Unlock()
	return h
}

func (h *host) apply(c *dtls.Credentials, peers ...string) {
	h.w.t.Helper()
	var list []dtls.Peer
	for _, p := range peers {
		list = append(list, dtls.Peer{Name: p, Address: addresses[p]})
	}
	h.mu.Lock() // what is answered at once waits until the links are known
	defer h.mu.Unlock()
	if err := h.e.Apply(c, list); err != nil {
		h.w.t.Fatal(err)
	}
	clear(h.links)
	for _, p := range peers {
		h.links[p] = h.e.Link(p)
	}
}

// carry puts a datagram on the wire. by is nil when a test forges it; a host that
// was replaced is mute.
func (w *wire) carry(s sent, by *host) {
	w.mu.Lock()
	if by != nil && w.hosts[s.from] != by {
		w.mu.Unlock()
		return
	}
	if w.record && by != nil { // what a test forges is nobody's
		w.log = append(w.log, s)
	}
	fate := w.fate
	w.mu.Unlock()
	out := []sent{s}
	if fate != nil && by != nil {
		out = fate(s)
	}
	for _, s := range out {
		w.hand(s)
	}
}

func (h *host) receive(from string, b []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.links[from]
	if l == nil {
		return
	}
	for len(b) > 0 {
		plain, rest, v := l.Open(&h.reader, addresses[from], b)
		h.verdicts[v]++
		if v == dtls.Delivered {
			h.frames = append(h.frames, string(plain))
		}
		b = rest
	}
}

// say sends a frame with the canary, as a tunnel does. It reports false when it
// mustn't leave.
func (h *host) say(to, text string) bool {
	h.w.t.Helper()
	h.mu.Lock()
	l := h.links[to]
	h.mu.Unlock()
	if l == nil || !l.Reserve(&h.writer, 1) {
		return false
	}
	b := make([]byte, len(canary)+len(text)+record.Overhead)
	copy(b[record.Headroom:], canary+text)
	if !h.writer.Seal(record.ApplicationData, b) {
		h.w.t.Fatal("a reserved record wasn't sealed")
	}
	h.w.carry(sent{h.name, to, b}, h)
	return true
}

// heard takes the frames that have arrived.
func (h *host) heard() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.frames
	h.frames = nil
	return f
}

func (h *host) status(peer string) dtls.Status {
	h.w.t.Helper()
	l := h.e.Link(peer)
	if l == nil {
		h.w.t.Fatalf("%s has no link to %s", h.name, peer)
	}
	return l.Status()
}

// leaks is how many datagrams hold the canary in clear.
func (w *wire) leaks() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.log {
		if bytes.Contains(s.b, []byte(canary)) {
			n++
		}
	}
	return n
}

// noLeaks fails the test if the canary was on the wire.
func (w *wire) noLeaks() {
	w.t.Helper()
	if n := w.leaks(); n != 0 {
		w.t.Errorf("%d datagrams hold the canary in clear", n)
	}
}

func (w *wire) close() {
	w.mu.Lock()
	hosts := w.hosts
	w.hosts = map[string]*host{}
	w.mu.Unlock()
	for _, h := range hosts {
		h.stop()
	}
}

// stop ends a host as a kill does: nothing of it reaches the wire.
func (h *host) stop() {
	h.w.mu.Lock()
	if h.w.hosts[h.name] == h {
		delete(h.w.hosts, h.name)
	}
	h.w.mu.Unlock()
	if err := h.e.Close(); err != nil {
		h.w.t.Error(err)
	}
}

func discard(netip.AddrPort, []byte) error { return nil }

// tryApply is apply that may be refused.
func (h *host) tryApply(c *dtls.Credentials, peers ...string) error {
	var list []dtls.Peer
	for _, p := range peers {
		list = append(list, dtls.Peer{Name: p, Address: addresses[p]})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.e.Apply(c, list); err != nil {
		return err
	}
	for _, p := range peers {
		h.links[p] = h.e.Link(p)
	}
	return nil
}

// setFate changes what becomes of datagrams.
func (w *wire) setFate(f func(sent) []sent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fate = f
}

// only lets those datagrams through that f is true of; nil lets all.
func (w *wire) only(f func(sent) bool) {
	if f == nil {
		w.setFate(nil)
		return
	}
	w.setFate(func(s sent) []sent {
		if f(s) {
			return []sent{s}
		}
		return nil
	})
}

// delay makes every datagram take d.
func (w *wire) delay(d time.Duration) {
	w.setFate(func(s sent) []sent {
		time.AfterFunc(d, func() { w.hand(s) })
		return nil
	})
}

// hand delivers a datagram past its fate.
func (w *wire) hand(s sent) {
	w.mu.Lock()
	to := w.hosts[s.to]
	queue, waits := w.waiting[s.to]
	if waits {
		w.waiting[s.to] = append(queue, s)
	}
	w.mu.Unlock()
	if to != nil && !waits {
		to.receive(s.from, slices.Clone(s.b))
	}
}

// finishedIn reports whether a datagram has a sealed handshake record.
func finishedIn(b []byte) bool {
	for len(b) > 0 {
		h, ok := record.Parse(b)
		if !ok {
			return false
		}
		if h.Epoch == 1 && h.Type == record.Handshake {
			return true
		}
		b = b[record.HeaderLen+h.Length:]
	}
	return false
}

// nonces fails the test if a nonce was used twice with a key. The wire doesn't
// tell which key sealed a record; but with one key and one nonce equal beginnings
// of plaintext are equal beginnings of ciphertext, and all frames begin with the
// canary. The library's records, Finished messages, must have other nonces than
// any of ours.
func (w *wire) nonces() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	type use struct {
		from  string
		nonce uint64
		body  string
	}
	seen := map[use]bool{}
	for _, s := range w.log {
		for b := s.b; len(b) > 0; {
			h, ok := record.Parse(b)
			if !ok {
				break
			}
			if n, ok := record.Number(h, b); ok {
				ours := n == 1<<48|h.Sequence
				if finished := h.Type == record.Handshake; finished == ours {
					w.t.Errorf("%s sealed a record of type %d, number %d, with nonce %x", s.from, h.Type, h.Sequence, n)
				}
				u := use{s.from, n, string(b[record.Headroom : record.Headroom+8])}
				if seen[u] {
					w.t.Errorf("%s used nonce %x twice with one key", s.from, n)
				}
				seen[u] = true
			}
			b = b[record.HeaderLen+h.Length:]
		}
	}
}
