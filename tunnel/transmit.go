package tunnel

import (
	"errors"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/udpio"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

var (
	errRefused = errors.New("tunnel: frame refused")
	errClosed  = errors.New("tunnel: closed")
)

// Peer is a remote VTEP: a queue that only transmits, safe for several loops at
// once. What it sends back is heard by the tunnel's Receivers.
type Peer struct {
	t    *Tunnel
	id   frame.PortID
	name string

	dest     atomic.Pointer[udpio.Dest]
	link     atomic.Pointer[dtls.Link]  // nil = none is needed
	sealedTo atomic.Pointer[udpio.Dest] // of the link
	only     atomic.Bool                // it carries encrypted networks alone
	inner    atomic.Int32               // longest inner packet that the path takes
	down     atomic.Bool
	stuck    atomic.Bool // the kernel refused a datagram as too large
	used     atomic.Bool // it was sent frames since the last tick

	drops counts // of what it sent and the tunnel refused

	tended tended    // Tunnel.mu
	asks   allowance // of the goroutine that converses
}

// FD is -1: a peer has no descriptor of its own.
func (p *Peer) FD() int { return -1 }

// Receive does nothing: see Tunnel.Receivers.
func (p *Peer) Receive(*frame.Batch) error { return nil }

// Offloads is none: what is to leave is cut and complete.
func (p *Peer) Offloads() frame.Offloads { return 0 }

// Close does nothing: Apply and Tunnel.Close let go of peers.
func (p *Peer) Close() error { return nil }

// Transmit sends the frames of b to the peer, each as one datagram. The network
// is told by the tag that the frame would have on a wire: Push, or the one
// stored in it. A refused frame has its reason in Why.
//
// Hot path: no allocation.
func (p *Peer) Transmit(b *frame.Batch) (sent int, err error) {
	if !p.used.Load() {
		p.used.Store(true)
	}
	v := p.t.view.Load()
	s := p.t.borrow()
	for i := range b.Frames {
		f := &b.Frames[i]
		if why := p.encapsulate(v, s, f, i, len(b.Frames)-i, nil); why != frame.ReasonNone {
			f.Refused, f.Why, err = true, why, errRefused
			continue
		}
		sent++
	}
	for _, failed := range s.Flush() {
		f := &b.Frames[failed.Tag]
		f.Refused, f.Why, err = true, p.cause(failed.Errno), failed.Errno
		sent--
	}
	p.t.giveBack(s)
	return sent, err
}

// Fan is the tunnel.
func (p *Peer) Fan() frame.Fan { return p.t }

// TransmitTo sends frame i of b to the peer with port to[i]. A frame that goes to
// several peers one after the other is encapsulated once, and all leave with one
// system call.
//
// Hot path: no allocation.
func (t *Tunnel) TransmitTo(to []frame.PortID, b *frame.Batch) (sent int, err error) {
	v := t.view.Load()
	s := t.borrow()
	var e echo
	for i := range b.Frames {
		f, why := &b.Frames[i], frame.EgressDown
		if p := v.port(to[i]); p != nil {
			if !p.used.Load() {
				p.used.Store(true)
			}
			why = p.encapsulate(v, s, f, i, 1, &e)
		}
		if why != frame.ReasonNone {
			f.Refused, f.Why, err = true, why, errRefused
			continue
		}
		sent++
	}
	for _, failed := range s.Flush() {
		f := &b.Frames[failed.Tag]
		f.Refused, f.Why, err = true, v.port(to[failed.Tag]).cause(failed.Errno), failed.Errno
		sent--
	}
	t.giveBack(s)
	return sent, err
}

// echo is the frame that was gathered last.
type echo struct {
	f    *frame.Frame
	hash uint32
}

// of reports whether f is the same on the wire.
func (e *echo) of(f *frame.Frame) bool {
	g := e.f
	return g != nil && len(g.Data) == len(f.Data) && &g.Data[0] == &f.Data[0] && g.Push == f.Push && g.Pop == f.Pop &&
		len(g.Frags) == len(f.Frags) && (len(f.Frags) == 0 || &g.Frags[0] == &f.Frags[0])
}

// encapsulate gathers frame f with tag i, or says why not. No octet of f is
// changed or copied but the addresses, when a tag stands behind them. With e, what
// was encapsulated last is taken again where it is the same. n is how many frames
// to this peer are left, f included.
//
// Hot path: no allocation.
func (p *Peer) encapsulate(v *view, s *outlet, f *frame.Frame, i, n int, e *echo) frame.Reason {
	c, why := p.judge(v, f)
	if why == frame.MTUExceeded && f.Copies > 0 {
		p.t.tooBig(p, c.net, f, c.after, c.limit)
	}
	if why != frame.ReasonNone {
		return why
	}
	if c.net.Encrypt {
		if e != nil {
			*e = echo{} // each peer has its own keys
		}
		return p.sealFrame(s, f, &c, i, n)
	}
	d := p.dest.Load()
	if e != nil && e.of(f) {
		if sock := p.t.pool(d).Pick(e.hash); sock != nil && s.Repeat(sock, d, i) {
			return frame.ReasonNone
		}
	}
	hash, tos := flow(f.Data, f.Data[c.after:])
	sock := p.t.pool(d).Pick(hash)
	if sock == nil {
		return frame.EgressDown
	}
	if c.stored {
		h := s.Begin(sock, d, tos, vxlan.HeaderLen+12)
		vxlan.Put(h, c.net.VNI)
		copy(h[vxlan.HeaderLen:], f.Data[:12])
		s.Payload(f.Data[c.after:])
	} else {
		vxlan.Put(s.Begin(sock, d, tos, vxlan.HeaderLen), c.net.VNI)
		s.Payload(f.Data)
	}
	for _, part := range f.Frags {
		s.Payload(part)
	}
	s.End(i)
	if e != nil {
		*e = echo{f, hash}
	}
	return frame.ReasonNone
}

// cause is the reason for an error of sending.
func (p *Peer) cause(e syscall.Errno) frame.Reason {
	switch e {
	case unix.EMSGSIZE:
		p.stuck.Store(true)
		return frame.MTUExceeded
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		return frame.QueueFull
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN, unix.ENODEV, unix.EADDRNOTAVAIL, unix.EBADF:
		return frame.EgressDown
	}
	return frame.TransmitRefused
}

// pool holds the sending sockets for d's family.
func (t *Tunnel) pool(d *udpio.Dest) *udpio.Pool {
	if d.IPv6() {
		return t.pools[1]
	}
	return t.pools[0]
}

// borrow returns a Sender that nobody uses. There are as many as loops have ever
// transmitted at once; only a new one allocates.
//
// Hot path: no allocation.
func (t *Tunnel) borrow() *outlet {
	for i := range t.senders {
		if t.senders[i].Load() != nil {
			if s := t.senders[i].Swap(nil); s != nil {
				s.holder = nil
				return s
			}
		}
	}
	return newOutlet()
}

func (t *Tunnel) giveBack(s *outlet) {
	for i := range t.senders {
		if t.senders[i].CompareAndSwap(nil, s) {
			return
		}
	}
}
