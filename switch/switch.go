package vswitch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// ErrClosed is returned by every call that comes after Close.
var ErrClosed = errors.New("switch is closed")

// Options are fixed for the life of a switch.
type Options struct {
	// FDB is the filtering database. The caller keeps it, and closes it after
	// the switch.
	FDB *fdb.Table
	// Loops is how many forwarding loops run; 0 chooses one on fewer than four
	// cores, otherwise one for every two.
	Loops int
	// Spin is how long a loop polls, giving way to others, before it sleeps; 0
	// sleeps at once.
	Spin time.Duration
	// Events is told what happened, one event at a time, by a goroutine of the
	// switch and never by a loop; nil for none. What it cannot take in time is
	// counted in Stats.EventsLost.
	Events func(Event)
	// Now is the clock, read once a wake-up; nil for time.Now.
	Now func() time.Time
}

// Switch is a running switch. Its methods may be called from any goroutine,
// except from Options.Events and from observers, which must not call Apply,
// Stop, Resume, Unobserve or Close.
type Switch struct {
	fdb     *fdb.Table
	spin    time.Duration
	clock   clock
	view    atomic.Pointer[view]
	watcher atomic.Pointer[watch]
	loops   []*loop
	guard   *guard
	events  chan Event
	lost    atomic.Uint64
	rounds  atomic.Int32 // looks for silent stations in a full round of the table

	quit    chan struct{}  // ends the goroutines that are no loop
	workers sync.WaitGroup // all goroutines

	// mu serialises whoever gives orders to the loops.
	mu      sync.Mutex
	closed  bool
	stopped bool
}

// New starts a switch without networks and ports.
func New(o Options) (*Switch, error) {
	if o.FDB == nil {
		return nil, errors.New("new switch: Options.FDB is nil")
	}
	n := o.Loops
	if n <= 0 {
		n = 1
		if cpus := runtime.NumCPU(); cpus >= 4 {
			n = cpus / 2
		}
	}
	clk, err := newClock(o.Now)
	if err != nil {
		return nil, fmt.Errorf("new switch: read clock: %w", err)
	}
	s := &Switch{
		fdb:    o.FDB,
		spin:   max(o.Spin, 0),
		clock:  clk,
		events: make(chan Event, eventQueue),
		quit:   make(chan struct{}),
	}
	s.guard = newGuard()
	s.rounds.Store(ageRounds)
	s.view.Store(&view{})
	for i := range n {
		l, err := newLoop(s, i)
		if err != nil {
			for _, l := range s.loops {
				l.release()
			}
			return nil, fmt.Errorf("new switch: %w", err)
		}
		s.loops = append(s.loops, l)
	}
	for _, l := range s.loops {
		s.workers.Go(l.run)
	}
	s.workers.Go(func() { s.tell(o.Events) })
	s.workers.Go(s.age)
	return s, nil
}

// Apply makes the switch be as spec says, all or nothing. A port of the former
// spec with the same ID and Queue goes on without losing a frame. When Apply
// returns, no loop touches a queue that only the former spec had, so that its
// owner may close it. An error names the network or port, and nothing changed.
func (s *Switch) Apply(spec Spec) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("apply: %w", ErrClosed)
	}
	old := s.view.Load()
	v, err := compile(spec, old, len(s.loops))
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	if err := s.poll(v, old); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	rounds := time.Duration(ageRounds)
	for _, n := range v.list {
		s.fdb.SetAgeing(n.vid, n.ageing)
		if n.ageing > 0 {
			rounds = max(1, min(rounds, n.ageing/8/ageEvery))
		}
	}
	s.rounds.Store(int32(rounds))
	for _, p := range v.ports {
		if p != nil {
			s.fdb.SetPortLimit(p.id, p.fdbLimit)
		}
	}
	s.view.Store(v)
	s.order(orderBarrier)
	s.forget(v, old)
	return nil
}

