package vswitch

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	// arenaLen is a loop's receive memory: seven super-frames, or a full batch of
	// anything smaller, within half of a second-level cache of 1 MiB.
	arenaLen = 512 << 10
	// maxEvents is how many ports one poll names. More wait for the next.
	maxEvents = 64
	// emptyErrors and emptyReads are how many wake-ups in a row may bring nothing
	// from a port that polls as failed or readable, before it counts as gone.
	emptyErrors = 8
	emptyReads  = 4096
	// briefSpins is by how much the spin time grows while waits turn out to be
	// that short, as they are between a question and its answer. One that is
	// longer ends it.
	briefSpins = 5
	// hearingLoop polls all receivers: their frames may be of one port, and what
	// is remembered of a port has one writer.
	hearingLoop = 0
)

var errSilent = errors.New("device polls readable and delivers nothing: it is gone or broken")

// loop receives from some of the ports and transmits to all. Everything in it
// belongs to its goroutine but cells, orders and the two descriptors.
type loop struct {
	sw     *Switch
	id     int
	epoll  int
	bell   int // eventfd that ends a poll
	orders chan order
	cells  loopCells

	// Of the present wake-up.
	now    time.Duration
	wall   time.Time
	tick   fdb.Tick
	events [maxEvents]unix.EpollEvent
	idle   time.Duration // since when there was nothing to do when it fell asleep; 0 = it did not
	brief  bool          // the last sleep was so short that to poll on would have paid

	// Of the present batch.
	batch    *frame.Batch
	ins      [frame.BatchLen]*port // where each frame came in
	headers  [frame.BatchLen]frame.Header
	verdicts [frame.BatchLen]frame.Verdict
	teacher  fdb.Teacher
	tally    tally
	observed *watch
	shown    Observation // one frame of the observed batch
	copies   []Copy      // and all its copies
	ends     [frame.BatchLen]int32

	egress *offload.Egress
	before offload.Stats
	wire   *frame.Batch // what Plan made for one port
	out    [maxOut]outlist
	outs   int
	fan    struct { // what leaves for several ports at once
		in   []frame.Frame
		from [frame.BatchLen]place // of each of in
		to   [frame.BatchLen]frame.PortID
	}
	slot [frame.MaxPortID + 1]uint8 // by port: its place in out plus one, 0 = none
}

func newLoop(s *Switch, id int) (*loop, error) {
	l := &loop{
		sw: s, id: id, orders: make(chan order, 1),
		batch: frame.NewBatch(arenaLen), wire: frame.NewBatch(0), egress: offload.NewEgress(),
	}
	l.fan.in = make([]frame.Frame, 0, frame.BatchLen)
	for i := range l.out {
		l.out[i].frames = make([]frame.Frame, 0, frame.BatchLen)
	}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("create epoll instance: %w", err)
	}
	if l.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(l.epoll)
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	// Port 0 does not exist: it stands for the bell.
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.bell, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		l.release()
		return nil, fmt.Errorf("poll eventfd: %w", err)
	}
	return l, nil
}

// release closes the descriptors of a loop that does not run.
func (l *loop) release() {
	unix.Close(l.epoll)
	unix.Close(l.bell)
}

// watch makes the loop poll p's queue. Any goroutine may call it.
func (l *loop) watch(p *port) error {
	return l.poll(p.queue.FD(), int32(p.id))
}

// hear makes the loop poll a receiver, which events name by its descriptor's
// negative. Any goroutine may call it.
func (l *loop) hear(h *hearer) error {
	return l.poll(h.from.FD(), int32(-h.from.FD()))
}

func (l *loop) poll(fd int, key int32) error {
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: key})
}

// unwatch takes a descriptor out of the poll. It is not there when it has failed.
func (l *loop) unwatch(fd int) {
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
}

// order is what a loop is told to do between two wake-ups.
type order struct {
	kind orderKind
	call func() // orderCall only
	done chan<- struct{}
}

type orderKind uint8

const (
	orderBarrier orderKind = iota // only answer
	orderCall                     // call a function and answer
	orderHold                     // answer and wait for orderRun
	orderRun
	orderQuit
)

// order tells all loops and returns when all have obeyed. s.mu is held.
func (s *Switch) order(k orderKind) {
	done := make(chan struct{}, len(s.loops))
	for _, l := range s.loops {
		l.tell(order{kind: k, done: done})
	}
	for range s.loops {
		<-done
	}
}

