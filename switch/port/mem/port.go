package mem

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tapestry-net/tapestry/switch/frame"
	"golang.org/x/sys/unix"
)

// DefaultDepth is how many frames wait in each direction when Options names no
// depth: the transmit queue length of an Ethernet device, rounded up.
const DefaultDepth = 1024

// Options is how a port is opened. The zero Options are good.
type Options struct {
	// Offloads is what Transmit accepts. A frame that needs more is refused
	// with EINVAL, as a kernel does.
	Offloads frame.Offloads
	// Depth bounds the frames that wait in each direction; 0 = DefaultDepth.
	Depth int
	// Discard counts transmitted frames and keeps none of them, for
	// measurements that end at the port. Pair ignores it.
	Discard bool
}

// Stats counts frames since the port was opened, and the octets of those that
// passed: Ethernet header included, FCS not, a GSO frame as one.
type Stats struct {
	Injected, InjectedOctets uint64 // came in from outside
	Overrun                  uint64 // refused on the way in: ring full or not a frame
	Received                 uint64 // taken by the switch
	Sent, SentOctets         uint64 // accepted from the switch
	Refused                  uint64 // not accepted from the switch
}

// Port is a port in memory. Make one by New or Pair.
type Port struct {
	offloads frame.Offloads
	in, out  *ring
	paired   bool // out is the other end's inbound ring

	// Guarded by out.mu.
	down        error // Transmit refuses all with it
	every, tick int   // Transmit refuses each frame that brings tick to every
	everyErr    error
	refused     uint64
}

// ErrPaired is returned by Next of a port that Pair made: its frames go to the
// other end.
var ErrPaired = errors.New("port is paired, its frames go to the other end")

// New opens a port whose far side is the caller. It fails when the process has
// no descriptor left, or for a negative depth. The caller closes it.
func New(o Options) (*Port, error) {
	depth, err := o.depth()
	if err != nil {
		return nil, err
	}
	in, err := newRing(depth, true)
	if err != nil {
		return nil, fmt.Errorf("open memory port: %w", err)
	}
	out, err := newRing(depth, false)
	if err != nil {
		return nil, err
	}
	out.discard = o.Discard
	return &Port{offloads: o.Offloads, in: in, out: out}, nil
}

// Pair opens the two ends of a cable: frames that one transmits wait for the
// other to receive them. Each end is closed by itself; while one is open and
// the other closed, Transmit refuses with ENETDOWN.
func Pair(o Options) (a, b *Port, err error) {
	depth, err := o.depth()
	if err != nil {
		return nil, nil, err
	}
	ra, err := newRing(depth, true)
	if err != nil {
		return nil, nil, fmt.Errorf("open memory port: %w", err)
	}
	rb, err := newRing(depth, true)
	if err != nil {
		ra.close()
		return nil, nil, fmt.Errorf("open memory port: %w", err)
	}
	a = &Port{offloads: o.Offloads, in: ra, out: rb, paired: true}
	b = &Port{offloads: o.Offloads, in: rb, out: ra, paired: true}
	return a, b, nil
}

func (o Options) depth() (int, error) {
	if o.Depth < 0 {
		return 0, fmt.Errorf("open memory port: depth %d: want 1 or more, or 0 for %d", o.Depth, DefaultDepth)
	}
	if o.Depth == 0 {
		return DefaultDepth, nil
	}
	return o.Depth, nil
}

// FD is an eventfd that polls readable while frames wait, or after Fail.
func (p *Port) FD() int { return p.in.fd }

// Offloads is what Options said.
func (p *Port) Offloads() frame.Offloads { return p.offloads }

// Receive appends the frames that wait to b until none is left or b is full,
// and returns the error of Fail when none is left.
//
// Hot path: one lock and at most one system call a batch.
func (p *Port) Receive(b *frame.Batch) error { return p.in.drain(b) }

// Transmit copies the frames of b outside, in order, and marks those that it
// refuses: ENOBUFS when the ring is full, EINVAL for a frame that is too short
// for what is asked or needs an offload the port has not, EMSGSIZE above
// frame.MaxLen, ENETDOWN when the other end is closed, and whatever Fail and
// RefuseEvery say. Frames behind a refused one are tried all the same.
//
// Hot path: one lock and at most one system call a batch.
func (p *Port) Transmit(b *frame.Batch) (sent int, err error) {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	for i := range b.Frames {
		f := &b.Frames[i]
		e := p.send(f)
		if e == nil {
			f.Refused = false
			sent++
			continue
		}
		f.Refused = true
		p.refused++
		if err == nil {
			err = e
		}
	}
	p.out.settle()
	return sent, err
}

func (p *Port) send(f *frame.Frame) error {
	if p.down != nil {
		return p.down
	}
	if p.every > 0 {
		if p.tick++; p.tick == p.every {
			p.tick = 0
			return p.everyErr
		}
	}
	if (f.GSO.NeedsCsum || f.GSO.Type != frame.GSONone) && !p.offloads.Has(needs(f)) {
		return unix.EINVAL
	}
	return p.out.add(f)
}

