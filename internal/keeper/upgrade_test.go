package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/keeper"
	"golang.org/x/sys/unix"
)

// asked is an upgrade that has been asked for.
func asked(ctx context.Context, w *worker) <-chan error {
	c := make(chan error, 1)
	go func() { c <- w.Upgrade(ctx) }()
	return c
}

func standby(w *worker) <-chan error {
	c := make(chan error, 1)
	go func() {
		fd, err := w.Standby(0)
		if err == nil && fd >= 0 {
			err = errors.New("something was handed over that nobody has asked for")
		}
		c <- err
	}()
	return c
}

func TestUpgrade(t *testing.T) {
	b := newBed(t)
	old := b.run()
	mem, _, err := old.FDB(4096)
	if err != nil {
		t.Fatal(err)
	}
	mem.Close()
	_, fd, err := old.Open(tap("c1"))
	if err != nil {
		t.Fatal(err)
	}
	first := inode(t, fd)
	b.binary("newer")
	done := asked(context.Background(), old)
	w := b.next()
	if !w.Takeover || w.Generation != 2 {
		t.Errorf("got %+v, want generation 2 that takes over", w.Greeting)
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", w.pid)); err != nil || filepath.Base(exe) != "newer" {
		t.Errorf("got %s, %v, want the binary on disk", exe, err)
	}
	refusedWhileTwo(t, old, w)
	if _, fd, err := w.Open(tap("c1")); err != nil || inode(t, fd) != first {
		t.Errorf("got %v, want the held port", err)
	}
	mem, fresh, err := w.FDB(8192) // of its own until it takes over
	if err != nil || !fresh {
		t.Errorf("got fresh %v, %v, want fresh memory", fresh, err)
	}
	mem.Close()
	over := standby(w)
	if err := bounded(t, done); err != nil {
		t.Fatal(err)
	}
	if err := w.RawSet(nil, nil, "standby"); code(err) != keeper.CodeConflict {
		t.Errorf("second standby: got %v, want a conflict", err)
	}
	if err := old.Quiesced(-1); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-over:
		t.Fatalf("standby ended with %v while the old worker ran", err)
	default:
	}
	old.exit()
	if err := bounded(t, over); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(old.pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("got %v, want that the old worker is gone", err)
	}
	if _, fd, err := w.Open(tap("c2")); err != nil {
		t.Error(err)
	} else {
		unix.Close(fd)
	}
	if mem, fresh, err = w.FDB(8192); err != nil || fresh {
		t.Errorf("got fresh %v, %v, want the memory taken along", fresh, err)
	}
	mem.Close()

	b.binary("dies") // a crash now runs what was upgraded to, not what lies there
	w.kill()
	w = b.next()
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", w.pid)); err != nil || filepath.Base(exe) != "newer" {
		t.Errorf("got %s, %v, want the upgraded binary", exe, err)
	}
}

// refusedWhileTwo checks that neither worker can pull the rug from under the
// other.
func refusedWhileTwo(t *testing.T, old, next *worker) {
	t.Helper()
	change := func(w *worker) map[string]error {
		_, _, open := w.Open(tap("c2"))
		_, set := w.Set(keeper.SetRequest{Name: "c1", MTU: 1400})
		_, sweep := w.Sweep(nil)
		return map[string]error{"open": open, "set": set, "sweep": sweep, "remove": w.Remove("c1")}
	}
	for op, err := range change(old) {
		if code(err) != keeper.CodeConflict {
			t.Errorf("%s by the old worker: got %v, want a conflict", op, err)
		}
	}
	for op, err := range change(next) {
		if code(err) != keeper.CodeConflict {
			t.Errorf("%s by the new worker: got %v, want a conflict", op, err)
		}
	}
	changed := tap("c1")
	changed.MTU = 1300
	_, _, open := next.Open(changed)
	for op, err := range map[string]error{
		"ready": next.Ready(), "quiesced": next.Quiesced(-1), "upgrade": next.Upgrade(context.Background()), "change": open,
		"second upgrade": old.Upgrade(context.Background()), "early quiesced": old.Quiesced(-1),
	} {
		if code(err) != keeper.CodeConflict {
			t.Errorf("%s: got %v, want a conflict", op, err)
		}
	}
}

