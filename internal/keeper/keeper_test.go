package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/switch/frame"
)

func TestPorts(t *testing.T) {
	b := newBed(t)
	w := b.run()
	_, fd, err := w.Open(tap("c1"))
	if err != nil {
		t.Fatal(err)
	}
	first := inode(t, fd)

	t.Run("derived address", func(t *testing.T) {
		p, fd, err := w.Open(tap("c2"))
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		if p.MAC.IsZero() || p.MAC.IsGroup() || p.MAC[0]&2 == 0 {
			t.Errorf("got %s, want a locally administered station address", p.MAC)
		}
	})
	t.Run("changed settings", func(t *testing.T) {
		r := tap("c1")
		r.MTU, r.MAC = 1400, frame.MustParseMAC("02:00:00:00:00:01")
		r.Addresses = []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24")}
		p, fd, err := w.Open(r)
		if err != nil || p.MTU != 1400 || p.MAC != r.MAC || inode(t, fd) != first {
			t.Errorf("got %+v, %v, want the held port with its new settings", p, err)
		}
		p, err = w.Set(keeper.SetRequest{Name: "c1", MTU: 1300})
		if err != nil || p.MTU != 1300 {
			t.Errorf("got %+v, %v, want MTU 1300", p, err)
		}
		if _, err := w.Set(keeper.SetRequest{Name: "c1", MTU: 666}); code(err) != keeper.CodeFailed {
			t.Errorf("got %v, want what the kernel says", err)
		}
	})
	t.Run("other interface", func(t *testing.T) {
		r := tap("c1")
		r.Ifname = "eth1"
		if _, _, err := w.Open(r); code(err) != keeper.CodeConflict {
			t.Errorf("got %v, want a conflict", err)
		}
	})
	t.Run("reopened", func(t *testing.T) {
		r := tap("c1")
		r.Reopen = true
		p, fd, err := w.Open(r)
		if err != nil || p.Reattached || inode(t, fd) == first {
			t.Errorf("got %+v, %v, want a port made anew", p, err)
		}
	})
	t.Run("namespace lost", func(t *testing.T) {
		r := tap("c3")
		r.Netns = "lost"
		_, fd, err := w.Open(r)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		got, err := w.Lost()
		if d := cmp.Diff([]string{"c3"}, got); err != nil || d != "" {
			t.Errorf("%v %s", err, d)
		}
		if err := w.Remove("c3"); err != nil {
			t.Error(err)
		}
	})
	t.Run("one device twice", func(t *testing.T) {
		r := keeper.PortRequest{Name: "up", Kind: keeper.KindDevice, Device: "eth1"}
		_, fd, err := w.Open(r)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		r.Name = "up2"
		if _, _, err := w.Open(r); code(err) != keeper.CodeConflict || !strings.Contains(err.Error(), "port up") {
			t.Errorf("got %v, want a conflict that names the owner", err)
		}
		if _, err := w.Set(keeper.SetRequest{Name: "up", MTU: 1400}); code(err) != keeper.CodeInvalid {
			t.Errorf("got %v, want that a foreign interface stays as it is", err)
		}
	})
	t.Run("sweep", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(b.dir, "ifs", "old"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		keep := []string{"c1", "up"}
		for i := range 1200 { // takes several messages
			keep = append(keep, fmt.Sprintf("absent-%060d", i)[:63])
		}
		got, err := w.Sweep(keep)
		if d := cmp.Diff([]string{"eth0", "old"}, got); err != nil || d != "" {
			t.Errorf("%v %s", err, d)
		}
		if d := cmp.Diff([]string{"c1", "up"}, b.interfaces()); d != "" {
			t.Error(d)
		}
	})
	t.Run("remove", func(t *testing.T) {
		for range 2 {
			if err := w.Remove("c1"); err != nil {
				t.Error(err)
			}
		}
		if d := cmp.Diff([]string{"up"}, b.interfaces()); d != "" {
			t.Error(d)
		}
	})
	t.Run("refused", func(t *testing.T) {
		for netns, want := range map[string]keeper.Code{
			"gone": keeper.CodeNotFound, "full": keeper.CodeFailed, "forbidden": keeper.CodeNotPermitted,
		} {
			r := tap("c9")
			r.Netns = netns
			if _, _, err := w.Open(r); code(err) != want {
				t.Errorf("%s: got %v, want %s", netns, err, want)
			}
		}
		if _, err := w.Set(keeper.SetRequest{Name: "c9", MTU: 1400}); code(err) != keeper.CodeNotFound {
			t.Errorf("got %v, want %s", err, keeper.CodeNotFound)
		}
		if _, _, err := w.FDB(1 << 40); code(err) != keeper.CodeInvalid {
			t.Errorf("got %v, want %s", err, keeper.CodeInvalid)
		}
	})
}

