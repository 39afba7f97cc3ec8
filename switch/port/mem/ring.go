package mem

import (
	"encoding/binary"
	"os"
	"sync"

	"github.com/tapestry-net/tapestry/switch/frame"
	"golang.org/x/sys/unix"
)

// slot is one waiting frame. Its memory serves one frame after the other.
type slot struct {
	data []byte
	gso  frame.GSO
}

// fill makes s the frame that f is on the wire: Pop and Push carried out, Frags
// joined on, offsets moved to match.
func (s *slot) fill(f *frame.Frame) {
	d := append(s.data[:0], f.Data[:tagAt]...)
	rest := f.Data[tagAt:]
	if f.Push.Present() {
		d = binary.BigEndian.AppendUint16(d, uint16(f.Push.TPID))
		d = binary.BigEndian.AppendUint16(d, f.Push.TCI)
	}
	if f.Pop {
		rest = rest[frame.TagLen:]
	}
	d = append(d, rest...)
	for _, p := range f.Frags {
		d = append(d, p...)
	}
	s.data = d
	s.gso = f.GSO
	if f.GSO.Type != frame.GSONone {
		s.gso.HdrLen = uint16(int(f.GSO.HdrLen) + f.Shift())
	}
	if f.GSO.NeedsCsum {
		s.gso.CsumStart = uint16(int(f.GSO.CsumStart) + f.Shift())
	}
}

// tagAt is where the outer tag stands, behind both addresses.
const tagAt = 12

// check reports why f can't be put on the wire at all, as a kernel would.
func check(f *frame.Frame) error {
	least := frame.HeaderLen
	if f.Pop {
		least += frame.TagLen
	}
	switch {
	case len(f.Data) < least:
		return unix.EINVAL
	case f.Len() > frame.MaxLen:
		return unix.EMSGSIZE
	}
	return nil
}

// ring is a bounded queue of frames in one direction. With an eventfd it can be
// polled, without one it wakes readers by a channel.
type ring struct {
	mu      sync.Mutex
	slots   []slot
	head, n int
	ready   chan struct{} // capacity 1: holds a token while frames may wait
	discard bool          // count frames and keep none
	closed  bool
	gone    error // no frame comes after those that wait

	fd     int // eventfd, or -1
	raised bool
	one    [8]byte // what is written to and read from fd

	loop     []slot // frames of Replay
	loopAt   int
	loopLeft uint64

	put, refused, taken, octets uint64
}

func newRing(depth int, pollable bool) (*ring, error) {
	r := &ring{slots: make([]slot, depth), ready: make(chan struct{}, 1), fd: -1}
	if !pollable {
		return r, nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	r.fd = fd
	return r, nil
}

// add appends f, or says why not. The caller holds mu and calls settle after
// the last frame.
func (r *ring) add(f *frame.Frame) error {
	err := check(f)
	switch {
	case err != nil:
	case r.closed:
		err = unix.ENETDOWN
	case r.discard:
		r.put++
		r.octets += uint64(f.Len())
		return nil
	case r.n == len(r.slots):
		err = unix.ENOBUFS
	}
	if err != nil {
		r.refused++
		return err
	}
	at := r.head + r.n
	if at >= len(r.slots) {
		at -= len(r.slots)
	}
	r.slots[at].fill(f)
	r.n++
	r.put++
	r.octets += uint64(len(r.slots[at].data))
	return nil
}

// next removes the oldest frame. It stays valid until mu is released.
func (r *ring) next() *slot {
	if r.n > 0 {
		s := &r.slots[r.head]
		if r.head++; r.head == len(r.slots) {
			r.head = 0
		}
		r.n--
		r.taken++
		return s
	}
	if r.loopLeft > 0 {
		s := &r.loop[r.loopAt]
		if r.loopAt++; r.loopAt == len(r.loop) {
			r.loopAt = 0
		}
		r.loopLeft--
		r.put++
		r.octets += uint64(len(s.data))
		r.taken++
		return s
	}
	return nil
}

// waiting reports whether next would find a frame.
func (r *ring) waiting() bool { return r.n > 0 || r.loopLeft > 0 }

// drain moves frames into b until the ring is empty or b is full.
func (r *ring) drain(b *frame.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.waiting() {
		room := b.Room()
		if room == nil {
			break
		}
		s := r.next()
		end := frame.Headroom + copy(room[frame.Headroom:], s.data)
		b.Commit(frame.Headroom, end).GSO = s.gso
	}
	r.settle()
	if r.waiting() {
		return nil
	}
	return r.gone
}

// settle makes the eventfd readable exactly while there is something to find,
// at the cost of one system call a burst, and passes the token on.
func (r *ring) settle() {
	if r.waiting() || r.closed {
		select {
		case r.ready <- struct{}{}:
		default:
		}
	}
	want := r.waiting() || r.gone != nil
	if r.fd < 0 || r.closed || want == r.raised {
		return
	}
	// An eventfd that holds 0 or 1 neither blocks a write nor, at 1, a read.
	if want {
		binary.NativeEndian.PutUint64(r.one[:], 1)
		unix.Write(r.fd, r.one[:])
	} else {
		unix.Read(r.fd, r.one[:])
	}
	r.raised = want
}

// close gives the descriptor back. Frames that wait can still be taken.
func (r *ring) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	r.settle()
	if r.fd < 0 {
		return nil
	}
	return os.NewSyscallError("close", unix.Close(r.fd))
}
