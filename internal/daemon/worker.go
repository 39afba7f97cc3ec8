package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/journal"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/tracer"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/inject"
	"github.com/tapestry-net/tapestry/tunnel"
)

// WorkerOptions are what the keeper hands to the worker on its command line.
type WorkerOptions struct {
	ConfigFile string // read only when there is no saved state
	Version    string
	Log        *slog.Logger
}

// Worker is the unprivileged half: it gives up every capability, takes over what
// the keeper holds, forwards, and answers the API. It returns nil when the
// keeper asked it to end or has ended, or when another worker has taken over.
func Worker(o WorkerOptions) error {
	if err := keeper.Confine(); err != nil {
		return err
	}
	k, err := keeper.Connect(keeper.WorkerFD)
	if err != nil {
		return err
	}
	defer k.Close()
	g, err := k.Hello()
	if err != nil {
		return err
	}
	var handed []byte
	if g.Takeover {
		fd, err := k.Standby(maxHanded)
		if err != nil {
			return err
		}
		if handed, err = takeHanded(fd); err != nil {
			o.Log.Warn("encrypted links get new keys", "err", err)
		}
	}
	d, err := start(k, g, o, handed)
	clear(handed)
	if err != nil {
		return abort(k, err)
	}
	defer d.close()
	return d.serve(g)
}

// abort tells the keeper that starting again would not help. The keeper says
// why; the error is what it was not told.
func abort(k *keeper.Client, err error) error {
	if errors.Is(err, keeper.ErrGone) {
		return err
	}
	e := &keeper.Error{Code: keeper.CodeFailed, Msg: err.Error()}
	var coded *api.Error
	if errors.As(err, &coded) {
		e.Hint = coded.Hint
		if coded.Code == 2 {
			e.Code = keeper.CodeInvalid
		}
	}
	if refused := k.Abort(e); refused != nil {
		return errors.Join(err, refused)
	}
	return nil
}

