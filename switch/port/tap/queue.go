package tap

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/gather"
)

// ErrGone means that the device was deleted or its namespace ended. The
// descriptor is of no further use.
var ErrGone = errors.New("device is gone")

// ErrDown means that the device is switched off and takes no frames; it works
// again when it is switched on.
var ErrDown = errors.New("device is down")

// Made once, so that the hot path reports them without allocating.
var (
	errGone = fmt.Errorf("%w: %w", ErrGone, unix.EBADFD)
	errDown = fmt.Errorf("%w: %w", ErrDown, unix.EIO)
)

// Queue moves the frames of one TAP descriptor.
type Queue struct {
	fd       int
	hdr      int // octets of vnet header; 0 = none
	offloads frame.Offloads
	refused  atomic.Bool
	closed   bool
}

// NewQueue takes over a TAP's descriptor. vnetHdr is the length of its vnet
// header in octets: 0, 10 or 12; without one there are no offloads.
func NewQueue(fd int, vnetHdr int, offloads frame.Offloads) (*Queue, error) {
	switch vnetHdr {
	case 0:
		offloads = 0
	case offload.HeaderLen, offload.HeaderLenMerged:
	default:
		return nil, fmt.Errorf("open tap queue: vnet header of %d octets, want 0, 10 or 12", vnetHdr)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("open tap queue: %w", err)
	}
	return &Queue{fd: fd, hdr: vnetHdr, offloads: offloads}, nil
}

// FD is the TAP's descriptor.
func (q *Queue) FD() int { return q.fd }

// Offloads is what the kernel accepted when the device was opened.
func (q *Queue) Offloads() frame.Offloads { return q.offloads }

// GSORefused reports whether the kernel has refused a GSO frame that it had
// promised to take. The port should then be opened again without offloads.
func (q *Queue) GSORefused() bool { return q.refused.Load() }

// Close closes the descriptor. The device stays.
func (q *Queue) Close() error {
	if q.closed {
		return nil
	}
	q.closed = true
	if err := unix.Close(q.fd); err != nil {
		return fmt.Errorf("close tap queue: %w", err)
	}
	return nil
}

// Receive reads frames. Metadata that contradicts a frame's octets is taken
// off it, so that it is judged by its length. An error wraps ErrGone.
//
// Hot path: no allocation.
func (q *Queue) Receive(b *frame.Batch) error {
	from := frame.Headroom - q.hdr
	for {
		room := b.Room()
		if room == nil {
			return nil
		}
		room = room[from:]
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(q.fd), uintptr(unsafe.Pointer(&room[0])), uintptr(len(room)))
		switch errno {
		case 0:
		case unix.EAGAIN:
			return nil
		case unix.EINTR:
			continue
		default:
			return cause(errno)
		}
		if int(n) <= q.hdr {
			continue
		}
		f := b.Commit(frame.Headroom, from+int(n))
		if q.hdr == 0 {
			continue
		}
		gso, err := offload.ParseHeader(room[:q.hdr], q.hdr)
		if err != nil {
			continue
		}
		f.GSO = gso
		if offload.Check(f) != nil {
			f.GSO = frame.GSO{}
		}
	}
}

// Transmit writes frames. The error wraps ErrDown or ErrGone, or is the errno:
// EAGAIN when the queue is full, EMSGSIZE when a frame has too many pieces.
//
// Hot path: no allocation.
func (q *Queue) Transmit(b *frame.Batch) (sent int, err error) {
	var (
		iov [gather.Max]unix.Iovec
		hdr [offload.HeaderLenMerged]byte
		tag [frame.TagLen]byte
	)
	first := 0
	if q.hdr > 0 {
		iov[0].Base = &hdr[0]
		iov[0].SetLen(q.hdr)
		first = 1
	}
	for i := range b.Frames {
		f := &b.Frames[i]
		errno := syscall.Errno(unix.EMSGSIZE)
		if n, tagAt := gather.Fill(iov[first:], f); n > 0 {
			if f.Push.Present() {
				tag = gather.TagOctets(f.Push)
				iov[first+tagAt].Base = &tag[0]
			}
			if first > 0 {
				offload.PutHeader(hdr[:], q.hdr, f.GSO, f.Shift())
			}
			errno = writev(q.fd, unsafe.Pointer(&iov[0]), first+n)
		}
		if errno == 0 {
			sent++
			continue
		}
		f.Refused = true
		if errno == unix.EINVAL && f.GSO.Type != frame.GSONone {
			q.refused.Store(true)
		}
		if err == nil {
			err = cause(errno)
		}
	}
	return sent, err
}

// writev must stay free of stack growth between the conversion of iov and the
// system call, which RawSyscall guarantees.
func writev(fd int, iov unsafe.Pointer, n int) syscall.Errno {
	for {
		_, _, errno := syscall.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(iov), uintptr(n))
		if errno != unix.EINTR {
			return errno
		}
	}
}

// cause gives an errno the meaning that a caller branches on.
func cause(errno syscall.Errno) error {
	switch errno {
	case unix.EBADFD, unix.EBADF:
		return errGone
	case unix.EIO:
		return errDown
	}
	return errno
}
