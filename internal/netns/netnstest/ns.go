package netnstest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns"
)

var serial atomic.Uint32

// A program that a test runs must end within limit; what its own children hold
// open of its output is given up after drain.
const (
	limit = 2 * time.Minute
	drain = 5 * time.Second
)

// NS is a network namespace that lives as long as its test.
type NS struct {
	*netns.Handle
	t    testing.TB
	name string // under /run/netns, once Name was asked for
}

// New makes an empty namespace with its loopback up. It skips the test where
// that is impossible, as Require(t, "netns") does.
func New(t testing.TB) *NS {
	t.Helper()
	Require(t, "netns")
	h, err := netns.New()
	if err != nil {
		t.Fatalf("make namespace: %v", err)
	}
	n := &NS{Handle: h, t: t}
	t.Cleanup(n.Delete)
	if err := h.Do(loopbackUp); err != nil {
		t.Fatalf("namespace: %v", err)
	}
	return n
}

// Path is a path by which any process of the test's user can open the
// namespace: a valid netns value of a configuration.
func (n *NS) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.FD) }

// Name gives the namespace a name under /run/netns, visible to this process and
// its children only, and returns it: a valid netns value of a configuration.
func (n *NS) Name() string {
	n.t.Helper()
	if n.name != "" {
		return n.name
	}
	name := fmt.Sprintf("ns%d", serial.Add(1))
	path := filepath.Join("/run/netns", name)
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		n.t.Fatalf("name namespace: %v", err)
	}
	if err := unix.Mount(n.Path(), path, "", unix.MS_BIND, ""); err != nil {
		n.t.Fatalf("name namespace: %v", err)
	}
	n.name = name
	return name
}

// Delete drops the test's references, which ends the namespace unless somebody
// else holds it. It is idempotent and runs at the end of the test by itself.
func (n *NS) Delete() {
	if n.name != "" {
		path := filepath.Join("/run/netns", n.name)
		_ = unix.Unmount(path, unix.MNT_DETACH)
		_ = os.Remove(path)
		n.name = ""
	}
	_ = n.Close()
}

// Do runs fn on a thread inside the namespace. fn may call t.Fatal only through
// its error.
func (n *NS) Do(fn func() error) {
	n.t.Helper()
	if err := n.Handle.Do(fn); err != nil {
		n.t.Fatal(err)
	}
}

// Run runs a program inside the namespace and returns what it wrote to both
// outputs. The test ends when it fails.
func (n *NS) Run(cmd ...string) string {
	n.t.Helper()
	out, err := n.Try(cmd...)
	if err != nil {
		n.t.Fatalf("%s: %v\n%s", strings.Join(cmd, " "), err, out)
	}
	return out
}

// Try is Run for a program that may fail.
func (n *NS) Try(cmd ...string) (out string, err error) {
	err = n.Handle.Do(func() (err error) {
		out, err = Try(cmd...)
		return err
	})
	return out, err
}

// Try runs a program where the caller is and returns what it wrote to both
// outputs. One that doesn't end is killed.
func Try(cmd ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, cmd[0], cmd[1:]...)
	c.WaitDelay = drain
	out, err := c.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("%s did not end within %v: %w", cmd[0], limit, err)
	}
	return string(out), err
}

// Command is a program for the caller to start that can't outlast the test or
// keep it waiting: it is killed when the test ends, or takes longer than two
// minutes.
func Command(t testing.TB, cmd ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, cmd[0], cmd[1:]...)
	c.WaitDelay = drain
	return c
}

// Start starts c inside the namespace. It is killed and waited for at the end
// of the test unless the test has waited for it.
func (n *NS) Start(c *exec.Cmd) {
	n.t.Helper()
	c.WaitDelay = drain
	if err := n.Handle.Do(c.Start); err != nil {
		n.t.Fatalf("start %s: %v", c.Path, err)
	}
	n.t.Cleanup(func() {
		if c.ProcessState == nil {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	})
}