// start brings everything up to the moment when frames flow, encrypted links with
// what was handed over.
func start(k *keeper.Client, g keeper.Greeting, o WorkerOptions, handed []byte) (*Daemon, error) {
	st, saved, err := load(int(g.State.Fd()))
	if err != nil {
		return nil, err
	}
	cfg := &config.Config{}
	switch {
	case saved:
		cfg, err = config.Parse("saved state", []byte(st.Config))
	case o.ConfigFile != "":
		cfg, err = readConfig(o.ConfigFile)
	default:
		cfg, err = config.Parse("empty", nil)
	}
	if err != nil {
		return nil, err
	}
	if err := supported(cfg); err != nil {
		return nil, err
	}
	d, err := build(k, g, o, cfg)
	if err != nil {
		return nil, err
	}
	d.handed = handed
	err = d.adopt(cfg, st, saved)
	d.handed = nil
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// build makes the parts that exist once a worker: table, switch, events.
func build(k *keeper.Client, g keeper.Greeting, o WorkerOptions, cfg *config.Config) (*Daemon, error) {
	d := &Daemon{
		keeper: k, state: g.State, stateDir: g.StateDir, generation: g.Generation, version: o.Version,
		log: o.Log, hub: newHub(), started: time.Now(), ports: map[string]*port{}, cuts: map[frame.PortID]string{},
		storms: map[frame.PortID]*stormAt{}, peers: map[frame.PortID]toldPeer{}, links: map[string]toldLink{}, flapping: map[string]api.Flap{},
		lately: map[refusedBy]refusedLately{}, refused: map[refusedBy]uint64{},
		peerRefused: map[frame.PortID]tunnel.Drops{},
		down:        make(chan vswitch.Event, downDepth), healthQuit: make(chan struct{}), quit: make(chan struct{}),
	}
	if d.hostname, _ = os.Hostname(); d.hostname == "" {
		d.hostname = "localhost"
	}
	d.hub.journal = journal.Open(int(d.state.Fd()), func(err error) {
		d.log.Warn("what happens is kept in memory only", "err", err)
	})
	d.names.Store(&names{})
	var err error
	if d.notice, err = link.OpenNotice(); err != nil {
		d.log.Warn("changes of the underlay go unnoticed", "err", err)
	}
	d.tracer = tracer.New(traced{d}, k, o.Log)
	eff := cfg.Resolved(d.hostname, nil)
	if err := d.openTable(eff.FDBLimit); err != nil {
		return nil, err
	}
	sw, err := vswitch.New(vswitch.Options{FDB: d.table, Spin: duration(eff.Offload.Spin), Events: d.onSwitchEvent})
	if err != nil {
		return nil, err
	}
	d.sw = sw
	if d.inject, err = inject.New(); err != nil {
		d.close()
		return nil, err
	}
	d.frames = newFrameWatch(d.hub.publish, d.captureNames(nil))
	d.hub.onFrame = func(watched bool) {
		if watched {
			d.observe(d.frames.ring)
		} else {
			d.unobserve(d.frames.ring)
		}
	}
	d.work.Go(d.frames.run)
	return d, nil
}

// openTable maps the memory that outlives workers and opens the filtering
// database in it. Memory that is damaged is replaced: addresses are learned
// again within seconds, and a switch that doesn't start helps nobody.
func (d *Daemon) openTable(limit int) error {
	size := fdb.Size(limit)
	f, _, err := d.keeper.FDB(int64(size))
	if err != nil {
		return err
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map fdb memory: %w", err)
	}
	t, err := fdb.Open(mem, limit)
	if err != nil {
		d.log.Error("filtering database is damaged; starting with an empty one", "err", err)
		clear(mem)
		if t, err = fdb.Open(mem, limit); err != nil {
			return errors.Join(fmt.Errorf("open fdb: %w", err), unix.Munmap(mem))
		}
	}
	d.table, d.tableLimit = t, limit
	return nil
}

// serve answers the API until the keeper or an upgrade ends this worker.
func (d *Daemon) serve(g keeper.Greeting) error {
	server := api.NewServer(d, d.log)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(g.Listener) }()
	d.work.Go(d.watchHealth)
	if err := d.keeper.Ready(); err != nil {
		return err
	}
	debug.FreeOSMemory() // what starting took is not needed again
	d.log.Info("forwarding", "generation", d.generation, "pid", os.Getpid())
	d.tellWorker(g)
	var err error
	select {
	case <-d.keeper.Stop():
	case <-d.keeper.Gone():
		return keeper.ErrGone // nobody holds our descriptors: end at once
	case <-d.handedOver():
	case err = <-failed:
	}
	if e := d.sw.Stop(context.Background()); e != nil {
		err = errors.Join(err, e)
	}
	if e := server.Close(); e != nil {
		d.log.Warn("api requests were cut off", "err", e)
	}
	if d.upgraded.Load() {
		return errors.Join(err, d.quiesce())
	}
	return err
}

// handedOver closes when another worker stands by to take over.
func (d *Daemon) handedOver() <-chan struct{} { return d.quit }

// handOver lets serve return for a worker that stands by.
func (d *Daemon) handOver() {
	if d.upgraded.CompareAndSwap(false, true) {
		close(d.quit)
	}
}

// close releases what the process itself holds; interfaces are the keeper's. The
// table's memory stays mapped until the process ends: an answer that was cut off
// may still be reading it.
func (d *Daemon) close() {
	d.stopHealth.Do(func() { close(d.healthQuit) })
	if d.sw != nil {
		d.hub.unwatch()
		if err := d.sw.Close(); err != nil {
			d.log.Warn("close switch", "err", err)
		}
	}
	if d.inject != nil {
		_ = d.inject.Close() // nothing was written through it that could be lost
	}
	if d.vtep != nil {
		if err := d.vtep.Close(); err != nil {
			d.log.Warn("close tunnel", "err", err)
		}
	}
	if d.frames != nil {
		close(d.frames.quit)
	}
	d.tracer.Close()
	d.work.Wait()
	if d.notice != nil {
		_ = d.notice.Close() // it held nothing
	}
	d.hub.journal.Close()
}
