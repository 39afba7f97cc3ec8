package tracer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/capture/dissect"
	"github.com/tapestry-net/tapestry/capture/filter"
	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/watch"
	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	// liveSettle is how long after its first sight a packet is waited for at other
	// places, and liveEvery how often those that are due are looked for.
	liveSettle = 50 * time.Millisecond
	liveEvery  = 20 * time.Millisecond
	// maxLive is how many packets are followed at a time, and maxLiveEvents at how
	// many places each.
	maxLive       = 256
	maxLiveEvents = 32
	// maxTurn is how many records are taken before the clock and the caller are
	// looked at again.
	maxTurn = 512
)

// always is ready.
var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// live follows packets of live traffic through this host.
type live struct {
	t      *Tracer
	host   string
	filter *filter.Program

	mu     sync.Mutex
	lines  *dissect.Dissector
	under  map[trace.Print]*followed
	order  []*followed // by first sight
	missed int
}

// followed is one packet.
type followed struct {
	print  trace.Print
	first  time.Time
	line   string
	seen   []trace.Seen  // by the switch
	events []trace.Event // at the kernel's interfaces
}

// traceLive readies the trace of live packets that match r.Watch.
func (t *Tracer) live(r api.TraceRequest) (api.TraceRun, error) {
	p, err := filter.Compile(r.Watch)
	if err != nil {
		e := api.Errorf(api.CodeInvalid, "watch: %v", err)
		if bad, ok := errors.AsType[*filter.Error](err); ok {
			e.Hint = bad.Hint
		}
		return nil, e
	}
	if r.Count < 0 {
		return nil, api.Errorf(api.CodeInvalid, "count %d: want 0 or more packets", r.Count)
	}
	return func(ctx context.Context, take func(api.Traced) error) error {
		v := &live{t: t, host: t.host.Here().Host, filter: p, lines: dissect.New(), under: map[trace.Print]*followed{}}
		if r.Kernel {
			stop, deaf := v.listen()
			defer stop()
			if deaf != "" {
				if err := take(note("%s", deaf)); err != nil {
					return err
				}
			}
		}
		return v.run(ctx, r.Count, take)
	}, nil
}

// listen follows packets on the interfaces of the host's kernel.
func (v *live) listen() (stop func(), note string) {
	here := v.t.host.Here()
	ears, _ := earsFor(&here)
	e := ears[0] // the host's own
	if err := v.t.listen(e, watch.Options{Filter: v.filter.Socket(), SnapLen: earSnap}, v.heard); err != nil {
		return func() {}, fmt.Sprintf("the interfaces of this host can't be watched: %v", err)
	}
	return e.close, ""
}

// heard takes a packet that an interface of the kernel received or sent.
func (v *live) heard(e *ear, name string, p *watch.Packet) {
	print, s, ok := trace.FingerprintIP(p.Data)
	if p.Ethernet {
		print, s, ok = trace.Fingerprint(p.Data)
		ok = ok && (!p.Tagged || v.filter.Match(p.Data)) // the socket lets all pass that have a tag
	}
	if ok {
		v.add(print, p.Data, e.event(name, p, &s))
	}
}

// run follows the packets that the switch forwards until count of them are
// told, 0 for ever.
func (v *live) run(ctx context.Context, count int, take func(api.Traced) error) error {
	ring := capture.NewRing(capture.Choice{Direction: capture.In, Filter: v.filter, Snap: earSnap}, 1<<20)
	v.t.host.Observe(ring, nil)
	defer v.t.host.Unobserve(ring, nil)
	look := time.NewTicker(liveEvery)
	defer look.Stop()
	var rec capture.Record
	told, lost := 0, uint64(0)
	for {
		more := ring.Ready()
		if v.drain(ring, &rec) {
			more = always
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		case now := <-look.C:
			due, missed := v.due(now)
			if n := ring.LostAll() - lost + uint64(missed); n > 0 {
				lost = ring.LostAll()
				if err := take(note("%d packets were not followed: they came too fast", n)); err != nil {
					return err
				}
			}
			if len(due) == 0 {
				continue
			}
			here := v.t.host.Here()
			for _, f := range due {
				told++
				if err := v.tell(&here, f, told, take); err != nil || told == count {
					return err
				}
			}
		}
	}
}

// drain takes what waits in the ring, a turn of it at most, and reports whether
// there may be more.
func (v *live) drain(ring *capture.Ring, rec *capture.Record) (more bool) {
	for range maxTurn {
		if !ring.Poll(rec) {
			return false
		}
		v.record(rec)
	}
	return true
}

// record takes a packet that the switch has decided about. Names and the table
// are looked at when it is told: most packets of a flood never are.
func (v *live) record(rec *capture.Record) {
	print, s, ok := trace.Fingerprint(rec.Data)
	if !ok {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	f := v.follow(print, rec.Data)
	if f == nil || f.full() {
		return
	}
	seen := trace.Seen{Sight: s, Time: rec.Time, In: rec.In, Verdict: rec.Verdict, Len: rec.Len, More: rec.More}
	copies := make([]frame.Copy, 0, len(rec.Copies))
	for _, c := range rec.Copies {
		copies = append(copies, c.Copy)
	}
	seen.SetCopies(copies)
	f.seen = append(f.seen, seen)
}

// add notes one sight of a packet at an interface.
func (v *live) add(print trace.Print, data []byte, e trace.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if f := v.follow(print, data); f != nil && !f.full() {
		f.events = append(f.events, e)
	}
}

// follow is the packet with that print, nil when too many are followed already.
// The caller holds mu.
func (v *live) follow(print trace.Print, data []byte) *followed {
	f := v.under[print]
	if f == nil {
		if len(v.order) == maxLive {
			v.missed++
			return nil
		}
		f = &followed{print: print, first: time.Now(), line: v.lines.Line(data)}
		v.under[print] = f
		v.order = append(v.order, f)
	}
	return f
}

func (f *followed) full() bool { return len(f.seen)+len(f.events) >= maxLiveEvents }

// due takes out the packets that have had their time, and tells how many were
// too many.
func (v *live) due(now time.Time) (due []*followed, missed int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for n < len(v.order) && now.Sub(v.order[n].first) >= liveSettle {
		delete(v.under, v.order[n].print)
		n++
	}
	due, v.order = slices.Clone(v.order[:n]), slices.Delete(v.order, 0, n)
	missed, v.missed = v.missed, 0
	return due, missed
}

// tell hands over the hops of one packet.
func (v *live) tell(here *Here, f *followed, seq int, take func(api.Traced) error) error {
	for i := range f.seen {
		f.events = append(f.events, v.t.switchEvent(here, &f.seen[i]))
	}
	hops := trace.Merge(trace.ID(cmp.Or(uint64(f.print), 1)), []trace.Account{{Host: v.host, Events: f.events}})
	for i := range hops {
		h := &hops[i]
		h.Direction, h.Packet = trace.Live, f.line
		if err := take(api.Traced{Kind: "hop", Hop: h, Seq: seq}); err != nil {
			return err
		}
	}
	return nil
}
