package tunnel

import (
	"fmt"
	"sync/atomic"

	"github.com/tapestry-net/tapestry/internal/udpio"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// defaultMTU is what a network without an MTU is taken to have.
const defaultMTU = 1450

// Receiver hears the frames of all peers, each marked with its peer's port and
// its network. It is what the switch calls a Receiver; one loop uses it.
type Receiver interface {
	FD() int
	Receive(*frame.Batch) error
	Waiting() bool
}

// count is a counter with one writer at a time.
type count struct{ n atomic.Uint64 }

func (c *count) add(n int) { c.n.Store(c.n.Load() + uint64(n)) }

// counts are drops by reason.
type counts [frame.NumReasons]count

// Drops is how many datagrams or frames were dropped, by reason.
type Drops = [frame.NumReasons]uint64

func (c *counts) load() (d Drops) {
	for i := range c {
		d[i] = c[i].n.Load()
	}
	return d
}

// receiver reads the socket. It belongs to the loop that polls it.
type receiver struct {
	t    *Tunnel
	udp  *udpio.Receiver
	runs []udpio.Datagram // read; runs[0] is under way
	next int              // datagram of runs[0]

	shown []byte // of observers: one datagram with its outer headers
}

func (r *receiver) FD() int       { return r.udp.FD() }
func (r *receiver) Waiting() bool { return len(r.runs) > 0 }

// Receive makes frames of what waits. The frames share the memory of the runs
// they came in, so the socket is read only when all earlier ones are used up. A
// run that doesn't fit whole begins the next batch: what its sender cut from one
// super-frame stays together.
//
// Hot path: no allocation.
func (r *receiver) Receive(b *frame.Batch) error {
	if len(r.runs) == 0 {
		// An error is about no datagram, and one of the socket itself comes again.
		r.runs, _ = r.udp.Receive()
		r.next = 0
	}
	v := r.t.view.Load()
	for len(r.runs) > 0 {
		d := &r.runs[0]
		room := cap(b.Frames) - len(b.Frames)
		if room == 0 || r.next == 0 && len(b.Frames) > 0 && d.Segments() > room {
			break
		}
		if r.take(v, b, d) {
			r.runs, r.next = r.runs[1:], 0
		}
	}
	return nil
}

// take makes frames of d from datagram r.next on, and reports whether it came
// to the end. The sender, and with it the peer, is the same for all of d.
//
// Hot path: no allocation.
func (r *receiver) take(v *view, b *frame.Batch, d *udpio.Datagram) bool {
	n := d.Segments()
	c := v.carrier(d.From.Addr())
	if n > 1 && c != nil && whole(d.Data) {
		if vid, why := r.t.admit(v, c, b, d.Data, d.TOS, d.Size); why != frame.ReasonNone {
			r.refuse(c, d, d.Data, vid, why)
		}
		return true
	}
	for ; r.next < n; r.next++ {
		if len(b.Frames) == cap(b.Frames) {
			return false
		}
		vid, why := frame.VID(0), frame.UnknownPeer
		if c != nil {
			vid, why = r.t.admit(v, c, b, d.Segment(r.next), d.TOS, 0)
		}
		if why != frame.ReasonNone {
			r.refuse(c, d, d.Segment(r.next), vid, why)
		}
	}
	return true
}

// whole reports whether b, which the kernel says is a run of datagrams, is one:
// an inner UDP super-frame that a virtual underlay carried uncut. The kernel
// then tells the size of the inner segments, which are no datagrams of ours.
//
// Hot path: no allocation.
func whole(b []byte) bool {
	if len(b) < vxlan.HeaderLen+frame.HeaderLen+ipv4Len {
		return false
	}
	var s segmentOf
	claims, ok := s.locate(b[vxlan.HeaderLen:])
	return ok && s.proto == protoUDP && claims == len(b)-vxlan.HeaderLen
}

// admit makes datagram b of peer c a frame, or says why not, and of which network
// it would be when that is known. Size is that of the inner segments of a
// super-frame, 0 otherwise.
//
// Hot path: no allocation.
func (t *Tunnel) admit(v *view, c *carrier, b *frame.Batch, datagram []byte, tos uint8, size int) (vid frame.VID, why frame.Reason) {
	a, why := t.arrive(v, c, datagram, tos)
	if why == frame.UnknownVNI && a.vni == 0 {
		if m, ok := parseMessage(datagram); ok {
			t.hear(c.peer, m, len(datagram))
			return 0, frame.ReasonNone
		}
	}
	if a.net != nil {
		vid = a.net.VID
	}
	if why == frame.ReasonNone {
		c.peer.frames.add(1)
		b.Frames = append(b.Frames, a.made(c, size))
	}
	return vid, why
}

// hear passes a message on to the goroutine that tends the peers. When it has
// too many already the message is lost, as it may be on the way.
func (t *Tunnel) hear(p *Peer, m message, size int) {
	select {
	case t.messages <- heard{p, m, size}:
	default:
	}
}

func newReceiver(t *Tunnel, fd int) (*receiver, error) {
	udp, err := udpio.NewReceiver(fd)
	if err != nil {
		return nil, fmt.Errorf("take over socket %d: %w", fd, err)
	}
	return &receiver{t: t, udp: udp}, nil
}