func TestUpgradeGivenUp(t *testing.T) {
	for _, c := range []struct {
		name   string
		binary string
		next   func(w *worker, cancel func())
		want   string
	}{
		{"no binary", "absent", nil, "no such file"},
		{"dies at once", "dies", nil, "exit status 3"},
		{"dies later", "newer", func(w *worker, _ func()) { w.kill() }, "killed"},
		{"aborts", "newer", func(w *worker, _ func()) {
			_ = w.Abort(&keeper.Error{Code: keeper.CodeInvalid, Msg: "can't read the file"}) // killed meanwhile
		}, "can't read the file"},
		{"caller leaves", "newer", func(_ *worker, cancel func()) { cancel() }, "waits no longer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			old := b.run()
			b.binary(c.binary)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := asked(ctx, old)
			if c.next != nil {
				c.next(b.next(), cancel)
			}
			if err := bounded(t, done); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, fd, err := old.Open(tap("c1")); err != nil {
				t.Errorf("the running worker doesn't go on: %v", err)
			} else {
				unix.Close(fd)
			}
			b.binary("newer")
			done = asked(context.Background(), old)
			w := b.next()
			over := standby(w)
			if err := bounded(t, done); err != nil {
				t.Fatalf("second attempt: %v", err)
			}
			old.exit()
			if err := bounded(t, over); err != nil {
				t.Error(err)
			}
		})
	}
}

// A new worker that never stands by is given up after the keeper's patience,
// and an old one that never ends is killed after it.
func TestUpgradePatience(t *testing.T) {
	b := newBed(t)
	b.opts.Patience = 2 * time.Second
	old := b.run()
	done := asked(context.Background(), old)
	w := b.next()
	if err := bounded(t, done); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("got %v, want that it didn't come to standby", err)
	}
	w.gone()
	done = asked(context.Background(), old)
	over := standby(b.next())
	if err := bounded(t, done); err != nil {
		t.Fatal(err)
	}
	if err := bounded(t, over); err != nil {
		t.Error(err)
	}
	old.gone()
}

// Whichever worker dies in the middle of an upgrade, one runs in the end.
func TestUpgradeDeaths(t *testing.T) {
	t.Run("old one initialising", func(t *testing.T) {
		b := newBed(t)
		old := b.run()
		done := asked(context.Background(), old)
		w := b.next()
		old.kill()
		if err := bounded(t, done); !errors.Is(err, keeper.ErrGone) {
			t.Errorf("got %v, want %v", err, keeper.ErrGone)
		}
		w.gone()
		if w = b.next(); w.Takeover {
			t.Error("got a takeover, want a fresh worker")
		}
	})
	t.Run("new one standing by", func(t *testing.T) {
		b := newBed(t)
		old := b.run()
		done := asked(context.Background(), old)
		w := b.next()
		standby(w)
		if err := bounded(t, done); err != nil {
			t.Fatal(err)
		}
		w.kill()
		old.exit()
		if w = b.next(); w.Takeover {
			t.Error("got a takeover, want a fresh worker")
		}
		if _, err := w.Standby(0); err != nil {
			t.Errorf("got %v, want that there is nobody to wait for", err)
		}
	})
	t.Run("stopped meanwhile", func(t *testing.T) {
		b := newBed(t)
		old := b.run()
		asked(context.Background(), old)
		w := b.next()
		b.cancel()
		bounded(t, old.Stop())
		bounded(t, w.Stop())
		old.exit()
		w.exit()
		if err := b.wait(); err != nil {
			t.Error(err)
		}
	})
}
