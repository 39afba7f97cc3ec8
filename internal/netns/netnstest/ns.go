package netnstest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns"
)

var serial atomic.Uint32

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
func (n *NS) Try(cmd ...string) (string, error) {
	var out bytes.Buffer
	err := n.Handle.Do(func() error {
		c := exec.Command(cmd[0], cmd[1:]...)
		c.Stdout, c.Stderr = &out, &out
		return c.Run()
	})
	return out.String(), err
}

// Start starts c inside the namespace. It is killed and waited for at the end
// of the test unless the test has waited for it.
func (n *NS) Start(c *exec.Cmd) {
	n.t.Helper()
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
