package nftrace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLost means that the kernel had to discard reports, because somebody traces
// more than is read. What is reported later is still right.
var ErrLost = errors.New("reports of the firewall were lost")

// maxPackets bounds how many packets a Listener knows to be the probe's: more
// than one probe and its answer ever become in one namespace.
const maxPackets = 64

// Listener reads what the firewall does with a probe.
type Listener struct {
	f     *os.File
	table string
	probe Probe
	buf   []byte
	known map[uint32]bool // packets that are ours; true = the answer
}

// New takes over what Open has returned for p.
func New(fd int, table string, p Probe) (*Listener, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("take over firewall socket: %w", err)
	}
	return &Listener{
		f: os.NewFile(uintptr(fd), "firewall socket"), table: table, probe: p,
		buf: make([]byte, 1<<16), known: make(map[uint32]bool),
	}, nil
}

// Read returns what the probe and its answer have met, in order, and blocks
// until there is something. Our own table is left out. The error is ctx's,
// ErrLost, after which Read may be called again, or fs.ErrClosed after Close.
func (l *Listener) Read(ctx context.Context) ([]Step, error) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = l.f.SetReadDeadline(time.Unix(1, 0)) // fails when closed, which ends the wait as well
	})
	defer func() {
		if !stop() {
			<-ended
			_ = l.f.SetReadDeadline(time.Time{}) // fails when closed
		}
	}()
	for {
		n, err := l.f.Read(l.buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, ctx.Err()
		case errors.Is(err, fs.ErrClosed):
			return nil, fmt.Errorf("read firewall reports: %w", fs.ErrClosed)
		case errors.Is(err, unix.ENOBUFS):
			return nil, ErrLost
		case err != nil:
			return nil, fmt.Errorf("read firewall reports: %w", err)
		}
		if steps := l.take(l.buf[:n]); len(steps) > 0 {
			return steps, nil
		}
	}
}

// take picks our steps out of one datagram. The headers stand in the first
// report that a packet causes in a chain; the others have its number alone.
func (l *Listener) take(b []byte) []Step {
	var steps []Step
	for m := range messages(b) {
		r, ok := parseReport(m)
		if !ok {
			continue
		}
		if reply := r.is(l.probe, true); r.headers && (reply || r.is(l.probe, false)) && len(l.known) < maxPackets {
			l.known[r.Packet] = reply
		}
		reply, ours := l.known[r.Packet]
		if !ours || r.Table == l.table || r.silent() {
			continue
		}
		r.Reply = reply
		steps = append(steps, r.Step)
	}
	return steps
}

// Close ends the trace: the table goes with it. It ends a Read that blocks, may
// be called by any goroutine and is idempotent.
func (l *Listener) Close() error {
	if err := l.f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("close firewall socket: %w", err)
	}
	return nil
}
