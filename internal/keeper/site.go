package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	socketDirMode = 0o755
	stateDirMode  = 0o750
	socketMode    = 0o660
	// socketGroup may use the API, where a group of that name exists.
	socketGroup = "tapestry"
	lockName    = "lock"         // in the state directory; beside the socket: .lock
	backlog     = unix.SOMAXCONN // an unix socket refuses at once what goes beyond it
)

// site is the place on disk that belongs to one running switch.
type site struct {
	socket   string
	stateDir string
	dir      int // the state directory
	listener int
	locks    []*os.File
	made     []string // directories that weren't there, outermost first
}

// claim makes the directories, takes the locks and listens on the socket.
func claim(socket, stateDir string) (*site, error) {
	s := &site{socket: socket, stateDir: stateDir, dir: -1, listener: -1}
	err := s.takeState()
	if err == nil {
		err = s.takeSocket()
	}
	if err != nil {
		s.unlock()
		return nil, err
	}
	return s, nil
}

func (s *site) takeState() error {
	if err := s.makeDir(s.stateDir, stateDirMode); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	var err error
	if s.dir, err = unix.Open(s.stateDir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open state directory %s: %w", s.stateDir, err)
	}
	return s.lock(filepath.Join(s.stateDir, lockName), "state directory "+s.stateDir)
}

func (s *site) takeSocket() error {
	if err := s.makeDir(filepath.Dir(s.socket), socketDirMode); err != nil {
		return fmt.Errorf("make directory of the api socket: %w", err)
	}
	if err := s.lock(s.socket+".lock", "api socket "+s.socket); err != nil {
		return err
	}
	if err := removeStale(s.socket); err != nil {
		return err
	}
	return s.listen()
}

// makeDir makes path and notes what wasn't there.
func (s *site) makeDir(path string, mode fs.FileMode) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if parent := filepath.Dir(path); parent != path {
		if err := s.makeDir(parent, socketDirMode); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, mode); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	s.made = append(s.made, path)
	return nil
}

// lock takes the lock file at path for this process, or says who has it.
func (s *site) lock(path, what string) error {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o644)
		if err != nil {
			return fmt.Errorf("lock %s: %w", what, err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			defer f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return inUse(what, lockOwner(f))
			}
			return fmt.Errorf("lock %s: %w", what, err)
		}
		// Its last owner may have removed the file between the two calls.
		mine, err := f.Stat()
		if now, err2 := os.Stat(path); err != nil || err2 != nil || !os.SameFile(mine, now) {
			f.Close()
			continue
		}
		s.locks = append(s.locks, f)
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		}
		if err != nil {
			return fmt.Errorf("lock %s: %w", what, err)
		}
		return nil
	}
}

// lockOwner reads the pid in a lock file; 0 = none.
func lockOwner(f *os.File) int {
	b := make([]byte, 16)
	n, _ := f.ReadAt(b, 0)
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b[:n])))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

func inUse(what string, pid int) *Error {
	by := "another process"
	if pid != 0 {
		by = fmt.Sprintf("the process with pid %d", pid)
	}
	return &Error{
		Code: CodeConflict, Msg: fmt.Sprintf("%s is in use by %s", what, by),
		Hint: "stop that one, or give this one its own --socket and --state",
	}
}

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("api socket: %w", err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return &Error{Code: CodeConflict, Msg: fmt.Sprintf("api socket %s: a file that is no socket is in its place", path), Hint: "move it away"}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("api socket %s: %w", path, err)
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	pid := 0
	if err == nil {
		if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid) // of whoever has called listen
		}
	}
	switch {
	case errors.Is(err, unix.ECONNREFUSED), pid != 0 && errors.Is(unix.Kill(pid, 0), unix.ESRCH):
		// Nobody listens, or only a worker that dies with its keeper.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove stale api socket: %w", err)
		}
		return nil
	case err == nil, errors.Is(err, unix.EAGAIN): // EAGAIN: its backlog is full
		return inUse("api socket "+path, pid)
	}
	return fmt.Errorf("api socket %s: %w", path, err)
}

func (s *site) listen() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("api socket %s: %w", s.socket, err)
	}
	s.listener = fd
	// The mode comes from the mask, so that there is no instant with another.
	old := unix.Umask(^socketMode & 0o777)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: s.socket})
	unix.Umask(old)
	if errors.Is(err, unix.EINVAL) {
		return invalid("api socket %s: the path has %d octets, the kernel takes 107", s.socket, len(s.socket))
	}
	if err != nil {
		return fmt.Errorf("api socket %s: %w", s.socket, err)
	}
	if err = unix.Listen(fd, backlog); err == nil {
		err = giveToGroup(s.socket)
	}
	if err != nil {
		_ = os.Remove(s.socket) // the error that counts is err
		return fmt.Errorf("api socket %s: %w", s.socket, err)
	}
	return nil
}

// giveToGroup lets the members of socketGroup use the API.
func giveToGroup(path string) error {
	g, err := user.LookupGroup(socketGroup)
	if err != nil {
		return nil // no such group: the owner alone
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("group %s: %w", socketGroup, err)
	}
	if err := os.Chown(path, -1, gid); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// release removes the socket and the lock files, with purge the saved state
// too, and the directories that claim has made and that are empty now.
func (s *site) release(purge bool) error {
	gone := []string{s.socket}
	if purge {
		gone = append(gone, filepath.Join(s.stateDir, stateName), filepath.Join(s.stateDir, stateTemp))
	}
	var errs []error
	for _, p := range gone {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	s.unlock()
	return errors.Join(errs...)
}

// unlock closes everything and removes what only served this process.
func (s *site) unlock() {
	for _, f := range s.locks {
		_ = os.Remove(f.Name()) // while it is locked; a leftover does no harm
		_ = f.Close()
	}
	for _, fd := range []int{s.dir, s.listener} {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing was written through it
		}
	}
	for i := len(s.made) - 1; i >= 0; i-- {
		_ = os.Remove(s.made[i]) // stays when others have put something there
	}
}