// poll moves the loops' epoll sets from the queues of old to those of v.
func (s *Switch) poll(v, old *view) error {
	var added []*port
	for _, p := range v.ports {
		if p == nil || p.queue == nil || p.line == old.lineOf(p.id) {
			continue
		}
		if err := s.loops[p.loop].watch(p); err != nil {
			for _, p := range added {
				s.loops[p.loop].unwatch(p)
			}
			return fmt.Errorf("port %s: poll its descriptor: %w", p.name, err)
		}
		added = append(added, p)
	}
	for _, p := range old.ports {
		if p != nil && p.queue != nil && p.line != v.lineOf(p.id) {
			s.loops[p.loop].unwatch(p)
		}
	}
	return nil
}

// forget removes the dynamic entries that v has no place for: those of ports
// that went, and of ports that left a network.
func (s *Switch) forget(v, old *view) {
	for _, p := range old.ports {
		if p == nil {
			continue
		}
		now := v.port(p.id)
		if now == nil {
			s.fdb.Flush(fdb.Filter{Port: p.id})
			s.fdb.SetPortLimit(p.id, 0)
			continue
		}
		for _, n := range old.list {
			_, was := p.carries(n.vid)
			if _, is := now.carries(n.vid); was && !is {
				s.fdb.Flush(fdb.Filter{Port: p.id, VID: n.vid})
			}
		}
	}
}

// Stop lets each loop finish its batch, so that everything read has been
// transmitted, and holds them there. Queues stay open, and what arrives waits
// in them. The loops stay held until Resume even when ctx ends first; the
// error is then that of ctx.
func (s *Switch) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("stop: %w", ErrClosed)
	}
	if s.stopped {
		return nil
	}
	s.stopped = true
	done := make(chan struct{})
	go func() { s.order(orderHold); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		<-done // a loop never blocks longer than one batch
		return fmt.Errorf("stop: %w", ctx.Err())
	}
}

// Resume lets loops held by Stop go on.
func (s *Switch) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("resume: %w", ErrClosed)
	}
	s.stopped = false
	s.order(orderRun)
	return nil
}

// Close ends the loops and every goroutine of the switch. It leaves the queues
// and the filtering database open, and is idempotent.
func (s *Switch) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.order(orderQuit)
	close(s.quit)
	s.workers.Wait()
	for _, l := range s.loops {
		l.release()
	}
	return nil
}

// clock tells wall time and time since the machine started, from one reading.
type clock struct {
	now   func() time.Time
	start time.Time
	boot  time.Duration // CLOCK_MONOTONIC at start
}

func newClock(now func() time.Time) (clock, error) {
	if now == nil {
		now = time.Now
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return clock{}, err
	}
	return clock{now: now, start: now(), boot: time.Duration(ts.Nano())}, nil
}

// read returns the time since the switch started and the wall clock.
func (c *clock) read() (time.Duration, time.Time) {
	t := c.now()
	return t.Sub(c.start), t
}

// tick converts what read returned to the filtering database's time.
func (c *clock) tick(d time.Duration) fdb.Tick { return fdb.TickAt(c.boot + d) }

const (
	// ageEvery is how often silent stations are looked for.
	ageEvery = 250 * time.Millisecond
	// ageRounds is how many of those looks a full round of the table takes at
	// most. It takes an eighth of the shortest ageing time if that is less, so an
	// entry stays at most that much, and never ten seconds, beyond its time.
	ageRounds = 40
	// ageSlice is how many places are swept under one lock, well below a
	// millisecond.
	ageSlice = 4096
)

// age takes silent stations out of the filtering database, and fences down when
// their time is over.
func (s *Switch) age() {
	t := time.NewTicker(ageEvery)
	defer t.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-t.C:
			now, wall := s.clock.read()
			if s.fdb.Len() > 0 {
				for range (s.fdb.Places()/int(s.rounds.Load()) + ageSlice) / ageSlice {
					s.fdb.Sweep(s.clock.tick(now), ageSlice)
				}
			}
			for _, id := range s.guard.open(now) {
				s.emit(Event{Time: wall, Kind: EventLoopOpened, Port: id})
			}
		}
	}
}

// PortStats returns the counters and the state of a port of the present spec.
func (s *Switch) PortStats(id frame.PortID) (PortStats, bool) {
	p := s.view.Load().port(id)
	if p == nil {
		return PortStats{}, false
	}
	c := p.count.sum()
	if p.line != nil && p.line.dead.Load() {
		c.Down = p.line.cause
	}
	c.Cut = p.state.fence.cut.Load()
	return c, true
}
