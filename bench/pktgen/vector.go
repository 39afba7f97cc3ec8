package pktgen

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// message is struct mmsghdr of sendmmsg(2); the compiler pads it as C does.
type message struct {
	hdr unix.Msghdr
	len uint32
}

// vector is a run of datagrams for one system call, all of one length and
// without an address.
type vector struct {
	messages []message
	iovs     []unix.Iovec
	bytes    []byte
}

func newVector(n, size int) *vector {
	size = max(size, 1)
	v := &vector{messages: make([]message, n), iovs: make([]unix.Iovec, n), bytes: make([]byte, n*size)}
	for i := range v.messages {
		v.iovs[i].Base = &v.bytes[i*size]
		v.iovs[i].SetLen(size)
		v.messages[i].hdr.Iov = &v.iovs[i]
		v.messages[i].hdr.SetIovlen(1)
	}
	return v
}

// send sends all datagrams and returns how many the kernel took.
func (v *vector) send(fd int) int {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.messages[0])), uintptr(len(v.messages)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// receive takes the datagrams that wait, without waiting for more.
func (v *vector) receive(fd int) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.messages[0])), uintptr(len(v.messages)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