// tell gives l an order and wakes it up.
func (l *loop) tell(o order) {
	l.orders <- o
	one := [8]byte{7: 1}
	_, _ = unix.Write(l.bell, one[:]) // fails only when the bell rings already
}

// obey carries out the orders that wait and reports whether to go on.
func (l *loop) obey() bool {
	var b [8]byte
	_, _ = unix.Read(l.bell, b[:])
	held := false
	for {
		var o order
		if held {
			o = <-l.orders
		} else {
			select {
			case o = <-l.orders:
			default:
				return true
			}
		}
		switch o.kind {
		case orderHold:
			held = true
		case orderRun:
			held = false
		case orderCall:
			o.call()
		}
		o.done <- struct{}{}
		if o.kind == orderQuit {
			return false
		}
	}
}

// run is the loop: poll, drain each port that has something, once round.
func (l *loop) run() {
	// The thread stays locked and ends with the goroutine: nothing else runs on
	// it, and the kernel keeps it on its core.
	runtime.LockOSThread()
	for {
		n := l.wait()
		l.now, l.wall = l.sw.clock.read()
		if l.idle != 0 {
			l.brief = l.now-l.idle < briefSpins*l.sw.spin
		}
		l.tick = l.sw.clock.tick(l.now)
		l.teacher.Wall = l.wall.UnixNano()
		l.cells.wakeups.add(1)
		v, rung := l.sw.view.Load(), false
		for i := range l.events[:n] {
			switch key := l.events[i].Fd; {
			case key == 0:
				rung = true
			case key < 0:
				if h := v.hearer(int(-key)); h != nil && l.id == hearingLoop && !h.line.dead.Load() {
					l.receiveAny(v, h)
				}
			default:
				p := v.port(frame.PortID(key))
				if p != nil && p.line != nil && p.loop == l.id && !p.line.dead.Load() {
					l.receive(v, p, l.events[i].Events)
				}
			}
		}
		if rung && !l.obey() {
			return
		}
	}
}

// wait polls until something is to be done and returns how many events there
// are. It polls without sleeping, giving its core to whoever wants it, for the
// spin time after the last work: a wake-up of a halted core costs more. It polls
// longer while that would have spared it the last sleep.
func (l *loop) wait() int {
	l.idle = 0
	if l.sw.spin > 0 {
		limit := l.sw.spin
		if l.brief {
			limit *= briefSpins
		}
		start, now := l.now, l.now
		for spins := 0; now-start < limit || spins == 0; spins++ {
			n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll),
				uintptr(unsafe.Pointer(&l.events)), maxEvents, 0, 0, 0)
			if e == 0 && n > 0 {
				l.cells.spinTime.add(uint64(now - start))
				return int(n)
			}
			if spins == 0 {
				start, _ = l.sw.clock.read()
			}
			l.cells.spins.add(1)
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			now, _ = l.sw.clock.read()
		}
		l.cells.spinTime.add(uint64(max(now-start, 0)))
		l.idle = start
	}
	for {
		n, err := unix.EpollWait(l.epoll, l.events[:], -1)
		if err == nil && n > 0 {
			return n
		}
	}
}

// receive takes one batch from p and forwards it. A port has its next turn when
// all others have had theirs.
//
// Hot path: no allocation.
func (l *loop) receive(v *view, p *port, polled uint32) {
	l.batch.Reset()
	err := p.queue.Receive(l.batch)
	switch {
	case l.batch.Len() > 0:
		p.line.empty = 0
		for i := range l.batch.Frames {
			l.ins[i] = p
		}
		l.forward(v)
	case err == nil:
		p.line.empty++
		failed := polled&(unix.EPOLLERR|unix.EPOLLHUP) != 0
		if failed && p.line.empty >= emptyErrors || p.line.empty >= emptyReads {
			err = errSilent
		}
	}
	if err != nil {
		// A dead descriptor polls readable for ever.
		l.unwatch(p.queue.FD())
		p.line.cause = err
		p.line.dead.Store(true)
		l.sw.emit(Event{Time: l.wall, Kind: EventPortDown, Port: p.id, Err: err})
	}
}

