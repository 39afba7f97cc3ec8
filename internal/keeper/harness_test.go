package keeper_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"golang.org/x/sys/unix"
)

// patience bounds every wait for something that the keeper or a worker does.
const patience = 20 * time.Second

const (
	hubVar    = "KEEPER_TEST_HUB"    // socket that a worker hands its descriptor to
	keeperVar = "KEEPER_TEST_KEEPER" // directory of a keeper that is a process of its own
)

// TestMain runs this binary as what its tests start it as: the worker is a real
// process, started by the keeper, that hands its end of the socket to the test.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "worker":
		os.Exit(workerMain())
	case os.Getenv(keeperVar) != "":
		os.Exit(keeperMain(os.Getenv(keeperVar)))
	}
	os.Exit(netnstest.Main(m))
}

// workerMain sends its descriptor and waits until the test lets it go.
func workerMain() int {
	exe, _ := os.Executable()
	if filepath.Base(exe) == "dies" {
		return 3
	}
	c, err := net.Dial("unix", os.Getenv(hubVar))
	if err != nil {
		return 4
	}
	pid := []byte(strconv.Itoa(os.Getpid()))
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix(pid, unix.UnixRights(keeper.WorkerFD), nil); err != nil {
		return 5
	}
	_ = unix.Close(keeper.WorkerFD)
	_, _ = io.Copy(io.Discard, c)
	return 0
}

func keeperMain(dir string) int {
	o := options(dir)
	o.Stdout = os.Stdout
	if err := keeper.Run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		var e *keeper.Error
		if errors.As(err, &e) {
			return e.ExitCode()
		}
		return 1
	}
	return 0
}

func options(dir string) keeper.Options {
	return keeper.Options{
		Socket: filepath.Join(dir, "run", "sub", "api.sock"), StateDir: filepath.Join(dir, "lib"),
		Binary:    filepath.Join(dir, "binary"),
		WorkerEnv: []string{hubVar + "=" + filepath.Join(dir, "hub")},
		Log:       slog.New(slog.DiscardHandler), Instance: "test",
		Devices: &ledger{dir: filepath.Join(dir, "ifs")},
	}
}

// worker is one started process and the test's hold on its end of the socket.
type worker struct {
	*keeper.Client
	keeper.Greeting
	pid  int
	line *net.UnixConn
	t    testing.TB
}

func (w *worker) kill() {
	w.t.Helper()
	if err := unix.Kill(w.pid, unix.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
	w.gone()
}

// gone waits until the keeper has let go of this worker.
func (w *worker) gone() {
	w.t.Helper()
	bounded(w.t, w.Gone())
}

// bounded is what comes out of a channel, which has to be soon.
func bounded[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waited %v in vain", patience)
	}
	return v
}

// exit lets the process end by itself.
func (w *worker) exit() { w.line.Close() }

// bed is one directory with a keeper in it.
type bed struct {
	t      testing.TB
	dir    string
	hub    *net.UnixListener
	opts   keeper.Options
	out    *buffer
	cancel context.CancelFunc
	result chan error
}

func newBed(t testing.TB) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "keeper") // short: it becomes part of a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "ifs"), 0o700); err != nil {
		t.Fatal(err)
	}
	hub, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "hub"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hub.Close() })
	b := &bed{t: t, dir: dir, hub: hub, opts: options(dir), out: new(buffer)}
	b.opts.Stdout, b.opts.Stderr = b.out, os.Stderr
	b.binary("works")
	return b
}

