package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/journal"
)

// KindFrame is the event kind of single frames. It costs a copy of each frame's
// head, so a reader gets it only by asking for it.
const KindFrame = "frame"

// readerDepth is how many events a reader may be behind before it loses some.
const readerDepth = 1024

// hub hands events to every reader. A reader that is slow loses events and is
// told how many; nobody waits for it.
type hub struct {
	journal *journal.Journal // nil: nothing is remembered

	mu      sync.Mutex
	readers map[*reader]struct{}
	frames  int // readers that asked for KindFrame
	onFrame func(watched bool)
}

type reader struct {
	out   chan api.Event
	kinds []string // empty = all but KindFrame
	lost  uint64
}

func newHub() *hub { return &hub{readers: map[*reader]struct{}{}} }

// publish never blocks.
func (h *hub) publish(e api.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.journal != nil && remembered(e) {
		h.journal.Append(journal.Record(e))
	}
	for r := range h.readers {
		if r.wants(e.Kind) {
			r.send(e)
		}
	}
}

// remembered reports whether e goes into the journal: frames are too many, and
// of stations the FDB has a history of its own, so that only those that flap
// are told of here.
func remembered(e api.Event) bool {
	_, flap := e.Fields["flapping"]
	return e.Kind != KindFrame && e.Kind != "fdb" || flap
}

// past returns what f selects of the journal.
func (h *hub) past(f journal.Filter) []api.Event {
	out := []api.Event{}
	if h.journal == nil {
		return out
	}
	for _, r := range h.journal.Select(f) {
		out = append(out, api.Event(r))
	}
	return out
}

// subscribe returns a stream that is closed when ctx ends. Unless since is zero
// it begins with what is remembered since then; nothing is missing or told twice
// between that and the rest.
func (h *hub) subscribe(ctx context.Context, kinds []string, since time.Time) <-chan api.Event {
	h.mu.Lock()
	var past []api.Event
	if !since.IsZero() {
		past = h.past(journal.Filter{Kinds: kinds, Since: since})
	}
	r := &reader{out: make(chan api.Event, readerDepth+len(past)), kinds: kinds}
	for _, e := range past {
		r.out <- e
	}
	h.readers[r] = struct{}{}
	h.count(r, 1)
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.readers, r)
		h.count(r, -1)
		close(r.out)
	})
	return r.out
}

// count keeps the number of readers of frames and switches the watching of
// frames on with the first and off with the last. The caller holds mu.
func (h *hub) count(r *reader, by int) {
	if !slices.Contains(r.kinds, KindFrame) {
		return
	}
	before := h.frames
	h.frames += by
	if h.onFrame != nil && (before == 0) != (h.frames == 0) {
		h.onFrame(h.frames > 0)
	}
}

// unwatch lets readers come and go without the switch, which is about to close.
func (h *hub) unwatch() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onFrame = nil
}

func (r *reader) wants(kind string) bool {
	if len(r.kinds) == 0 {
		return kind != KindFrame
	}
	return slices.Contains(r.kinds, kind)
}

// send hands over e, or counts it as lost; the next event that fits is preceded
// by the count.
func (r *reader) send(e api.Event) {
	if r.lost > 0 && len(r.out) < cap(r.out)-1 {
		r.out <- api.Event{Time: e.Time, Kind: "lost", What: fmt.Sprintf("%d events lost: the reader is too slow", r.lost)}
		r.lost = 0
	}
	select {
	case r.out <- e:
	default:
		r.lost++
	}
}
