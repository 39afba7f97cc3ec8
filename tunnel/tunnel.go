package tunnel

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/udpio"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/inject"
	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// Group is the split-horizon group that all peer ports belong to.
const Group = 255

// Options are fixed for the life of a tunnel.
type Options struct {
	// Socket is what udpio.OpenReceiver returned, and becomes the tunnel's.
	Socket int
	// Open opens a sending socket as udpio.OpenSender does. It may block: it is
	// called by Apply and by a goroutine of the tunnel.
	Open func(udpio.SenderOptions) (fd int, err error)
	// NoChecksum sends IPv4 datagrams without the outer UDP checksum.
	NoChecksum bool
	// Encryption is for encrypted links; nil for none: then nothing of an
	// encrypted network leaves.
	Encryption *Encryption
	// UnderlayMTU is that of peers that have none of their own; 0 = 1500.
	UnderlayMTU int
	// Interval is how often a peer in use is asked whether it is there, and a
	// third of the time after which a silent one is down; 0 = 1 s. A round trip
	// that takes longer is taken for loss.
	Interval time.Duration
	// Events is told what happened to peers, by a goroutine of the tunnel. It
	// must not call Apply or Close. nil for none.
	Events func(Event)
	// Observers are shown what the tunnel refuses; nil for none ever.
	Observers *Observers
	// Asked is told what peers ask, by a goroutine of the tunnel, and must not
	// block; see Question. nil leaves all unanswered.
	Asked func(Question)
	// Ticks is the clock: each value is the time now. nil for five ticks an
	// Interval.
	Ticks <-chan time.Time
}

// Spec is the networks and peers as they shall be.
type Spec struct {
	Networks []Network
	Peers    []PeerSpec
	// Credentials are those of encrypted links; nil for none: then there is no
	// link.
	Credentials *dtls.Credentials
	// RekeyRecords and RekeyAfter are when links get new keys; see dtls.Options.
	RekeyRecords uint64
	RekeyAfter   time.Duration
	// Reserved is what becomes of headers with reserved bits.
	Reserved vxlan.Mode
	// NoCoalesce keeps received frames as they came, one for each datagram.
	NoCoalesce bool
}

// Network is a network that spans hosts.
type Network struct {
	VID frame.VID
	VNI vxlan.VNI
	MTU int // octets of L3 packet; 0 = what the path takes
	// Encrypt closes the network to everything but encrypted links.
	Encrypt bool
	// Closed keeps everything in and out, as if there were no such network; but
	// links that it needs are made, or stay.
	Closed bool
	// Addresses are this host's own in the network: ICMP errors come from the
	// last one of each family.
	Addresses []netip.Addr
}

// PeerSpec is one remote VTEP.
type PeerSpec struct {
	ID      frame.PortID
	Name    string
	Address netip.AddrPort
	VIDs    []frame.VID // the networks that it may carry
	// DTLS is the address of its end of the encrypted link, which it has when one
	// of its networks is encrypted.
	DTLS netip.AddrPort
	// UnderlayMTU is the packet size in octets that the underlay is taken to
	// carry on the way there until probes have shown another; 0 = that of the
	// Options. A peer that answers no probe is never sent more.
	UnderlayMTU int
}

// State is whether a peer is there.
type State uint8

// States.
const (
	Connecting State = iota // nothing heard yet; it is sent to all the same
	Up
	Down // it answered, and stopped: nothing is sent
)

// String returns the contract's word.
func (s State) String() string { return [...]string{"connecting", "up", "down"}[min(s, Down)] }

// Event is a change of a peer's State, Passive or MTU, which the fields tell.
type Event struct {
	Time time.Time
	Status
}

// Status is one peer as it is.
type Status struct {
	ID      frame.PortID
	Name    string
	Address netip.AddrPort
	State   State
	Passive bool      // up, and answers no probe, as the kernel's VTEP
	Since   time.Time // of State
	MTU     int       // longest inner packet in octets, in clear if any leaves so
	// Link is the encrypted link, nil when no network of the peer's needs one, and
	// SealedMTU the longest inner packet that it carries.
	Link      *dtls.Status
	SealedMTU int
	// Drops counts what the peer sent and the tunnel refused.
	Drops Drops
}

// heard is a message with its sender and size.
type heard struct {
	peer *Peer
	message
	size   int
	sealed bool
}

const (
	maxSenders    = 16 // kept for further use
	maxMessages   = 1024
	maxComplaints = 32
	ticksInterval = 5
)

// Tunnel is one receiving socket and the peers that it hears.
type Tunnel struct {
	o       Options
	listen  netip.AddrPort
	seed    maphash.Seed
	rx      *receiver
	inject  *inject.Source
	pools   [2]*udpio.Pool // IPv4, IPv6
	view    atomic.Pointer[view]
	senders [maxSenders]atomic.Pointer[outlet]
	secure  *secure // nil = no encrypted links

	strangers  counts // refused, of no peer
	messages   chan heard
	talks      talks
	ticked     atomic.Uint32 // how many ticks there were
	shares     [shares]share
	complaints [maxComplaints]complaint
	spare      chan int // complaints that are free
	complained chan int // and those to be answered

	quit    chan struct{}
	workers sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	now     time.Time // of the last tick
	own     *outlet
	out     []probe // gathered in own, by tag
	left    []probe // those that left last: memory for the next ones
	pending []Event
	retired Drops // of peers that are gone
}

