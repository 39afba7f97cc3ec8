package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options says where a switch lives and how its worker is started.
type Options struct {
	Socket   string // path of the API's unix socket
	StateDir string // directory of the state file; made when it isn't there
	// Binary is the path that an upgrade starts the next worker from; empty =
	// where this process was started from. Until the first upgrade the worker
	// runs the very file that this process runs, whatever happens to the path.
	Binary     string
	WorkerArgs []string  // behind the program's name; nil = "worker"
	WorkerEnv  []string  // added to this process's environment
	Instance   string    // names us in the mark of our interfaces; empty = derived from StateDir
	Stdout     io.Writer // takes the line "ready"; nil = os.Stdout
	Stderr     io.Writer // takes what the worker prints; nil = os.Stderr
	Log        *slog.Logger
	Devices    Devices // nil = the machine's own
	// Patience is how long a worker may take to stop, to come to standby and to
	// quiesce, before it is killed; 0 = 10 s.
	Patience time.Duration
	// Silence is how long a worker that doesn't forward yet may ask for nothing
	// before it counts as hung and is ended; 0 = 15 s.
	Silence time.Duration
}

// Devices is what the keeper does to interfaces. It is called from one
// goroutine, with requests that have passed validation.
type Devices interface {
	// Open makes the interfaces of r, or finds again those that bear its mark,
	// and returns the non-blocking, close-on-exec descriptor of its frames,
	// which is the caller's. After an error nothing is there that wasn't before.
	Open(r PortRequest) (PortReply, int, error)
	// Set changes a held port.
	Set(h Held, s SetRequest) (PortReply, error)
	// Remove takes away what Open made and puts back what it changed; what has
	// gone already is no error. The caller closes h.FD afterwards. Several
	// goroutines may remove different ports at the same time.
	Remove(h Held) error
	// Lost reports whether the namespace of h can't be found any more by what
	// the request calls it, or another one is called so now.
	Lost(h Held) bool
	// Inside runs do on a thread in the namespace that the interface of h is in,
	// for nil in the daemon's own, and returns its error.
	Inside(h *Held, do func() error) error
	// Sweep removes the interfaces in the daemon's namespace that bear our mark
	// and the name of a port that keep refuses, and returns their names.
	Sweep(keep func(port string) bool) ([]string, error)
}

// keeper is owned by the goroutine of loop; the others only post to it.
type keeper struct {
	opts    Options
	log     *slog.Logger
	dev     Devices
	site    *site
	exe     int // the file that workers are started from
	fdb     memory
	udp     []udpSocket
	passing []int // descriptors that the keeper closes once they are sent
	held    map[string]*Held
	reserve reserve
	events  chan func()
	ended   chan struct{} // closed when nobody takes events any more

	generation uint64
	alive      map[*worker]bool
	cur        *worker  // the one that forwards; nil between two
	upgrade    *upgrade // under way
	crashes    int      // workers in a row that ended before they had settled
	ready      bool     // said once, for good
	stopping   bool
	why        error // of an abort
}

// Run is the keeper. It returns nil after SIGTERM, SIGINT, SIGHUP or the end of
// ctx, when every interface, rule, socket and file that it made is removed. An
// *Error tells its exit code: CodeConflict when the socket or the state
// directory is another daemon's, and whatever a worker has given to Abort.
func Run(ctx context.Context, o Options) error {
	// A closed stdout or stderr must not end the process that holds every port.
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer cancel()
	k, err := open(o)
	if err != nil {
		return err
	}
	// A worker gets SIGKILL when the thread that has started it ends, so that
	// thread has to live as long as the keeper does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = k.loop(ctx)
	close(k.ended)
	return errors.Join(err, k.cleanUp())
}

func open(o Options) (*keeper, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	raiseFileLimit(o.Log)
	s, err := claim(o.Socket, o.StateDir)
	if errors.Is(err, os.ErrPermission) {
		return nil, &Error{Code: CodeNotPermitted, Msg: err.Error(), Hint: "run it as root, or name folders of your own with --socket and --state"}
	}
	if err != nil {
		return nil, err
	}
	if o.Devices == nil {
		o.Devices = machine{instance: o.Instance}
	}
	exe, err := openExecutable("/proc/self/exe")
	if err != nil {
		return nil, errors.Join(err, s.release(false))
	}
	k := &keeper{
		opts: o, log: o.Log, dev: o.Devices, site: s, exe: exe, fdb: noMemory,
		held: make(map[string]*Held), alive: make(map[*worker]bool),
		events: make(chan func()), ended: make(chan struct{}),
	}
	k.reserve.fill(exe)
	return k, nil
}