// needs is the set of offloads a receiver must have to take f as it is.
func needs(f *frame.Frame) frame.Offloads {
	var o frame.Offloads
	if f.GSO.NeedsCsum {
		o |= frame.OffloadChecksum
	}
	if f.GSO.ECN {
		o |= frame.OffloadECN
	}
	switch f.GSO.Type {
	case frame.GSOTCPv4:
		o |= frame.OffloadTSO4
	case frame.GSOTCPv6:
		o |= frame.OffloadTSO6
	case frame.GSOUDP:
		if isIPv6(f.Data) {
			o |= frame.OffloadUSO6
		} else {
			o |= frame.OffloadUSO4
		}
	}
	return o
}

// isIPv6 reports the EtherType behind all tags of b. It reads nothing behind
// the end of b.
func isIPv6(b []byte) bool {
	for at := tagAt; at+2 <= len(b); at += frame.TagLen {
		switch frame.EtherType(uint16(b[at])<<8 | uint16(b[at+1])) {
		case frame.EtherTypeCTag, frame.EtherTypeSTag:
			continue
		case frame.EtherTypeIPv6:
			return true
		}
		return false
	}
	return false
}

// Close releases the port. It is idempotent. Next returns what was transmitted
// before, then os.ErrClosed.
func (p *Port) Close() error {
	if !p.paired {
		p.out.close()
	}
	if err := p.in.close(); err != nil {
		return fmt.Errorf("close memory port: %w", err)
	}
	return nil
}

// Inject makes the switch hear plain frames, each from its destination address
// on, with complete checksums. It returns how many found room; the others are
// counted as overrun.
func (p *Port) Inject(frames ...[]byte) int {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	n := 0
	for _, data := range frames {
		f := frame.Frame{Data: data}
		if p.in.add(&f) == nil {
			n++
		}
	}
	p.in.settle()
	return n
}

// InjectFrames is Inject for frames with offload metadata. Frags, Pop and Push
// are carried out.
func (p *Port) InjectFrames(frames ...frame.Frame) int {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	n := 0
	for i := range frames {
		if p.in.add(&frames[i]) == nil {
			n++
		}
	}
	p.in.settle()
	return n
}

// Replay makes the switch hear frames over and over, count in all, at the pace
// at which it receives them and behind those that were injected: a generator
// that costs one copy a frame. It replaces a replay that is under way. A count
// of 0 ends it. Frames that Inject would refuse are an error, and so is none.
func (p *Port) Replay(frames []frame.Frame, count uint64) error {
	loop := make([]slot, len(frames))
	for i := range frames {
		if err := check(&frames[i]); err != nil {
			return fmt.Errorf("replay frame %d of %d octets: %w", i, frames[i].Len(), err)
		}
		loop[i].fill(&frames[i])
	}
	if len(frames) == 0 && count > 0 {
		return fmt.Errorf("replay %d frames: none given", count)
	}
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.in.loop, p.in.loopAt, p.in.loopLeft = loop, 0, count
	p.in.settle()
	return nil
}

// Next waits for the next frame that the switch transmitted and returns it with
// bytes of its own. It returns ctx's error, or os.ErrClosed after Close.
func (p *Port) Next(ctx context.Context) (frame.Frame, error) {
	if p.paired {
		return frame.Frame{}, ErrPaired
	}
	for {
		if f, ok, closed := p.out.copyNext(); ok {
			return f, nil
		} else if closed {
			return frame.Frame{}, os.ErrClosed
		}
		select {
		case <-p.out.ready:
		case <-ctx.Done():
			return frame.Frame{}, ctx.Err()
		}
	}
}

// copyNext removes the oldest frame and copies it.
func (r *ring) copyNext() (f frame.Frame, ok, closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.next()
	r.settle()
	if s == nil {
		return f, false, r.closed
	}
	return frame.Frame{Data: append([]byte(nil), s.data...), GSO: s.gso}, true, r.closed
}

// Drain returns the frames that the switch transmitted and nobody took yet,
// oldest first, with bytes of their own. It does not wait.
func (p *Port) Drain() []frame.Frame {
	var all []frame.Frame
	for !p.paired {
		f, ok, _ := p.out.copyNext()
		if !ok {
			break
		}
		all = append(all, f)
	}
	return all
}

// Fail makes the device go away: Receive returns err once the waiting frames
// are taken, Transmit refuses everything with err. A nil err brings it back.
func (p *Port) Fail(err error) {
	p.in.mu.Lock()
	p.in.gone = err
	p.in.settle()
	p.in.mu.Unlock()

	p.out.mu.Lock()
	p.down = err
	p.out.mu.Unlock()
}

// RefuseEvery makes Transmit refuse each nth frame with err, counted over
// batches from now; 1 refuses all, 0 none.
func (p *Port) RefuseEvery(n int, err error) {
	p.out.mu.Lock()
	p.every, p.tick, p.everyErr = n, 0, err
	p.out.mu.Unlock()
}

// Stats returns the counters. Each direction is consistent in itself.
func (p *Port) Stats() Stats {
	var s Stats
	p.in.mu.Lock()
	s.Injected, s.InjectedOctets = p.in.put, p.in.octets
	s.Overrun, s.Received = p.in.refused, p.in.taken
	p.in.mu.Unlock()

	p.out.mu.Lock()
	s.Sent, s.SentOctets = p.out.put, p.out.octets
	s.Refused = p.refused
	p.out.mu.Unlock()
	return s
}
