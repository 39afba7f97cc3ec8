package udpio

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// recvBatch is how many messages one system call takes. With UDP_GRO one
	// message already stands for up to 64 datagrams; without it 4 cost 5 % more
	// a datagram and 64 cost 2 % less.
	recvBatch = 16
	// recvSize is the longest message: no UDP payload is longer than 65,527
	// octets, and the kernel builds no longer run, so nothing is ever cut off.
	recvSize = 1 << 16
)

// Datagram is one received datagram, or a run of them from one sender that the
// kernel has put together (UDP_GRO).
type Datagram struct {
	From netip.AddrPort // never IPv4-mapped, without zone
	Data []byte         // the datagrams one behind the other; what lies behind, up to its capacity, is free
	Size int            // octets of each datagram but the last, which may be shorter
	TOS  uint8          // outer DSCP and ECN field
	TTL  uint8          // outer TTL or hop limit; 0 = not told
}

// Segments is how many datagrams d holds, at least 1: a datagram may be empty.
//
// Hot path: no allocation.
func (d *Datagram) Segments() int {
	if d.Size <= 0 || d.Size >= len(d.Data) {
		return 1
	}
	return (len(d.Data) + d.Size - 1) / d.Size
}

// Segment is datagram i of d, 0 <= i < Segments. It shares d's octets and ends
// where they do: appending to it copies.
//
// Hot path: no allocation.
func (d *Datagram) Segment(i int) []byte {
	size := d.Size
	if size <= 0 {
		size = len(d.Data)
	}
	from := i * size
	to := min(from+size, len(d.Data))
	return d.Data[from:to:to]
}

// message is the kernel's struct mmsghdr.
type message struct {
	hdr unix.Msghdr
	n   uint32 // octets moved
}

// sockaddr has room for an address of either family.
type sockaddr = unix.RawSockaddrInet6

// Receiver reads one socket.
type Receiver struct {
	fd       int
	closed   bool
	used     int // messages that the last call has filled
	out      [recvBatch]Datagram
	messages [recvBatch]message
	iov      [recvBatch]unix.Iovec
	from     [recvBatch]sockaddr
	control  [recvBatch][recvControl]byte
	memory   []byte // recvBatch pieces of recvSize
}

// NewReceiver takes over a socket that OpenReceiver made. It allocates 1 MiB,
// of which the kernel provides only pages that long messages have touched.
func NewReceiver(fd int) (*Receiver, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("take over receiving socket: %w", err)
	}
	r := &Receiver{fd: fd, used: recvBatch, memory: make([]byte, recvBatch*recvSize)}
	for i := range r.messages {
		r.iov[i].Base = &r.memory[i*recvSize]
		r.iov[i].SetLen(recvSize)
		h := &r.messages[i].hdr
		h.Iov = &r.iov[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.from[i]))
		h.Control = &r.control[i][0]
	}
	return r, nil
}

// FD is the socket, for polling.
func (r *Receiver) FD() int { return r.fd }

// Addr is where the socket is bound.
func (r *Receiver) Addr() netip.AddrPort { return localAddr(r.fd) }

// Receive reads what is waiting, up to 16 messages with one system call. The
// datagrams are valid until the next call; none means that nothing waits. An
// error is the socket's: it tells nothing about any datagram and does not come
// again unless its cause does.
//
// Hot path: no allocation.
func (r *Receiver) Receive() ([]Datagram, error) {
	for i := range r.used {
		h := &r.messages[i].hdr
		h.Namelen = uint32(unsafe.Sizeof(sockaddr{}))
		h.SetControllen(recvControl)
	}
	r.used = 0
	n, errno := mmsg(unix.SYS_RECVMMSG, r.fd, &r.messages[0], recvBatch)
	switch {
	case errno == unix.EAGAIN:
		return nil, nil
	case errno != 0:
		return nil, errno
	}
	r.used = n
	for i := range n {
		r.take(i)
	}
	return r.out[:n], nil
}

// take makes a Datagram of message i.
func (r *Receiver) take(i int) {
	m, d := &r.messages[i], &r.out[i]
	at := i * recvSize
	n := int(min(m.n, recvSize))
	d.From = addrPort(&r.from[i])
	d.Data = r.memory[at : at+n : at+recvSize]
	d.TOS, d.TTL = 0, 0
	parseControl(r.control[i][:min(int(m.hdr.Controllen), recvControl)], d)
}

// Memory is a socket's receive buffer.
type Memory struct {
	// Dropped is how many messages the kernel has discarded since the socket was
	// opened, for want of room or for a wrong checksum; a run that GRO has put
	// together counts once.
	Dropped uint32
	Buffer  int // octets of payload that fit at least: half of what the kernel reserves
}

// Memory reads the state of the receive buffer. SO_RXQ_OVFL, the other way to
// the number of drops, comes only with the next datagram, which may be long in
// coming. Any goroutine may call it.
func (r *Receiver) Memory() (Memory, error) {
	var mem [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(mem))
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(r.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&mem)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return Memory{}, fmt.Errorf("read receive buffer: %w", errno)
	}
	return Memory{Dropped: mem[unix.SK_MEMINFO_DROPS], Buffer: int(mem[unix.SK_MEMINFO_RCVBUF]) / 2}, nil
}

// Close closes the socket. It is idempotent.
func (r *Receiver) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	if err := unix.Close(r.fd); err != nil {
		return fmt.Errorf("close receiving socket: %w", err)
	}
	return nil
}

// mmsg calls recvmmsg or sendmmsg without waiting.
func mmsg(call uintptr, fd int, m *message, n int) (int, syscall.Errno) {
	for {
		done, _, errno := syscall.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(m)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return int(done), errno
		}
	}
}

// addrPort reads a socket address; the zero AddrPort stands for another family.
func addrPort(a *sockaddr) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&a.Port))[:])
	switch a.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), port)
	}
	return netip.AddrPort{}
}

// setAddrPort writes a socket address and returns its length.
func setAddrPort(a *sockaddr, to netip.AddrPort) uint32 {
	*a = sockaddr{}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&a.Port))[:], to.Port())
	if to.Addr().Is4() {
		a.Family = unix.AF_INET
		(*unix.RawSockaddrInet4)(unsafe.Pointer(a)).Addr = to.Addr().As4()
		return unix.SizeofSockaddrInet4
	}
	a.Family = unix.AF_INET6
	a.Addr = to.Addr().As16()
	return unix.SizeofSockaddrInet6
}

// localAddr is where fd is bound.
func localAddr(fd int) netip.AddrPort {
	var a sockaddr
	size := uint32(unsafe.Sizeof(a))
	_, _, errno := syscall.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&a)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}
	}
	return addrPort(&a)
}
