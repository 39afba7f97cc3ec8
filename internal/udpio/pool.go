package udpio

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a sending socket.
type Socket struct {
	fd     int
	local  netip.AddrPort
	plain  bool // UDP_SEGMENT can't be used: no checksum, or an old kernel
	closed atomic.Bool
}

// NewSocket takes over a socket that OpenSender made.
func NewSocket(fd int) (*Socket, error) {
	noCheck, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK)
	if err != nil {
		return nil, fmt.Errorf("take over sending socket: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("take over sending socket: %w", err)
	}
	_, err = unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
	return &Socket{fd: fd, local: localAddr(fd), plain: noCheck != 0 || err != nil}, nil
}

// Addr is the source address, unspecified when the route chooses it, and port.
func (s *Socket) Addr() netip.AddrPort { return s.local }

// FD is the descriptor, for who keeps it; it is not to be polled.
func (s *Socket) FD() int { return s.fd }

// Close closes the socket. It is idempotent. Nobody may be sending any more.
func (s *Socket) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	if err := unix.Close(s.fd); err != nil {
		return fmt.Errorf("close sending socket: %w", err)
	}
	return nil
}

// Pool holds the sending sockets of one address family by slot.
type Pool struct {
	slots  [Slots]atomic.Pointer[Socket]
	spare  atomic.Pointer[Socket] // serves empty slots
	wanted [Slots / 64]atomic.Uint64
	wake   chan struct{}
}

// NewPool returns an empty pool.
func NewPool() *Pool { return &Pool{wake: make(chan struct{}, 1)} }

// Pick returns the socket for a flow's hash. While that slot is empty it marks
// it as wanted and returns another slot's socket; nil when the pool is empty.
// The flow's source port changes once, when its slot is filled.
//
// Hot path: no allocation, and no lock but on the first sight of an empty slot.
func (p *Pool) Pick(hash uint32) *Socket {
	slot := slotOf(hash)
	if s := p.slots[slot].Load(); s != nil {
		return s
	}
	w, bit := &p.wanted[slot/64], uint64(1)<<(slot%64)
	if w.Load()&bit == 0 && w.Or(bit)&bit == 0 {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	return p.spare.Load()
}

// Peek returns what Pick would and whether it is the flow's own slot's. It marks
// nothing as wanted.
func (p *Pool) Peek(hash uint32) (s *Socket, own bool) {
	if s := p.slots[slotOf(hash)].Load(); s != nil {
		return s, true
	}
	return p.spare.Load(), false
}

// slotOf is the slot of a flow. The multiplication spreads hashes that differ in
// few bits.
func slotOf(hash uint32) uint32 { return hash * 0x9e3779b1 >> 24 }

// Wanted receives when TakeWanted has something new.
func (p *Pool) Wanted() <-chan struct{} { return p.wake }

// TakeWanted returns the slots that flows have asked for and that are empty,
// and forgets them: the next such flow asks again. Who can't open a socket for
// one puts another slot's socket there.
func (p *Pool) TakeWanted() []int {
	var slots []int
	for i := range p.wanted {
		w := p.wanted[i].Swap(0)
		for b := range 64 {
			if slot := i*64 + b; w&(1<<b) != 0 && p.slots[slot].Load() == nil {
				slots = append(slots, slot)
			}
		}
	}
	return slots
}

// Put fills a slot. The pool closes s; a socket that was there before is the
// caller's to close when nobody sends from it any more. One socket may fill
// several slots.
func (p *Pool) Put(slot int, s *Socket) (before *Socket) {
	before = p.slots[slot].Swap(s)
	if p.spare.Load() == before {
		p.spare.Store(s)
	}
	return before
}

// Close closes all sockets. Nobody may be sending any more.
func (p *Pool) Close() error {
	p.spare.Store(nil)
	var errs []error
	for i := range p.slots {
		if s := p.slots[i].Swap(nil); s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// Dest is where datagrams go: a socket address prepared once a peer, and what
// was found out about the way there.
type Dest struct {
	to      netip.AddrPort
	raw     sockaddr
	rawLen  uint32
	refused atomic.Bool // UDP_SEGMENT, by what stands on the way
}

// NewDest prepares an address, IPv4 or IPv6 without zone.
func NewDest(to netip.AddrPort) *Dest {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	d := &Dest{to: to}
	d.rawLen = setAddrPort(&d.raw, to)
	return d
}

// Addr is the address.
func (d *Dest) Addr() netip.AddrPort { return d.to }

// IPv6 reports which family's Pool reaches d.
func (d *Dest) IPv6() bool { return d.to.Addr().Is6() }

// GSO reports whether UDP_SEGMENT has not failed on the way to d.
func (d *Dest) GSO() bool { return !d.refused.Load() }

// Reprobe forgets that UDP_SEGMENT failed, as is right when the egress may have
// changed: the next run tries it again, and costs nothing but time if it fails.
func (d *Dest) Reprobe() { d.refused.Store(false) }

func (d *Dest) name() *byte { return (*byte)(unsafe.Pointer(&d.raw)) }