// More ports than one message carries come back whole and in order.
func TestListMany(t *testing.T) {
	b := newBed(t)
	w := b.run()
	var want []string
	for i := range 150 {
		r := tap(fmt.Sprintf("c%03d", i))
		for j := range 60 {
			r.Addresses = append(r.Addresses, netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 7: 1, 15: byte(j + 1)}), 64))
		}
		_, fd, err := w.Open(r)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		want = append(want, r.Name)
	}
	held, err := w.List()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	seen := map[uint64]bool{}
	for _, h := range held {
		got = append(got, h.Request.Name)
		seen[inode(t, h.FD)] = true
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(seen) != len(want) {
		t.Errorf("got %d descriptors, want %d", len(seen), len(want))
	}
}

func TestStop(t *testing.T) {
	b := newBed(t)
	w := b.run()
	_, fd, err := w.Open(tap("c1"))
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if err := keeper.SaveState(int(w.State.Fd()), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(b.opts.Socket); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("got %v, %v, want mode 0660", st, err)
	}
	if err := w.Ready(); err != nil {
		t.Fatal(err)
	}
	b.cancel()
	bounded(t, w.Stop())
	if d := cmp.Diff([]string{"c1"}, b.interfaces()); d != "" {
		t.Errorf("something was removed before the worker had ended: %s", d)
	}
	w.exit()
	if err := b.wait(); err != nil {
		t.Error(err)
	}
	if got := b.interfaces(); len(got) > 0 {
		t.Errorf("got interfaces %v left, want none", got)
	}
	for _, p := range []string{"run", "lib"} {
		if _, err := os.Stat(filepath.Join(b.dir, p)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %s left, %v, want nothing", p, err)
		}
	}
}

// A worker that doesn't stop is killed, and what can't be removed is named.
func TestStopStuck(t *testing.T) {
	b := newBed(t)
	b.opts.Patience = time.Millisecond
	w := b.run()
	_, fd, err := w.Open(tap("stuck"))
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if err := b.stop(); err == nil || !strings.Contains(err.Error(), "remove port stuck") {
		t.Errorf("got %v, want an error that names the port", err)
	}
}

