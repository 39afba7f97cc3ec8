package keeper_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/keeper"
	"golang.org/x/sys/unix"
)

// secret is what a worker hands over in these tests, as sealed as it has to be.
func secret(t *testing.T, name string, seals int) int {
	t.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return fd
}

const allSeals = unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL

// copies is how many descriptors of that memory this process has, and so the
// keeper, which is a part of it.
func copies(t *testing.T, name string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "/memfd:"+name+" ") {
			n++
		}
	}
	return n
}

// none waits until this process has no descriptor of that memory.
func none(t *testing.T, name string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); copies(t, name) != 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors of %s are left", copies(t, name), name)
		}
	}
}

// handing is an upgrade at the point where the old worker is to hand over and the
// new one waits for it.
func handing(t *testing.T, most int64) (b *bed, old, next *worker, taken <-chan int) {
	t.Helper()
	b = newBed(t)
	old = b.run()
	done := asked(context.Background(), old)
	next = b.next()
	got := make(chan int, 1)
	go func() {
		fd, err := next.Standby(most)
		if err != nil {
			fd = -2
		}
		got <- fd
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return b, old, next, got
}

// TestHandOver gives the next worker what the one before has handed over, after
// that has ended, and keeps nothing.
func TestHandOver(t *testing.T) {
	const name = "test-handed"
	_, old, _, taken := handing(t, 6)
	fd := secret(t, name, allSeals)
	if err := old.Quiesced(fd); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	select {
	case <-taken:
		t.Fatal("the new worker has it while the old one runs")
	default:
	}
	old.exit()
	fd = <-taken
	if b := make([]byte, 10); fd < 0 {
		t.Fatalf("got descriptor %d", fd)
	} else if n, err := unix.Pread(fd, b, 0); err != nil || string(b[:n]) != "secret" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %x, %v: an executed program would have it", flags, err)
	}
	unix.Close(fd)
	none(t, name)
}

// TestHandOverRefused hands over what is no sealed memory, too much, or at the wrong
// time: nothing comes, nothing is kept, and the upgrade goes on.
func TestHandOverRefused(t *testing.T) {
	for name, c := range map[string]struct {
		most int64
		fd   func(t *testing.T, name string) int
	}{
		"not sealed": {6, func(t *testing.T, name string) int { return secret(t, name, unix.F_SEAL_GROW) }},
		"too long":   {5, func(t *testing.T, name string) int { return secret(t, name, allSeals) }},
		"not wanted": {0, func(t *testing.T, name string) int { return secret(t, name, allSeals) }},
		"a pipe": {1 << 20, func(t *testing.T, _ string) int {
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			unix.Close(p[1])
			return p[0]
		}},
		"nothing": {6, func(*testing.T, string) int { return -1 }},
	} {
		t.Run(name, func(t *testing.T) {
			mem := "test-" + strings.ReplaceAll(name, " ", "-")
			_, old, _, taken := handing(t, c.most)
			fd := c.fd(t, mem)
			if err := old.Quiesced(fd); err != nil {
				t.Fatal(err)
			}
			if fd >= 0 {
				unix.Close(fd)
			}
			old.exit()
			if got := <-taken; got != -1 {
				t.Errorf("got descriptor %d, want none", got)
			}
			none(t, mem)
		})
	}
}

// TestHandOverDeaths ends a worker at each step: what was handed over goes to
// nobody else.
func TestHandOverDeaths(t *testing.T) {
	fresh := func(t *testing.T, b *bed) {
		t.Helper()
		w := b.next()
		if w.Takeover {
			t.Error("got a takeover, want a fresh worker")
		}
		if fd, err := w.Standby(1 << 20); err != nil || fd != -1 {
			t.Errorf("a fresh worker got descriptor %d, %v", fd, err)
		}
	}
	hand := func(t *testing.T, w *worker, name string) {
		t.Helper()
		fd := secret(t, name, allSeals)
		defer unix.Close(fd)
		if err := w.Quiesced(fd); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("old one before", func(t *testing.T) {
		_, old, _, taken := handing(t, 6)
		old.kill()
		if got := <-taken; got != -1 {
			t.Errorf("got descriptor %d, want none", got)
		}
	})
	t.Run("new one before", func(t *testing.T) {
		b, old, next, _ := handing(t, 6)
		next.kill()
		fd := secret(t, "test-before", allSeals)
		if err := old.Quiesced(fd); err != nil && code(err) != keeper.CodeConflict {
			t.Errorf("got %v, want a conflict, or that it came first", err)
		}
		unix.Close(fd)
		none(t, "test-before")
		old.exit()
		fresh(t, b)
	})
	t.Run("new one between", func(t *testing.T) {
		b, old, next, _ := handing(t, 6)
		hand(t, old, "test-between")
		next.kill()
		none(t, "test-between")
		old.exit()
		fresh(t, b)
	})
	t.Run("new one behind", func(t *testing.T) {
		b, old, next, taken := handing(t, 6)
		hand(t, old, "test-behind")
		old.exit()
		unix.Close(<-taken)
		next.kill()
		none(t, "test-behind")
		fresh(t, b)
	})
	t.Run("stopped", func(t *testing.T) {
		b, old, next, _ := handing(t, 6)
		hand(t, old, "test-stopped")
		b.cancel()
		<-next.Stop()
		old.exit()
		next.exit()
		if err := b.wait(); err != nil {
			t.Error(err)
		}
		none(t, "test-stopped")
	})
}

// TestStrayDescriptors sends descriptors beside requests that take none: they are
// closed, and the request is answered as ever.
func TestStrayDescriptors(t *testing.T) {
	b := newBed(t)
	w := b.run()
	const name = "test-stray"
	fd := secret(t, name, allSeals)
	for i, n := range []int{1, 2, 5} {
		fds := make([]int, n)
		for j := range fds {
			fds[j] = fd
		}
		for _, op := range []string{"ready", "quiesced", "nonsense"} {
			if err := w.RawWith([]byte(fmt.Sprintf(`{"id":%d,"op":%q}`, 1000+i, op)), fds...); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Quiesced(fd); code(err) != keeper.CodeConflict {
		t.Errorf("without an upgrade: got %v, want a conflict", err)
	}
	unix.Close(fd)
	none(t, name)
	if err := w.Ready(); err != nil {
		t.Error(err)
	}
}
