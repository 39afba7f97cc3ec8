package tracer

import (
	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/switch/frame"
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