func TestAbort(t *testing.T) {
	b := newBed(t)
	w := b.run()
	if err := keeper.SaveState(int(w.State.Fd()), []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(nil); code(err) != keeper.CodeInvalid {
		t.Errorf("got %v, want %s", err, keeper.CodeInvalid)
	}
	if err := w.Abort(&keeper.Error{Code: keeper.CodeInvalid, Msg: "bad file", Hint: "mend it"}); err != nil {
		t.Fatal(err)
	}
	w.exit()
	var e *keeper.Error
	if err := b.wait(); !errors.As(err, &e) || e.ExitCode() != 2 || e.Hint != "mend it" {
		t.Fatalf("got %v, want the worker's reason", err)
	}
	w = b.run()
	if got, err := keeper.LoadState(int(w.State.Fd())); err != nil || string(got) != "kept" {
		t.Errorf("got %q, %v, want the state as it was saved", got, err)
	}
	if err := w.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(&keeper.Error{Msg: "no"}); code(err) != keeper.CodeConflict {
		t.Errorf("got %v, want a refusal after Ready", err)
	}
}

func TestTwoDaemons(t *testing.T) {
	b := newBed(t)
	b.run()
	me := fmt.Sprintf("pid %d", os.Getpid())
	for _, c := range []struct {
		name string
		opts func(o *keeper.Options)
	}{
		{"state directory", func(o *keeper.Options) { o.Socket += "2" }},
		{"api socket", func(o *keeper.Options) { o.StateDir += "2" }},
		{"api socket", func(o *keeper.Options) { o.StateDir += "2"; os.Remove(o.Socket + ".lock") }},
	} {
		o := b.opts
		c.opts(&o)
		err := keeper.Run(context.Background(), o)
		var e *keeper.Error
		if !errors.As(err, &e) || e.ExitCode() != 6 || !strings.Contains(e.Msg, me) || !strings.HasPrefix(e.Msg, c.name) {
			t.Errorf("%s: got %v, want a conflict that names %s", c.name, err, me)
		}
	}
}

func TestBadPlaces(t *testing.T) {
	b := newBed(t)
	file := filepath.Join(b.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		opts func(o *keeper.Options)
		code keeper.Code
	}{
		{"socket is a file", func(o *keeper.Options) { o.Socket = file }, keeper.CodeConflict},
		{"socket path too long", func(o *keeper.Options) { o.Socket = filepath.Join(b.dir, strings.Repeat("x", 120)) }, keeper.CodeInvalid},
		{"socket below a file", func(o *keeper.Options) { o.Socket = file + "/s" }, ""},
		{"state below a file", func(o *keeper.Options) { o.StateDir = file + "/s" }, ""},
		{"state is a file", func(o *keeper.Options) { o.StateDir = file }, ""},
		{"instance", func(o *keeper.Options) { o.Instance = "a:b" }, keeper.CodeInvalid},
	} {
		o := b.opts
		c.opts(&o)
		if err := keeper.Run(context.Background(), o); err == nil || code(err) != c.code {
			t.Errorf("%s: got %v, want code %q", c.name, err, c.code)
		}
	}
}

// The keeper as its own process: SIGTERM leaves nothing, SIGKILL takes the
// worker along and leaves what the next one finds again.
func TestSignals(t *testing.T) {
	b := newBed(t)
	k := b.spawn()
	w := b.next()
	if _, fd, err := w.Open(tap("c1")); err != nil {
		t.Fatal(err)
	} else {
		unix.Close(fd)
	}
	if err := w.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := k.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := k.Wait(); err == nil {
		t.Error("want that the keeper was killed")
	}
	w.gone()
	if _, err := w.line.Read(make([]byte, 1)); err == nil {
		t.Error("want that the worker's end closes the line")
	}
	if err := w.Ready(); !errors.Is(err, keeper.ErrGone) {
		t.Errorf("got %v, want %v", err, keeper.ErrGone)
	}

	k = b.spawn() // finds a stale socket and stale locks
	w = b.next()
	p, fd, err := w.Open(tap("c1"))
	if err != nil || !p.Reattached {
		t.Fatalf("got %+v, %v, want the interface found again", p, err)
	}
	unix.Close(fd)
	if err := w.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := k.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	bounded(t, w.Stop())
	w.exit()
	if err := k.Wait(); err != nil {
		t.Errorf("got %v, want exit status 0; %s", err, b.out)
	}
	if got := b.interfaces(); len(got) > 0 {
		t.Errorf("got interfaces %v left, want none", got)
	}
	if got := b.out.String(); got != "ready\nready\n" {
		t.Errorf("got stdout %q, want one ready a run", got)
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	b := newBed(t)
	w := b.run()
	if err := w.Ready(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 64)
	n, err := l.Read(got)
	if err != nil || string(got[:n]) != "READY=1" {
		t.Errorf("got %q, %v, want READY=1", got[:n], err)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", w.pid))
	if err != nil || slices.ContainsFunc(strings.Split(string(env), "\x00"), func(s string) bool { return strings.HasPrefix(s, "NOTIFY_") }) {
		t.Errorf("the worker could answer for the keeper: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", path+"-absent")
	if err := keeper.Notify("READY=1"); err == nil {
		t.Error("want an error for a socket that isn't there")
	}
}
