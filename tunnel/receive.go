package tunnel

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/tapestry-net/tapestry/internal/offload"
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
	t       *Tunnel
	udp     *udpio.Receiver
	listen  netip.AddrPort
	opening *opening         // nil = what comes is in clear
	runs    []udpio.Datagram // read; runs[0] is under way
	next    int              // datagram of runs[0]

	// What the last frame of the batch is becoming, while joining.
	train   offload.Train
	joining bool
	header  [vxlan.HeaderLen]byte
	from    *carrier
	tos     uint8

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
		done := false
		if r.opening == nil {
			done = r.take(v, b, d)
		} else {
			done = r.takeSealed(v, b, d)
		}
		if done {
			r.runs, r.next = r.runs[1:], 0
		}
	}
	r.seal(b)
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
		r.seal(b) // what is being joined must stand last
		if vid, why := r.t.admit(v, c, b, d.Data, d.TOS, d.Size, false); why != frame.ReasonNone {
			r.refuse(c, d, d.Data, vid, why)
		}
		return true
	}
	for ; r.next < n; r.next++ {
		datagram := d.Segment(r.next)
		if r.join(c, d.TOS, datagram) {
			continue
		}
		r.seal(b)
		if len(b.Frames) == cap(b.Frames) {
			return false
		}
		r.place(v, c, b, d, datagram, r.next*d.Size)
	}
	return true
}

// place makes a frame of datagram, which begins at octet from of d, or refuses it.
// b has room for it.
//
// Hot path: no allocation.
func (r *receiver) place(v *view, c *carrier, b *frame.Batch, d *udpio.Datagram, datagram []byte, from int) {
	vid, why := frame.VID(0), frame.UnknownPeer
	if c != nil {
		vid, why = r.t.admit(v, c, b, datagram, d.TOS, 0, r.opening != nil)
	} else if n := v.exposed(datagram); n != nil {
		vid, why = n.VID, frame.PlaintextRefused
	}
	if why != frame.ReasonNone {
		r.refuse(c, d, datagram, vid, why)
	} else if !v.noCoalesce {
		r.begin(c, d.TOS, b, datagram, d.Data[:cap(d.Data)][from+vxlan.HeaderLen:])
	}
}

// begin makes the frame that datagram has just become, which lies at the start of
// memory, the first of a train. A flood is left as it is: each of its frames counts.
//
// Hot path: no allocation.
func (r *receiver) begin(c *carrier, tos uint8, b *frame.Batch, datagram, memory []byte) {
	n := len(b.Frames)
	if n == 0 {
		return
	}
	f := &b.Frames[n-1]
	if len(f.Data) == 0 || &f.Data[0] != &memory[0] || f.GSO != (frame.GSO{}) || f.Data[0]&1 != 0 {
		return
	}
	if r.train.Start(memory[:len(f.Data)]) {
		r.joining, r.from, r.tos = true, c, tos
		copy(r.header[:], datagram)
	}
}

// join adds a datagram to the train if it is the next of the same flow, in the
// same network: it is then admitted as the first one was.
//
// Hot path: no allocation.
func (r *receiver) join(c *carrier, tos uint8, datagram []byte) bool {
	if !r.joining || c != r.from || tos != r.tos || len(datagram) < vxlan.HeaderLen ||
		[vxlan.HeaderLen]byte(datagram) != r.header || !r.train.Append(datagram[vxlan.HeaderLen:]) {
		return false
	}
	c.frames.add(1)
	return true
}

// seal gives the last frame of b what joined it.
//
// Hot path: no allocation.
func (r *receiver) seal(b *frame.Batch) {
	if !r.joining {
		return
	}
	r.joining = false
	if data, g, ok := r.train.Frame(); ok {
		f := &b.Frames[len(b.Frames)-1]
		f.Data, f.GSO = data, g
	}
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

// admit makes a datagram of peer c, sealed when it came by the link, a frame, or says why not, and of which network
// it would be when that is known. Size is that of the inner segments of a
// super-frame, 0 otherwise.
//
// Hot path: no allocation.
func (t *Tunnel) admit(v *view, c *carrier, b *frame.Batch, datagram []byte, tos uint8, size int, sealed bool) (vid frame.VID, why frame.Reason) {
	a, why := t.arrive(v, c, datagram, tos, sealed)
	if why == frame.UnknownVNI && a.vni == 0 {
		if m, ok := parseMessage(datagram); ok {
			if !sealed && (c.only || m.kind >= kindAsk && c.link != nil) {
				return 0, frame.PlaintextRefused
			}
			if m.kind >= kindAsk {
				t.hearTalk(c.peer, m, datagram, sealed)
			} else {
				t.hear(heard{c.peer, m, len(datagram), sealed})
			}
			return 0, frame.ReasonNone
		}
	}
	if a.net != nil {
		vid = a.net.VID
	}
	if why == frame.ReasonNone {
		c.frames.add(1)
		b.Frames = append(b.Frames, a.made(c, size))
	}
	return vid, why
}

// hear passes a message on to the goroutine that tends the peers. When it has
// too many already the message is lost, as it may be on the way.
func (t *Tunnel) hear(h heard) {
	select {
	case t.messages <- h:
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