// binary makes the path of the next worker lead to this binary under a name
// that says how it behaves.
func (b *bed) binary(behaviour string) {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	target := filepath.Join(b.dir, behaviour)
	if behaviour == "absent" {
		os.Remove(b.opts.Binary)
		return
	}
	if err := os.Link(self, target); err != nil && !errors.Is(err, os.ErrExist) {
		copyFile(b.t, self, target)
	}
	os.Remove(b.opts.Binary)
	if err := os.Symlink(target, b.opts.Binary); err != nil {
		b.t.Fatal(err)
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// run starts a keeper and returns its first worker.
func (b *bed) run() *worker {
	b.t.Helper()
	b.start()
	return b.next()
}

// start starts a keeper inside the test's process.
func (b *bed) start() {
	ctx, cancel := context.WithCancel(context.Background())
	result, ended := make(chan error, 1), make(chan struct{})
	b.cancel, b.result = cancel, result
	go func() {
		defer close(ended)
		result <- keeper.Run(ctx, b.opts)
	}()
	b.t.Cleanup(func() {
		cancel()
		bounded(b.t, ended)
	})
}

// stop ends the keeper and returns what Run did.
func (b *bed) stop() error {
	b.cancel()
	return b.wait()
}

func (b *bed) wait() error {
	b.t.Helper()
	return bounded(b.t, b.result)
}

// next is the next worker that the keeper starts, after its greeting.
func (b *bed) next() *worker {
	b.t.Helper()
	w := b.accept()
	var err error
	if w.Greeting, err = w.Hello(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		w.Listener.Close()
		w.State.Close()
	})
	return w
}

func (b *bed) accept() *worker {
	b.t.Helper()
	type result struct {
		c   *net.UnixConn
		err error
	}
	got := make(chan result, 1)
	if err := b.hub.SetDeadline(time.Now().Add(patience)); err != nil {
		b.t.Fatal(err)
	}
	go func() {
		c, err := b.hub.AcceptUnix()
		got <- result{c, err}
	}()
	var r result
	select {
	case r = <-got:
	case err := <-b.result:
		b.result <- err
		b.t.Fatalf("keeper ended: %v", err)
	}
	if r.err != nil {
		b.t.Fatal(r.err)
	}
	if err := r.c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		b.t.Fatal(err)
	}
	pid, oob := make([]byte, 16), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := r.c.ReadMsgUnix(pid, oob)
	if err != nil {
		b.t.Fatal(err)
	}
	w := &worker{line: r.c, t: b.t}
	if w.pid, err = strconv.Atoi(string(pid[:n])); err != nil {
		b.t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		b.t.Fatalf("control messages %v, %v", msgs, err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		b.t.Fatal(err)
	}
	if w.Client, err = keeper.Connect(fds[0]); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		w.line.Close()
		w.Close()
		bounded(b.t, w.Gone())
	})
	return w
}

// interfaces lists what the ledger holds.
func (b *bed) interfaces() []string {
	return (&ledger{dir: filepath.Join(b.dir, "ifs")}).names()
}

// spawn starts a keeper as a process of its own.
func (b *bed) spawn() *exec.Cmd {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), keeperVar+"="+b.dir)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = b.out, b.out, 5*time.Second
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// ledger keeps a file for each port's interface. It stands for a machine on
// which the test has no privilege.
type ledger struct {
	dir string
	mu  sync.Mutex
}

func (l *ledger) names() []string {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		panic(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (l *ledger) Open(r keeper.PortRequest) (keeper.PortReply, int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r.Netns {
	case "gone":
		return keeper.PortReply{}, -1, fmt.Errorf("namespace gone: %w", os.ErrNotExist)
	case "full":
		return keeper.PortReply{}, -1, fmt.Errorf("open tap: %w", unix.EMFILE)
	case "forbidden":
		return keeper.PortReply{}, -1, fmt.Errorf("open tap: %w", unix.EPERM)
	}
	path := filepath.Join(l.dir, r.Name)
	_, err := os.Stat(path)
	p := keeper.PortReply{
		Name: r.Name, Kind: r.Kind, Device: r.Ifname + r.Device + r.Adopt, Ifindex: 7, MAC: r.MAC, MTU: r.MTU, Reattached: err == nil,
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return p, -1, err
	}
	fd, err := unix.MemfdCreate(r.Name, unix.MFD_CLOEXEC)
	return p, fd, err
}

func (l *ledger) Set(h keeper.Held, s keeper.SetRequest) (keeper.PortReply, error) {
	p := h.Reply
	if s.MTU == 666 {
		return p, errors.New("the kernel refuses")
	}
	if s.MTU != 0 {
		p.MTU = s.MTU
	}
	if !s.MAC.IsZero() {
		p.MAC = s.MAC
	}
	return p, nil
}

func (l *ledger) Remove(h keeper.Held) error {
	if h.Request.Name == "stuck" {
		return errors.New("the kernel refuses")
	}
	return os.Remove(filepath.Join(l.dir, h.Request.Name))
}

func (l *ledger) Lost(h keeper.Held) bool { return h.Request.Netns == "lost" }

func (l *ledger) Inside(*keeper.Held, func() error) error {
	return errors.New("a file has no namespace")
}

func (l *ledger) Sweep(keep func(string) bool) ([]string, error) {
	var gone []string
	for _, n := range l.names() {
		if !keep(n) {
			gone = append(gone, n)
			os.Remove(filepath.Join(l.dir, n))
		}
	}
	return gone, nil
}

// buffer may be written and read from several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// inode tells one open file from another; it closes fd.
func inode(t testing.TB, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	return st.Ino
}

func tap(name string) keeper.PortRequest {
	return keeper.PortRequest{Name: name, Kind: keeper.KindTap, Netns: name, Ifname: "eth0", MTU: 1450}
}

func code(err error) keeper.Code {
	var e *keeper.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