// receiveAny takes from a receiver what one poll has brought, in batches, and
// forwards it.
//
// Hot path: no allocation.
func (l *loop) receiveAny(v *view, h *hearer) {
	for more := true; more; more = h.from.Waiting() {
		l.batch.Reset()
		err := h.from.Receive(l.batch)
		for i := range l.batch.Frames {
			if l.ins[i] = v.port(l.batch.Frames[i].In); l.ins[i] == nil {
				l.ins[i] = v.stray
			}
		}
		if l.batch.Len() > 0 {
			l.forward(v)
		}
		if err != nil {
			l.unwatch(h.from.FD())
			h.line.dead.Store(true)
			l.sw.emit(Event{Time: l.wall, Kind: EventPortDown, Err: err})
			return
		}
	}
}

// forward takes the frames of l.batch, which came in by l.ins, through every stage.
//
// Hot path: no allocation.
func (l *loop) forward(v *view) {
	b := l.batch
	if l.observed = l.sw.watcher.Load(); l.observed != nil {
		_, l.wall = l.sw.clock.read()
	}
	for i := range b.Frames {
		in, f, h := l.ins[i], &b.Frames[i], &l.headers[i]
		vid, why := v.accept(in, f, h)
		l.verdicts[i] = frame.Verdict{VID: vid, Reason: why}
	}
	l.learn(v, b)
	for i := range b.Frames {
		if d := &l.verdicts[i]; d.Reason == frame.ReasonNone {
			l.dispatch(v, l.ins[i], &b.Frames[i], &l.headers[i], d)
		}
		if l.observed != nil {
			l.ends[i] = int32(len(l.copies))
		}
	}
	l.flush()
	if l.observed != nil {
		l.show(b)
	}
	l.cells.coalesced.add(l.egress.Stats.Coalesced - l.before.Coalesced)
	l.cells.segmented.add(l.egress.Stats.Segmented - l.before.Segmented)
	l.before = l.egress.Stats
	l.count(b)
}

// count publishes the verdicts of the batch, one tally for each run of frames
// that came in by one port. Every copy has been sent or refused.
//
// Hot path: no allocation.
func (l *loop) count(b *frame.Batch) {
	for i := range b.Frames {
		if i > 0 && l.ins[i] != l.ins[i-1] {
			l.publish(l.ins[i-1], &l.tally)
		}
		d := &l.verdicts[i]
		l.tally.verdicts[d.Action]++
		l.tally.reasons[d.Reason]++
		if b.Frames[i].Own {
			l.tally.own++
			continue
		}
		l.tally.bytes += uint64(len(b.Frames[i].Data))
	}
	l.publish(l.ins[b.Len()-1], &l.tally)
}

// dispatch decides about one frame and sends its copies.
//
// Hot path: no allocation.
func (l *loop) dispatch(v *view, in *port, f *frame.Frame, h *frame.Header, d *frame.Verdict) {
	fresh := d.Fresh
	var from *port
	*d, from = v.decide(l.sw.fdb, in, d.VID, h, nil)
	d.Fresh = fresh
	n := v.nets[d.VID]
	switch d.Action {
	case frame.Forward:
		out := v.ports[d.Out]
		tagged, _ := out.carries(n.vid)
		l.send(n, out, tagged, f, h)
	case frame.Flood:
		if why := l.admit(in, f, h, d, from); why != frame.ReasonNone {
			d.Action, d.Reason = frame.Drop, why
			return
		}
		for i := range n.members {
			m := &n.members[i]
			if relay(in, m.port, from) == frame.ReasonNone {
				l.send(n, m.port, m.tagged, f, h)
			}
		}
	}
}

// show tells the observers of the batch. Its frames were waiting together, and
// when each of them came nobody knows: a nanosecond apart, they keep their order
// in programs that sort by time.
func (l *loop) show(b *frame.Batch) {
	start := int32(0)
	for i := range b.Frames {
		l.shown = Observation{Time: l.wall.Add(time.Duration(i)), In: l.ins[i].id, Frame: &b.Frames[i], Verdict: l.verdicts[i], Copies: l.copies[start:l.ends[i]]}
		start = l.ends[i]
		for _, w := range l.observed.list {
			w.Observe(&l.shown)
		}
	}
	l.copies = l.copies[:0]
	l.observed, l.shown = nil, Observation{}
}
