package keeper

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Confine gives up every privilege of this process for good, on every thread
// that it has or will have: no capability in any set, none to be gained by
// executing a file (no_new_privs), memory that no other process of the user can
// trace or dump. Descriptors from WorkerFD on are closed by an execve. The
// worker calls it before it touches a frame, first of all: a program built with
// cgo can change one thread alone, so there Confine drops everything on that
// thread and executes the program again, with the same arguments.
func Confine() error {
	err := dropAll(everyThread)
	if errors.Is(err, errCgo) {
		err = dropByExec()
	}
	if err != nil {
		return fmt.Errorf("confine worker: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("confine worker: forbid tracing: %w", err)
	}
	if err := unix.CloseRange(WorkerFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("confine worker: close descriptors at exec: %w", err)
	}
	return nil
}

// dropAll gives up privileges by system calls that on makes.
func dropAll(on caller) error {
	// A thread that is being created while the others are changed inherits from
	// one that has been or that will be changed, because AllThreadsSyscall stops
	// the world.
	if err := on("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return err
	}
	if err := on("clear ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return err
	}
	if err := dropBounding(on); err != nil {
		return err
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	err := on("drop capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&none[0])), 0)
	runtime.KeepAlive(&hdr)
	runtime.KeepAlive(&none)
	return err
}

// againEnv marks the process that dropByExec has started.
const againEnv = "TAPESTRY_CONFINE_AGAIN"

// dropByExec has the program start again without privileges, which every thread
// of it then inherits. In the second run it only checks that this is so.
func dropByExec() error {
	if os.Getenv(againEnv) != "" {
		return checkDropped()
	}
	runtime.LockOSThread() // never unlocked: the thread isn't like others any more
	if err := dropAll(thisThread); err != nil {
		return err
	}
	// The wish belongs to the thread that the keeper has started, which ends here.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("die with the keeper: %w", err)
	}
	err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), againEnv+"=1"))
	return fmt.Errorf("execute %s again without privileges: %w; everybody must be allowed to execute it, or build it with CGO_ENABLED=0", os.Args[0], err)
}

// checkDropped makes sure that this thread, which all others descend from, has
// inherited nothing.
func checkDropped() error {
	if n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || n != 1 {
		return errors.New("privileges can be gained after the program was executed again")
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&hdr, &sets[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if sets != [2]unix.CapUserData{} {
		return errors.New("capabilities are left after the program was executed again")
	}
	return nil
}

// dropBounding empties the bounding set, which takes CAP_SETPCAP; without that
// capability nothing can be gained from the set either, given no_new_privs.
func dropBounding(on caller) error {
	for c := 0; c < 64; c++ { // a kernel knows at most 64
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil || in == 0 {
			continue // a capability this kernel doesn't know, or one gone already
		}
		if err := on("empty the bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0); err != nil {
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

// caller makes one system call; what is for its error.
type caller func(what string, trap, a1, a2, a3 uintptr) error

var errCgo = errors.New("a program built with cgo can't change all its threads")

// everyThread makes the call on each thread of the process.
func everyThread(what string, trap, a1, a2, a3 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0)
	if errno == syscall.ENOTSUP {
		return errCgo
	}
	if errno != 0 {
		return fmt.Errorf("%s: %w", what, errno)
	}
	return nil
}

// thisThread makes the call on the calling thread alone.
func thisThread(what string, trap, a1, a2, a3 uintptr) error {
	if _, _, errno := unix.Syscall6(trap, a1, a2, a3, 0, 0, 0); errno != 0 {
		return fmt.Errorf("%s: %w", what, errno)
	}
	return nil
}
