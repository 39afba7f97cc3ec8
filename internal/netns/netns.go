package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrNotFound means that no namespace of that name, path or process exists.
var ErrNotFound = errors.New("network namespace not found")

// ErrInvalid means that the spec is not a namespace's name, path or pid:N.
var ErrInvalid = errors.New("invalid network namespace")

// maxName is the longest name accepted, the limit of a file name.
const maxName = 255

// Handle is an open network namespace.
type Handle struct {
	// FD refers to the namespace. It is close-on-exec and belongs to the Handle.
	FD    int
	inode uint64
	spec  string
	close sync.Once
}

// Open finds the namespace that spec names: a name of ip netns, an absolute
// path, or pid:N. Its error wraps ErrInvalid, ErrNotFound or fs.ErrPermission.
func Open(spec string) (*Handle, error) {
	paths, err := candidates(spec)
	if err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", clip(spec), err)
	}
	for _, p := range paths {
		fd, e := openPath(p)
		if e == nil {
			return newHandle(fd, spec)
		}
		if err = e; !errors.Is(e, unix.ENOENT) {
			break
		}
	}
	return nil, fmt.Errorf("open namespace %s: %w", clip(spec), explain(err))
}

// Current returns the namespace of the calling thread. Unless the goroutine is
// locked to a thread that was moved, that is the process's own.
func Current() (*Handle, error) {
	fd, err := openPath("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open own namespace: %w", explain(err))
	}
	return newHandle(fd, "")
}

// New makes an empty namespace, which lives until the last descriptor and
// interface that refers to it is gone. It needs CAP_SYS_ADMIN.
func New() (*Handle, error) {
	var h *Handle
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make namespace: %w", explain(err))
		}
		var err error
		h, err = Current()
		return err
	})
	return h, err
}

func newHandle(fd int, spec string) (*Handle, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open namespace %s: %w", clip(spec), err)
	}
	return &Handle{FD: fd, inode: st.Ino, spec: spec}, nil
}

// Inode is the number that tells this namespace from all others that live.
func (h *Handle) Inode() uint64 { return h.inode }

// String is the spec that the namespace was opened by; empty for an own one.
func (h *Handle) String() string { return h.spec }

// Do runs fn on a thread inside the namespace and returns its error. What fn
// opens stays in the namespace; goroutines that it starts run outside. It needs
// CAP_SYS_ADMIN over the namespace.
func (h *Handle) Do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(h.FD, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", clip(h.spec), explain(err))
		}
		return fn()
	})
}

// Close releases the descriptor. It is idempotent.
func (h *Handle) Close() error {
	var err error
	h.close.Do(func() { err = unix.Close(h.FD) })
	return err
}

// onThread runs fn on a locked thread and brings the thread back to the
// namespace it came from. A thread that can't come back stays locked, so that
// the runtime ends it together with its goroutine.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// A fn that ends its goroutine, as a failing test does, must not leave
		// the caller waiting.
		err := errors.New("function in namespace did not return")
		defer func() { done <- err }()
		runtime.LockOSThread()
		home, e := openPath("/proc/thread-self/ns/net")
		if e != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("open own namespace: %w", explain(e))
			return
		}
		defer func() {
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			_ = unix.Close(home)
		}()
		err = fn()
	}()
	return <-done
}

// candidates turns a spec into the paths to try, in order.
func candidates(spec string) ([]string, error) {
	switch {
	case strings.HasPrefix(spec, "pid:"):
		n, err := strconv.ParseUint(spec[4:], 10, 31)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%w: %q is no process number", ErrInvalid, clip(spec[4:]))
		}
		return []string{"/proc/" + strconv.FormatUint(n, 10) + "/ns/net"}, nil
	case strings.HasPrefix(spec, "/"):
		if !printable(spec) || len(spec) >= unix.PathMax || filepath.Clean(spec) != spec {
			return nil, fmt.Errorf("%w: path must be clean and printable, without dot segments", ErrInvalid)
		}
		return []string{spec}, nil
	default:
		if !ValidName(spec) {
			return nil, fmt.Errorf("%w: want a name of letters, digits, '.', '_' and '-' that begins with a letter or digit, an absolute path, or pid:N", ErrInvalid)
		}
		return []string{"/run/netns/" + spec, "/var/run/netns/" + spec}, nil
	}
}

// ValidName reports whether s is a namespace name that is safe to put into a
// path and into a message.
func ValidName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || !strconv.IsPrint(r) }) < 0
}

// openPath opens a file only after it is known to be a network namespace, since
// opening a device or a FIFO could have effects of its own.
func openPath(path string) (int, error) {
	p, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(p)
	var st unix.Statfs_t
	if err := unix.Fstatfs(p, &st); err != nil {
		return -1, err
	}
	if st.Type != unix.NSFS_MAGIC {
		return -1, fmt.Errorf("%w: %s is no namespace", ErrInvalid, path)
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(p), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("%w: %s is a namespace of another kind", ErrInvalid, path)
	}
	return fd, nil
}

// explain turns errno into a sentinel or names what is missing.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOTDIR):
		return ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: needs CAP_SYS_ADMIN, and CAP_SYS_PTRACE for another user's process", err)
	}
	return err
}

func clip(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return strconv.Quote(s)
}
