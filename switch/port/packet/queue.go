package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/gather"
)

// ErrGone means that the interface was deleted.
var ErrGone = errors.New("device is gone")

// ErrDown means that the interface is switched off; the port works again when
// it is switched on.
var ErrDown = errors.New("device is down")

// Made once, so that the hot path reports them without allocating.
var (
	errGone = fmt.Errorf("%w: %w", ErrGone, unix.ENXIO)
	errDown = fmt.Errorf("%w: %w", ErrDown, unix.ENETDOWN)
)

// Queue moves the frames of one packet socket.
type Queue struct {
	fd       int
	hdr      int // octets of vnet header; 0 = none
	offloads frame.Offloads
	closed   bool
}

// NewQueue takes over a packet socket that Open made. vnetHdr is the length of
// its vnet header in octets, 0 or 10; without one there are no offloads.
func NewQueue(fd int, vnetHdr int, offloads frame.Offloads) (*Queue, error) {
	switch vnetHdr {
	case 0:
		offloads = 0
	case offload.HeaderLen:
	default:
		return nil, fmt.Errorf("open packet queue: vnet header of %d octets, want 0 or 10", vnetHdr)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("open packet queue: %w", err)
	}
	return &Queue{fd: fd, hdr: vnetHdr, offloads: offloads}, nil
}

// FD is the socket.
func (q *Queue) FD() int { return q.fd }

// Offloads is what the socket takes; the kernel does what the interface can't.
func (q *Queue) Offloads() frame.Offloads { return q.offloads }

// Close closes the socket.
func (q *Queue) Close() error {
	if q.closed {
		return nil
	}
	q.closed = true
	if err := unix.Close(q.fd); err != nil {
		return fmt.Errorf("close packet queue: %w", err)
	}
	return nil
}

// Dropped is how many frames the kernel had to discard since the last call
// because nobody read them in time.
func (q *Queue) Dropped() (uint32, error) {
	s, err := unix.GetsockoptTpacketStats(q.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("packet statistics: %w", err)
	}
	return s.Drops, nil
}

// control is room for one PACKET_AUXDATA message, aligned as the kernel wants.
type control struct {
	hdr unix.Cmsghdr
	aux unix.TpacketAuxdata
	_   [4]byte
}

// Receive reads frames and puts their outer tag back. Metadata that contradicts
// a frame's octets is taken off it, so that it is judged by its length. An
// interface that is switched off is no error; one that was deleted is ErrGone.
//
// Hot path: no allocation.
func (q *Queue) Receive(b *frame.Batch) error {
	var (
		iov [1]unix.Iovec
		ctl control
		msg unix.Msghdr
	)
	from := frame.Headroom - q.hdr
	for {
		room := b.Room()
		if room == nil {
			return nil
		}
		iov[0].Base = &room[from]
		iov[0].SetLen(len(room) - from)
		msg.Iov, msg.Iovlen = &iov[0], 1
		msg.Control = (*byte)(unsafe.Pointer(&ctl))
		msg.SetControllen(int(unsafe.Sizeof(ctl)))
		n, _, errno := syscall.RawSyscall(unix.SYS_RECVMSG, uintptr(q.fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT)
		switch errno {
		case 0:
		case unix.EAGAIN:
			return nil
		case unix.EINTR:
			continue
		case unix.ENETDOWN:
			// Told once, by the socket's error, when the interface goes down or
			// away. Only one that is away has lost its binding.
			if q.bound() {
				continue
			}
			return errGone
		default:
			return cause(errno)
		}
		if int(n) <= q.hdr {
			continue
		}
		q.commit(b, room, int(n), &ctl)
	}
}

// commit turns the n octets read behind the headroom into a frame.
func (q *Queue) commit(b *frame.Batch, room []byte, n int, ctl *control) {
	start, end := frame.Headroom, frame.Headroom-q.hdr+n
	var gso frame.GSO
	var err error
	if q.hdr > 0 {
		gso, err = offload.ParseHeader(room[start-q.hdr:start], q.hdr)
	}
	if tpid, tci, ok := ctl.tag(); ok && end-start >= 12 {
		start -= frame.TagLen
		copy(room[start:start+12], room[start+frame.TagLen:])
		binary.BigEndian.PutUint16(room[start+12:], tpid)
		binary.BigEndian.PutUint16(room[start+14:], tci)
		if gso.Type != frame.GSONone {
			gso.HdrLen += frame.TagLen
		}
		if gso.NeedsCsum {
			gso.CsumStart += frame.TagLen
		}
	}
	f := b.Commit(start, end)
	if err != nil || q.hdr == 0 {
		return
	}
	f.GSO = gso
	if offload.Check(f) != nil {
		f.GSO = frame.GSO{}
	}
}

// tag is the VLAN tag that the kernel took out of the frame.
func (c *control) tag() (tpid, tci uint16, ok bool) {
	if c.hdr.Level != unix.SOL_PACKET || c.hdr.Type != unix.PACKET_AUXDATA || c.aux.Status&unix.TP_STATUS_VLAN_VALID == 0 {
		return 0, 0, false
	}
	tpid = uint16(frame.EtherTypeCTag)
	if c.aux.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = c.aux.Vlan_tpid
	}
	return tpid, c.aux.Vlan_tci, true
}

// bound reports whether the socket is still bound to an interface.
func (q *Queue) bound() bool {
	var a unix.RawSockaddrLinklayer
	size := uint32(unsafe.Sizeof(a))
	_, _, errno := syscall.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(q.fd), uintptr(unsafe.Pointer(&a)), uintptr(unsafe.Pointer(&size)))
	return errno == 0 && a.Ifindex > 0
}

// Transmit sends frames. The error wraps ErrDown or ErrGone, or is the errno:
// EMSGSIZE for a frame that the interface doesn't take, EAGAIN or ENOBUFS when
// the queue is full.
//
// Hot path: no allocation.
func (q *Queue) Transmit(b *frame.Batch) (sent int, err error) {
	var (
		iov [gather.Max]unix.Iovec
		hdr [offload.HeaderLen]byte
		tag [frame.TagLen]byte
		msg unix.Msghdr
	)
	first := 0
	if q.hdr > 0 {
		iov[0].Base = &hdr[0]
		iov[0].SetLen(q.hdr)
		first = 1
	}
	msg.Iov = &iov[0]
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
			msg.SetIovlen(first + n)
			errno = send(q.fd, unsafe.Pointer(&msg))
		}
		if errno == 0 {
			sent++
			continue
		}
		f.Refused = true
		if err == nil {
			err = cause(errno)
		}
	}
	return sent, err
}

func send(fd int, msg unsafe.Pointer) syscall.Errno {
	for {
		_, _, errno := syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(msg), unix.MSG_DONTWAIT)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// cause gives an errno the meaning that a caller branches on.
func cause(errno syscall.Errno) error {
	switch errno {
	case unix.ENXIO, unix.ENODEV, unix.EBADF:
		return errGone
	case unix.ENETDOWN:
		return errDown
	}
	return errno
}