// New takes over a receiving socket. Without a Spec it refuses everything.
func New(o Options) (*Tunnel, error) {
	if o.Open == nil {
		return nil, errors.New("new tunnel: Options.Open is nil")
	}
	if o.Observers == nil {
		o.Observers = &Observers{}
	}
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	if o.UnderlayMTU <= 0 {
		o.UnderlayMTU = 1500
	}
	t := &Tunnel{
		o: o, seed: maphash.MakeSeed(),
		pools:    [2]*udpio.Pool{udpio.NewPool(), udpio.NewPool()},
		messages: make(chan heard, maxMessages), quit: make(chan struct{}),
		spare: make(chan int, maxComplaints), complained: make(chan int, maxComplaints),
		own: newOutlet(),
	}
	t.talks.init()
	for i := range maxComplaints {
		t.spare <- i
	}
	v, err := compile(Spec{})
	if err != nil {
		return nil, fmt.Errorf("new tunnel: %w", err)
	}
	t.view.Store(v)
	if t.inject, err = inject.New(); err != nil {
		return nil, fmt.Errorf("new tunnel: %w", err)
	}
	if t.rx, err = newReceiver(t, o.Socket); err != nil {
		_ = t.inject.Close()
		return nil, fmt.Errorf("new tunnel: %w", err)
	}
	t.listen = t.rx.udp.Addr()
	t.rx.listen = t.listen
	if o.Encryption != nil {
		if t.secure, err = t.secureWith(o.Encryption); err != nil {
			_ = t.inject.Close()
			return nil, fmt.Errorf("new tunnel: encrypted links: %w", err)
		}
	}
	t.senders[0].Store(newOutlet())
	t.workers.Go(t.open)
	t.workers.Go(t.tend)
	t.workers.Go(t.converse)
	return t, nil
}

// Receivers hear all peers. The switch polls them as long as the tunnel is open.
func (t *Tunnel) Receivers() []Receiver {
	if t.secure != nil {
		return []Receiver{t.rx, t.inject, t.secure.rx}
	}
	return []Receiver{t.rx, t.inject}
}

// Listen is where the tunnel's socket is bound.
func (t *Tunnel) Listen() netip.AddrPort { return t.listen }

