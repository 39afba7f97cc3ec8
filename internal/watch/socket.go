package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ErrGone means that the watched interface was deleted.
var ErrGone = errors.New("watched interface is gone")

const (
	// MaxSnapLen is the most octets of a packet that a Socket reads: more than
	// the longest GSO packet but those of BIG TCP.
	MaxSnapLen = 1 << 17
	// maxBatch and maxMemory bound what one Read returns and a Socket holds.
	maxBatch  = 64
	maxMemory = 1 << 20
)

// Options say what of a watched interface is read.
type Options struct {
	// Filter decides in the kernel which packets are read, and how many octets
	// of each (see the package comment on tags); nil = all of all.
	Filter []bpf.RawInstruction
	// SnapLen is how many octets of a packet are read at most, without the tag
	// that is put back; 0 = 65550, a packet of IP's greatest length and its
	// Ethernet header.
	SnapLen int
}

const defaultSnapLen = 65550

// message is the kernel's struct mmsghdr.
type message struct {
	hdr unix.Msghdr
	n   uint32 // octets moved
}

// Socket reads one watching socket.
type Socket struct {
	f   *os.File
	raw syscall.RawConn
	one bool // bound to one interface
	// attempt and poll are the methods of the same names, bound once: a
	// RawConn calls them, the second until it reports that it is done.
	attempt, poll func(fd uintptr) bool
	n             int // messages of the last attempt
	errno         syscall.Errno

	snap     int
	packets  []Packet
	messages []message
	iov      []unix.Iovec
	from     []unix.RawSockaddrLinklayer
	control  [][controlLen]byte
	memory   []byte

	mu      sync.Mutex
	dropped uint64
}

// New takes over a socket that Open made, also when it fails, and attaches the
// filter. It allocates at most 1 MiB for packets.
func New(fd int, o Options) (*Socket, error) {
	s, err := newSocket(fd, o)
	if err != nil {
		_ = unix.Close(fd) // the error that counts is err
		return nil, fmt.Errorf("take over watching socket: %w", err)
	}
	return s, nil
}

func newSocket(fd int, o Options) (*Socket, error) {
	if o.SnapLen == 0 {
		o.SnapLen = defaultSnapLen
	}
	if o.SnapLen < 1 || o.SnapLen > MaxSnapLen {
		return nil, fmt.Errorf("snap length %d: want 1 to %d octets", o.SnapLen, MaxSnapLen)
	}
	if o.Filter == nil {
		o.Filter = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: uint32(o.SnapLen)}}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	index, err := boundTo(uintptr(fd))
	if err != nil {
		return nil, err
	}
	s := &Socket{one: index > 0, snap: o.SnapLen}
	s.allot(max(1, min(maxBatch, maxMemory/(tagLen+o.SnapLen))))
	if err := attach(fd, o.Filter); err != nil {
		return nil, err
	}
	s.attempt, s.poll = s.attemptOnce, s.pollOnce
	s.f = os.NewFile(uintptr(fd), "watching socket")
	if s.raw, err = s.f.SyscallConn(); err != nil {
		return nil, err
	}
	return s, nil
}

// allot makes room for batches of n packets.
func (s *Socket) allot(n int) {
	size := tagLen + s.snap
	s.packets, s.messages, s.iov = make([]Packet, n), make([]message, n), make([]unix.Iovec, n)
	s.from, s.control = make([]unix.RawSockaddrLinklayer, n), make([][controlLen]byte, n)
	s.memory = make([]byte, n*size)
	for i := range n {
		s.iov[i].Base = &s.memory[i*size+tagLen]
		s.iov[i].SetLen(s.snap)
		h := &s.messages[i].hdr
		h.Iov = &s.iov[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&s.from[i]))
		h.Control = &s.control[i][0]
	}
}

// Read returns the packets that wait, at most 64, and blocks until there is one.
// They are valid until the next Read. The error is ctx's, fs.ErrClosed after
// Close, ErrGone, or the socket's.
func (s *Socket) Read(ctx context.Context) ([]Packet, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.finish(s.raw.Read(s.attempt)); err != nil {
		return nil, err
	}
	if s.n == 0 {
		if err := s.wait(ctx); err != nil {
			return nil, err
		}
	}
	size := tagLen + s.snap
	for i := range s.n {
		m := &s.messages[i]
		control := s.control[i][:min(int(m.hdr.Controllen), controlLen)]
		s.packets[i] = assemble(s.memory[i*size:(i+1)*size], int(m.n), &s.from[i], control)
	}
	return s.packets[:s.n], nil
}

// wait reads until there is something or ctx ends.
func (s *Socket) wait(ctx context.Context) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = s.f.SetReadDeadline(time.Unix(1, 0)) // fails when closed, which ends the wait as well
	})
	err := s.raw.Read(s.poll)
	if !stop() {
		<-ended
		_ = s.f.SetReadDeadline(time.Time{}) // fails when closed
		if err != nil {
			return ctx.Err()
		}
	}
	return s.finish(err)
}

// finish is the error of an attempt to read, given what the RawConn says.
func (s *Socket) finish(err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("read watching socket: %w", fs.ErrClosed)
	case s.errno == unix.ENETDOWN, s.errno == unix.ENXIO:
		return ErrGone
	case s.errno != 0:
		return fmt.Errorf("read watching socket: %w", s.errno)
	}
	return nil
}

func (s *Socket) attemptOnce(fd uintptr) bool {
	s.receive(fd)
	return true
}

func (s *Socket) pollOnce(fd uintptr) bool {
	s.receive(fd)
	return s.n > 0 || s.errno != 0
}

// receive fills messages with what waits.
func (s *Socket) receive(fd uintptr) {
	s.n, s.errno = 0, 0
	for i := range s.messages {
		h := &s.messages[i].hdr
		h.Namelen = uint32(unsafe.Sizeof(s.from[0]))
		h.SetControllen(controlLen)
	}
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&s.messages[0])), uintptr(len(s.messages)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			s.n = int(n)
			return
		case unix.EAGAIN:
			return
		case unix.EINTR:
			continue
		case unix.ENETDOWN:
			// Told once when the interface goes down or away. Only one that is
			// away has lost its binding; of many interfaces it says nothing.
			if index, err := boundTo(fd); err == nil && (index > 0 || !s.one) {
				continue
			}
		}
		s.errno = errno
		return
	}
}

// boundTo returns the index of the interface that the socket is bound to, 0 for
// all and -1 for one that is gone.
func boundTo(fd uintptr) (int, error) {
	var a unix.RawSockaddrLinklayer
	size := uint32(unsafe.Sizeof(a))
	_, _, errno := syscall.RawSyscall(unix.SYS_GETSOCKNAME, fd, uintptr(unsafe.Pointer(&a)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, errno
	}
	if a.Family != unix.AF_PACKET {
		return 0, fmt.Errorf("address family %d, want a packet socket", a.Family)
	}
	return int(a.Ifindex), nil
}

// Dropped is how many packets that passed the filter the kernel has discarded
// since the socket was opened, because they were not read in time.
func (s *Socket) Dropped() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var stats *unix.TpacketStats
	var err error
	if e := s.raw.Control(func(fd uintptr) {
		stats, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}); e != nil {
		err = fs.ErrClosed
	}
	if err != nil {
		return s.dropped, fmt.Errorf("read drops of watching socket: %w", err)
	}
	s.dropped += uint64(stats.Drops) // the kernel begins again at 0 each time
	return s.dropped, nil
}

// Close closes the socket and ends a Read that blocks. It is idempotent.
func (s *Socket) Close() error {
	if err := s.f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("close watching socket: %w", err)
	}
	return nil
}
