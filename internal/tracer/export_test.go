package tracer

import (
	"context"
	"time"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

// The pure parts, for tests.
var (
	SourceFor   = sourceFor
	PickAddress = pickAddress
)

// Ears are the namespaces that would be listened in, each with the interfaces
// that are not, and those that a port is behind.
func Ears(h *Here, ports ...string) (all []map[string]string, more int) {
	ears, more := earsFor(h, ports...)
	for _, e := range ears {
		m := map[string]string{"port": e.port, "netns": e.netns}
		for name, port := range e.far {
			m["far "+name] = port
		}
		for name := range e.deaf {
			m["deaf "+name] = "yes"
		}
		all = append(all, m)
	}
	return all, more
}

// Moved are the counters that have moved since before, told with those events.
func (t *Tracer) Moved(before map[frame.PortID]Counts, events []trace.Event) []trace.Moved {
	return (&lookout{t: t, before: before}).moved(events)
}

// SwitchEvent is what is told of a decision.
func (t *Tracer) SwitchEvent(s *trace.Seen) trace.Event {
	here := t.host.Here()
	return t.switchEvent(&here, s)
}

// Answer is what a peer's question is answered.
func (t *Tracer) Answer(q tunnel.Question, a trace.Ask) (told trace.Tell, err error) {
	err = t.answer(&q, &a, &told)
	return told, err
}

// MayKnow reports whether who asks is told the addresses of a port.
func MayKnow(h *Here, q tunnel.Question, port string) bool {
	p := h.Ports[port]
	return h.mayKnow(&q, &p)
}

// Summon asks the peers to watch for a trace of encrypted networks, or with none
// of plain ones, whose answer may take that long.
func (t *Tracer) Summon(ctx context.Context, wait time.Duration, vids ...frame.VID) (notes []string) {
	j := &journey{t: t, wait: wait, secrecy: secrecy{on: len(vids) > 0, vids: vids}}
	_, notes = j.summon(ctx, false)
	return notes
}

// MaxTraceWait is the longest that a user may wait.
const MaxTraceWait = maxTraceWait

// Public are those events that are told in clear.
func (t *Tracer) Public(events []trace.Event) []trace.Event {
	return (&lookout{t: t, ears: []*ear{{port: "c3", netns: "secret"}}}).public(events)
}
