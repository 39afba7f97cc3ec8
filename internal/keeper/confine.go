package keeper

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Confine gives up every privilege of this process for good, on every thread
// that it has or will have: no capability in any set, none to be gained by
// executing a file (no_new_privs), memory that no other process of the user can
// trace or dump. Descriptors from WorkerFD on are closed by an execve. The
// worker calls it before it touches a frame.
func Confine() error {
	// A thread that is being created while the others are changed inherits from
	// one that has been or that will be changed, because AllThreadsSyscall stops
	// the world.
	if err := eachThread("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return err
	}
	if err := eachThread("clear ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return err
	}
	if err := dropBounding(); err != nil {
		return err
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	err := eachThread("drop capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&none[0])), 0)
	runtime.KeepAlive(&hdr)
	runtime.KeepAlive(&none)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("confine worker: forbid tracing: %w", err)
	}
	if err := unix.CloseRange(WorkerFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("confine worker: close descriptors at exec: %w", err)
	}
	return nil
}

// dropBounding empties the bounding set, which takes CAP_SETPCAP; without that
// capability nothing can be gained from the set either, given no_new_privs.
func dropBounding() error {
	for c := 0; c < 64; c++ { // a kernel knows at most 64
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil || in == 0 {
			continue // a capability this kernel doesn't know, or one gone already
		}
		if err := eachThread("empty the bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0); err != nil {
			if hasSetpcap() {
				return err
			}
			return nil
		}
	}
	return nil
}

// hasSetpcap reports whether this thread may change its bounding set.
func hasSetpcap() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&hdr, &sets[0]); err != nil {
		return false
	}
	return sets[0].Effective&(1<<unix.CAP_SETPCAP) != 0
}

func eachThread(what string, trap, a1, a2, a3 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0)
	if errno == syscall.ENOTSUP {
		return errors.New("confine worker: a program built with cgo can't confine all its threads: build it with CGO_ENABLED=0")
	}
	if errno != 0 {
		return fmt.Errorf("confine worker: %s: %w", what, errno)
	}
	return nil
}