func (o *Options) complete() error {
	var err error
	if o.Binary == "" {
		if o.Binary, err = os.Executable(); err != nil {
			return fmt.Errorf("find own binary: %w", err)
		}
	}
	if o.WorkerArgs == nil {
		o.WorkerArgs = []string{"worker"}
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	if o.Silence == 0 {
		o.Silence = 15 * time.Second
	}
	if o.Instance == "" {
		o.Instance = instanceOf(o.StateDir)
	}
	if !nameOK(o.Instance) {
		return invalid("instance %q: want the pattern %s", o.Instance, namePattern)
	}
	return nil
}

// raiseFileLimit allows as many descriptors as the hard limit does. Setting it
// by package syscall makes the workers inherit it.
func raiseFileLimit(log *slog.Logger) {
	var l syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	if err == nil {
		l.Cur = l.Max
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	}
	if err != nil {
		log.Warn("limit of open files stays as it is", "err", err)
	}
}

// loop runs until the keeper is to stop and its last worker has ended.
func (k *keeper) loop(ctx context.Context) error {
	w, err := k.start(k.exe, false)
	if err != nil {
		return err
	}
	k.cur = w
	done := ctx.Done()
	for !k.stopping || len(k.alive) > 0 {
		select {
		case <-done:
			done = nil
			k.stop()
		case f := <-k.events:
			f()
		}
	}
	return k.why
}

// post has f run by the loop, after what was posted before it by the same
// goroutine.
func (k *keeper) post(f func()) {
	select {
	case k.events <- f:
	case <-k.ended:
	}
}

// after has f run by the loop when d has passed.
func (k *keeper) after(d time.Duration, f func()) {
	time.AfterFunc(d, func() { k.post(f) })
}

// stop asks every worker to end and sees to it that they do.
func (k *keeper) stop() {
	if k.stopping {
		return
	}
	k.stopping = true
	k.log.Info("stopping")
	if err := notify("STOPPING=1"); err != nil {
		k.log.Warn("notify service manager", "err", err)
	}
	for w := range k.alive {
		k.answer(w, reply{Stop: true})
	}
	k.after(k.opts.Patience, func() {
		for w := range k.alive {
			k.log.Warn("worker doesn't stop, killing it", "generation", w.generation)
			w.kill()
		}
	})
}

// cleanUp removes what this keeper has made. A switch that never came to
// forward leaves the state file, and the interfaces that it hasn't opened, to
// the next attempt.
func (k *keeper) cleanUp() error {
	defer k.reserve.giveUp()
	errs := k.removeAll()
	if k.ready {
		if _, err := k.dev.Sweep(func(string) bool { return false }); err != nil {
			errs = append(errs, fmt.Errorf("remove leftover interfaces: %w", err))
		}
	}
	if k.upgrade != nil {
		k.upgrade.close()
	}
	k.fdb.close()
	k.keepUDP(nil)
	closeAll([]int{k.exe})
	errs = append(errs, k.site.release(k.ready))
	return errors.Join(errs...)
}

// removers is how many ports removeAll removes at once: the kernel lets each
// deletion of an interface wait for some 20 ms, and all of them together.
const removers = 32

// removeAll removes every held port.
func (k *keeper) removeAll() []error {
	k.reserve.giveUp()
	names := slices.Sorted(maps.Keys(k.held))
	errs := make([]error, len(names))
	var work sync.WaitGroup
	next := make(chan int)
	for range min(removers, len(names)) {
		work.Go(func() {
			for i := range next {
				errs[i] = k.dev.Remove(*k.held[names[i]])
			}
		})
	}
	for i := range names {
		next <- i
	}
	close(next)
	work.Wait()
	for i, name := range names {
		if errs[i] == nil {
			k.drop(name)
			k.log.Info("port removed", "port", name)
		}
	}
	for i, name := range names {
		if errs[i] != nil {
			errs[i] = k.remove(name) // alone it needs fewer descriptors than with others
		}
	}
	return errs
}

// answer sends r to w. A worker that doesn't take its answers is killed, so
// that it can't hold up the keeper.
func (k *keeper) answer(w *worker, r reply, fds ...int) {
	err := w.conn.SetWriteDeadline(time.Now().Add(k.opts.Patience))
	if err == nil {
		err = send(w.conn, r, fds...)
	}
	if errors.Is(err, errTooLong) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ETOOMANYREFS) {
		err = send(w.conn, reply{ID: r.ID, Error: toError(err)})
	}
	if err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, net.ErrClosed) {
		k.log.Error("worker takes no answer, killing it", "generation", w.generation, "err", err)
		w.kill()
	}
}
