package record

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errUnread ends the writing to a pipe that nobody reads.
var errUnread = errors.New("the reader has stopped reading")

const (
	// pipeChunk is what a pipe that can be written takes without waiting:
	// PIPE_BUF (pipe(7)).
	pipeChunk = 4096
	// pipePatience is how long a reader that has stopped is waited for when the
	// capture is to end.
	pipePatience = 500 * time.Millisecond
	pipePoll     = 50 * time.Millisecond
)

// pipe writes to a pipe whose reader may have stopped, as Wireshark does while
// it asks where to save. When quit is closed that is waited for no longer.
type pipe struct {
	file *os.File
	quit <-chan struct{}
}

// isPipe reports whether f is one.
func isPipe(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeNamedPipe != 0
}

// Write implements io.Writer.
func (p *pipe) Write(b []byte) (n int, err error) {
	for idle := time.Duration(0); n < len(b); {
		fd := []unix.PollFd{{Fd: int32(p.file.Fd()), Events: unix.POLLOUT}}
		ready, err := unix.Poll(fd, int(pipePoll/time.Millisecond))
		switch {
		case err != nil && !errors.Is(err, syscall.EINTR):
			return n, err
		case ready <= 0:
			select {
			case <-p.quit:
				if idle += pipePoll; idle >= pipePatience {
					return n, errUnread
				}
			default:
			}
			continue
		}
		m, err := p.file.Write(b[n:min(n+pipeChunk, len(b))])
		n, idle = n+m, 0
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
