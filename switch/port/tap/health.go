package tap

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// State is the condition of the device behind a held descriptor.
type State uint8

// States of a device.
const (
	StateUp   State = iota
	StateDown       // switched off, or its send buffer is full
	StateGone       // deleted, or its namespace ended
)

// String returns up, down or gone.
func (s State) String() string { return [...]string{"up", "down", "gone"}[min(s, StateGone)] }

// States appends the state of each descriptor to dst, by one poll(2) for all of
// them. The kernel reports a TAP writable only while it is switched on, and in
// error once it was deleted.
func States(dst []State, fds []int) ([]State, error) {
	polls := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		polls[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}
	}
	for {
		_, err := unix.Poll(polls, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return dst, fmt.Errorf("poll taps: %w", err)
		}
		break
	}
	for _, p := range polls {
		switch {
		case p.Revents&(unix.POLLERR|unix.POLLNVAL|unix.POLLHUP) != 0:
			dst = append(dst, StateGone)
		case p.Revents&unix.POLLOUT != 0:
			dst = append(dst, StateUp)
		default:
			dst = append(dst, StateDown)
		}
	}
	return dst, nil
}

// Name is what the device behind a descriptor is called now, in whatever
// namespace it is. The error wraps ErrGone.
func Name(fd int) (string, error) {
	r, err := getIff(fd)
	if err != nil {
		return "", fmt.Errorf("name of tap: %w", err)
	}
	return unix.ByteSliceToString(r.name[:]), nil
}

// ifreq is struct ifreq with the flags member of its union.
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	flags uint16
	_     [22]byte
}

func getIff(fd int) (ifreq, error) {
	var r ifreq
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNGETIFF, uintptr(unsafe.Pointer(&r)))
	if errno != 0 {
		return r, cause(errno)
	}
	return r, nil
}
