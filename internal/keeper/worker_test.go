package keeper_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/keeper"
)

// A worker that is killed finds everything as it was: the FDB's memory with
// what it wrote, the ports by the same descriptors, the API's listener.
func TestWorkerKilled(t *testing.T) {
	b := newBed(t)
	w := b.run()
	if w.Generation != 1 || w.Takeover || w.Instance != "test" {
		t.Errorf("got %+v, want the first generation of instance test", w.Greeting)
	}
	mem, fresh, err := w.FDB(4096)
	if err != nil || !fresh {
		t.Fatalf("got fresh %v, %v, want fresh memory", fresh, err)
	}
	if _, err := mem.WriteAt([]byte("learned"), 100); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{0, 8192} {
		if err := mem.Truncate(size); !errors.Is(err, unix.EPERM) {
			t.Errorf("resize to %d: got %v, want EPERM", size, err)
		}
	}
	mem.Close()
	_, fd, err := w.Open(tap("c1"))
	if err != nil {
		t.Fatal(err)
	}
	first := inode(t, fd)
	if err := w.Ready(); err != nil {
		t.Fatal(err)
	}
	w.kill()

	w = b.next()
	if w.Generation != 2 || w.Takeover {
		t.Errorf("got %+v, want generation 2 and no takeover", w.Greeting)
	}
	mem, fresh, err = w.FDB(4096)
	if err != nil || fresh {
		t.Fatalf("got fresh %v, %v, want the held memory", fresh, err)
	}
	defer mem.Close()
	got := make([]byte, 7)
	if _, err := mem.ReadAt(got, 100); err != nil || string(got) != "learned" {
		t.Errorf("got %q, %v, want what the first worker wrote", got, err)
	}
	held, err := w.List()
	if err != nil || len(held) != 1 || inode(t, held[0].FD) != first {
		t.Fatalf("got %+v, %v, want c1 by its descriptor", held, err)
	}
	p, fd, err := w.Open(tap("c1"))
	if err != nil || !p.Reattached || inode(t, fd) != first {
		t.Errorf("got %+v, %v, want the held descriptor", p, err)
	}
	if err := w.Ready(); err != nil {
		t.Fatal(err)
	}
	if got := b.out.String(); got != "ready\n" {
		t.Errorf("got stdout %q, want ready once", got)
	}
	c, err := net.Dial("unix", b.opts.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if a, err := w.Listener.Accept(); err != nil {
		t.Error(err)
	} else {
		a.Close()
	}
}

func TestWorkerKilledOften(t *testing.T) {
	b := newBed(t)
	w := b.run()
	for i := range 4 { // the last two restarts wait
		w.kill()
		w = b.next()
		if want := uint64(i + 2); w.Generation != want {
			t.Fatalf("got generation %d, want %d", w.Generation, want)
		}
	}
}

// A worker that ends its connection, or exits by itself, is replaced as well.
func TestWorkerEnds(t *testing.T) {
	b := newBed(t)
	w := b.run()
	w.Close()
	w = b.next()
	w.exit()
	w.gone()
	if w = b.next(); w.Generation != 3 {
		t.Errorf("got generation %d, want 3", w.Generation)
	}
	if err := w.Ready(); err != nil {
		t.Error(err)
	}
}

// A worker that neither comes to forward nor asks for anything is ended, with its
// goroutines in the log, and the next one is started.
func TestWorkerHangs(t *testing.T) {
	b := newBed(t)
	b.opts.Silence = 500 * time.Millisecond
	said := new(buffer)
	b.opts.Stderr = said
	w := b.run()
	w.gone()
	w = b.next()
	if w.Generation != 2 {
		t.Errorf("got %+v, want generation 2", w.Greeting)
	}
	if !strings.Contains(said.String(), "goroutine ") {
		t.Errorf("the first worker left %q", said)
	}
	if err := w.Ready(); err != nil {
		t.Fatal(err)
	}
	w.exit()
	w.gone()
	if w = b.next(); w.Generation != 3 { // it was ready: it ended by itself
		t.Errorf("got %+v, want generation 3", w.Greeting)
	}
}

func TestBackOff(t *testing.T) {
	var got []time.Duration
	for n := range 11 {
		got = append(got, keeper.BackOff(n))
	}
	const ms = time.Millisecond
	want := []time.Duration{0, 0, 0, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms, 5000 * ms}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