// Apply makes the tunnel be as s says, all or nothing. A peer of the former spec
// with the same ID and name goes on, at another address if need be. Peers that
// are gone refuse nothing: the switch forgets their ports first or right after.
func (t *Tunnel) Apply(s Spec) error {
	v, err := compile(s)
	if err != nil {
		return fmt.Errorf("apply tunnel: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("apply tunnel: %w", errClosed)
	}
	for _, c := range v.list {
		if err := t.reach(c.addr); err != nil {
			return fmt.Errorf("apply tunnel: peer %q: %w", c.peer.name, err)
		}
	}
	if err := t.linkAll(v, &s); err != nil {
		return fmt.Errorf("apply tunnel: %w", err)
	}
	old := make(map[frame.PortID]*carrier)
	for _, c := range t.view.Load().list {
		old[c.peer.id] = c
	}
	for i, c := range v.list {
		if was := old[c.peer.id]; was != nil && was.peer.name == c.peer.name {
			c.peer = was.peer
			if was.addr == c.addr {
				c.frames = was.frames
			}
			delete(old, c.peer.id)
		}
		v.ports[c.peer.id] = c.peer
		t.join(c, &s.Peers[i])
	}
	t.view.Store(v)
	for _, c := range old {
		for i, n := range c.peer.drops.load() {
			t.retired[i] += n
		}
	}
	return nil
}

// newPeer makes a peer that no tunnel has joined.
func newPeer(s PeerSpec) *Peer { return &Peer{id: s.ID, name: s.Name} }

// join makes c's peer one of t's, as s says.
func (t *Tunnel) join(c *carrier, s *PeerSpec) {
	p := c.peer
	p.only.Store(c.only)
	if p.link.Store(c.link); c.link != nil {
		p.aim(c.link.Status().Address)
	}
	mtu := cmp.Or(s.UnderlayMTU, t.o.UnderlayMTU)
	d := udpio.NewDest(s.Address)
	if was := p.dest.Load(); was != nil && was.Addr() == d.Addr() {
		t.resize(p, mtu)
		return
	}
	if p.t == nil {
		p.t = t
	}
	p.dest.Store(d)
	p.down.Store(false)
	p.tended = tended{since: t.now, underlay: mtu}
	p.inner.Store(int32(p.outer().InnerMTU(mtu)))
}

// outer is what the underlay adds to frames that leave in clear.
func (p *Peer) outer() vxlan.Link { return vxlan.Link{IPv6: p.dest.Load().IPv6()} }

// reach makes sure that there is a socket to reach a by, and that its answers
// can be heard.
func (t *Tunnel) reach(a netip.Addr) error {
	listen := t.listen.Addr()
	if a.Is6() && listen.Is4() || a.Is4() && listen.Is6() && !listen.IsUnspecified() {
		return fmt.Errorf("address %v: the tunnel listens on %v, which is of the other family", a, t.listen)
	}
	p := t.pools[0]
	if a.Is6() {
		p = t.pools[1]
	}
	if s, _ := p.Peek(0); s != nil {
		return nil
	}
	return t.openSlot(p, 0)
}

// openSlot fills one slot of a pool. A slot that can't have a socket of its own
// shares another's.
func (t *Tunnel) openSlot(p *udpio.Pool, slot int) error {
	local := t.listen.Addr()
	switch v6 := p == t.pools[1]; {
	case v6 && !local.Is6():
		local = netip.IPv6Unspecified()
	case !v6 && !local.Is4():
		local = netip.IPv4Unspecified()
	}
	fd, err := t.o.Open(udpio.SenderOptions{Local: local, Slot: slot, NoChecksum: t.o.NoChecksum && local.Is4()})
	if err != nil {
		if other, _ := p.Peek(0); other != nil {
			p.Put(slot, other)
		}
		return err
	}
	s, err := udpio.NewSocket(fd)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	p.Put(slot, s)
	return nil
}

// open fills the slots that flows ask for.
func (t *Tunnel) open() {
	for {
		var p *udpio.Pool
		select {
		case <-t.quit:
			return
		case <-t.pools[0].Wanted():
			p = t.pools[0]
		case <-t.pools[1].Wanted():
			p = t.pools[1]
		}
		for _, slot := range p.TakeWanted() {
			_ = t.openSlot(p, slot) // the flow goes on by another slot's socket
		}
	}
}

// Peer returns the queue of a peer of the present spec, nil when there is none.
func (t *Tunnel) Peer(id frame.PortID) *Peer {
	return t.view.Load().port(id)
}

// Status returns all peers in the spec's order.
func (t *Tunnel) Status() []Status {
	return slices.AppendSeq(make([]Status, 0, len(t.view.Load().list)), t.All())
}

// All is Status one after the other, without memory for them all. Each is as it
// is when its turn comes; the loop's body may call any method.
func (t *Tunnel) All() iter.Seq[Status] {
	return func(yield func(Status) bool) {
		for _, c := range t.view.Load().list {
			t.mu.Lock()
			s := c.peer.status()
			t.mu.Unlock()
			if !yield(s) {
				return
			}
		}
	}
}

// status is p as it is. Tunnel.mu is held.
func (p *Peer) status() Status {
	l := &p.tended
	s := Status{
		ID: p.id, Name: p.name, Address: p.dest.Load().Addr(), State: l.state, Passive: l.state == Up && !l.answering,
		Since: l.since, MTU: int(p.inner.Load()), Drops: p.drops.load(),
	}
	if link := p.link.Load(); link != nil {
		s.Link, s.SealedMTU = new(link.Status()), sealedMTU(s.MTU)
		if p.only.Load() {
			s.MTU = s.SealedMTU
		}
	}
	return s
}

// Refused is what the tunnel received and never made a frame of, from anybody:
// peers, those that are gone, and strangers.
func (t *Tunnel) Refused() Drops {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.strangers.load()
	for i, n := range t.retired {
		d[i] += n
	}
	for _, c := range t.view.Load().list {
		for i, n := range c.peer.drops.load() {
			d[i] += n
		}
	}
	return d
}

// Strangers is what of it came from addresses that are no peer's.
func (t *Tunnel) Strangers() Drops { return t.strangers.load() }

// Overflow is what became of datagrams that found no room.
type Overflow struct {
	// Missed is how many datagrams the kernel has dropped since the receiving
	// socket was opened, because its buffer was full or their checksum wrong; a
	// run that it has put together counts once. They never reached the tunnel:
	// nothing else counts them.
	Missed uint64
	Buffer int // octets that the socket has room for
	Wanted int // octets that it was to have; the system may allow less
}

// Overflow tells the losses of the receiving sockets. It makes one system call
// for each.
func (t *Tunnel) Overflow() Overflow {
	m, err := t.rx.udp.Memory()
	if err != nil {
		return Overflow{} // a socket that is closed
	}
	o := Overflow{Missed: uint64(m.Dropped), Buffer: m.Buffer, Wanted: udpio.ReceiveBuffer}
	if t.secure != nil {
		if m, err := t.secure.rx.udp.Memory(); err == nil {
			o.Missed += uint64(m.Dropped)
		}
	}
	return o
}

// Close ends the tunnel's goroutines and closes its sockets. It is idempotent.
// The switch must have let go of receivers and peers.
func (t *Tunnel) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	t.mu.Unlock()
	close(t.quit)
	t.workers.Wait()
	var err error
	if t.secure != nil {
		err = errors.Join(t.secure.endpoint.Close(), t.secure.rx.udp.Close())
	}
	return errors.Join(err, t.rx.udp.Close(), t.inject.Close(), t.pools[0].Close(), t.pools[1].Close())
}
