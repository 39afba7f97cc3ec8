package keeper_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"golang.org/x/sys/unix"
)

func openDir(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestState(t *testing.T) {
	dir := t.TempDir()
	fd := openDir(t, dir)
	if _, err := keeper.LoadState(fd); !errors.Is(err, keeper.ErrNoState) {
		t.Errorf("got %v, want %v", err, keeper.ErrNoState)
	}
	for _, want := range []string{"first", "", strings.Repeat("x", 100_000), "last"} {
		if err := keeper.SaveState(fd, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := keeper.LoadState(fd); err != nil || string(got) != want {
			t.Errorf("got %d octets, %v, want the %d saved", len(got), err, len(want))
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "state")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", st.Mode(), err)
	}
}

// Whatever octet is changed or missing, the file is refused by name.
func TestStateDamaged(t *testing.T) {
	dir := t.TempDir()
	fd := openDir(t, dir)
	path := filepath.Join(dir, "state")
	if err := keeper.SaveState(fd, []byte("ports: {}\n")); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var e *keeper.DamagedError
		if _, err := keeper.LoadState(fd); !errors.As(err, &e) || e.Path != path || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want a refusal that names %s", what, err, path)
		}
	}
	for i := range whole {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			check("changed", b)
		}
		check("truncated", whole[:i])
	}
	check("longer", append(bytes.Clone(whole), 0))
}

func TestStateUnreadable(t *testing.T) {
	dir := t.TempDir()
	fd := openDir(t, dir)
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	if _, err := keeper.LoadState(fd); !errors.Is(err, unix.ELOOP) || !strings.Contains(err.Error(), filepath.Join(dir, "state")) {
		t.Errorf("got %v, want that a link isn't followed, and which", err)
	}
	if err := keeper.SaveState(-1, nil); err == nil {
		t.Error("want an error without a directory")
	}
}

// A directory that is full or read-only is named as the cause, and the old
// state stays.
func TestStateNoRoom(t *testing.T) {
	netnstest.Require(t, "root")
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	fd := openDir(t, dir)
	if err := keeper.SaveState(fd, []byte("old")); err != nil {
		t.Fatal(err)
	}
	kept := func(when string) {
		if got, err := keeper.LoadState(fd); err != nil || string(got) != "old" {
			t.Errorf("%s: got %q, %v, want the old state", when, got, err)
		}
	}
	err := keeper.SaveState(fd, make([]byte, 100_000))
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "full") {
		t.Errorf("got %v, want that the directory is full", err)
	}
	kept("full")
	if err := keeper.SaveState(fd, []byte("old")); err != nil {
		t.Errorf("got %v, want that the room was given back", err)
	}
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := keeper.SaveState(fd, []byte("new")); !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("got %v, want that the directory is read-only", err)
	}
	kept("read-only")
}

func FuzzState(f *testing.F) {
	f.Add([]byte("TAPSTATE"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "state"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		body, err := keeper.LoadState(fd)
		if err == nil && !bytes.HasSuffix(b, body) {
			t.Errorf("got a body that isn't in the file")
		}
	})
}
