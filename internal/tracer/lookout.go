package tracer

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/watch"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// lookout watches this host for the packets of one trace.
type lookout struct {
	t       *Tracer
	key     trace.Key
	origin  string // the port here that the probe started at; empty = elsewhere
	watcher *trace.Watcher
	ears    []*ear
	walls   []*wall  // none unless firewalls are followed
	missing []string // namespaces that could not be watched, and why
	before  map[frame.PortID]Counts
}

// lookOut begins to watch for k: the switch, the host's interfaces, and those in
// the namespaces of the named ports and of containers that may route; with walls
// their firewalls as well.
func (t *Tracer) lookOut(k *trace.Key, walls bool, ports ...string) *lookout {
	m, here := trace.NewMatcher(k), t.host.Here()
	l := &lookout{t: t, key: *k, origin: here.portWith(k.Src), watcher: trace.NewWatcher(m), before: t.host.Drops()}
	program, err := k.BPF()
	if err != nil {
		l.missing = append(l.missing, fmt.Sprintf("interfaces can't be watched: %v", err))
	}
	o := watch.Options{Filter: program, SnapLen: earSnap}
	ears, more := earsFor(&here, ports...)
	if more > 0 {
		l.missing = append(l.missing, fmt.Sprintf("%d more namespaces with several ports were not listened in", more))
	}
	for _, e := range ears {
		if err != nil {
			break
		}
		at := placeName(here.Host, e.port)
		if err := t.listen(e, o, func(e *ear, name string, p *watch.Packet) { e.note(m, name, p) }); err != nil {
			l.missing = append(l.missing, fmt.Sprintf("the interfaces of %s can't be watched: %v", at, err))
			continue
		}
		l.ears = append(l.ears, e)
		if !walls {
			continue
		}
		if w, err := t.followFirewall(keeper.Place{Port: e.port}, k); err != nil {
			l.missing = append(l.missing, fmt.Sprintf("the firewall of %s can't be followed: %v", at, err))
		} else {
			l.walls = append(l.walls, w)
		}
	}
	t.host.Observe(l.watcher, trace.Refused{Watcher: l.watcher})
	return l
}

// close ends the watch.
func (l *lookout) close() {
	l.t.host.Unobserve(l.watcher, trace.Refused{Watcher: l.watcher})
	for _, e := range l.ears {
		e.close()
	}
	for _, w := range l.walls {
		w.close()
	}
}

// maxAlso is how many drop counters are told that no packet of the trace has
// moved, as far as is known.
const maxAlso = 16

// moved are the drop counters that went up since the watch began: first those
// that the packets of the trace have moved.
func (l *lookout) moved(events []trace.Event) []trace.Moved {
	var out []trace.Moved
	here, met := l.t.host.Here(), counters(events)
	for id, now := range l.t.host.Drops() {
		for why, n := range now {
			if was := l.before[id][why]; n > was && frame.Reason(why).IsDrop() {
				m := trace.Moved{Host: here.Host, Port: here.portName(id), Reason: frame.Reason(why).String(), Frames: n - was}
				m.Also = !met[counter{m.Port, m.Reason}]
				out = append(out, m)
			}
		}
	}
	slices.SortFunc(out, func(a, b trace.Moved) int {
		return cmp.Or(later(a, b), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Reason, b.Reason))
	})
	also := slices.IndexFunc(out, func(m trace.Moved) bool { return m.Also })
	if also < 0 {
		return out
	}
	return out[:min(len(out), also+maxAlso)]
}

// later orders counters: those last that somebody else may have moved.
func later(a, b trace.Moved) int {
	switch {
	case a.Also == b.Also:
		return 0
	case a.Also:
		return 1
	}
	return -1
}

// counter names a drop counter of this host.
type counter struct{ port, reason string }

// counters are those that the packets of events have moved.
func counters(events []trace.Event) map[counter]bool {
	met := map[counter]bool{}
	add := func(port string, peer bool, reason string) {
		if peer {
			port = "peer/" + port
		}
		met[counter{port, reason}] = true
	}
	for i := range events {
		e := &events[i]
		if e.Action == frame.Drop.String() {
			add(e.Port, e.Peer, e.Reason)
		}
		for _, x := range e.Exits {
			if x.Refused != "" {
				add(x.Port, x.Peer, x.Refused)
			}
		}
	}
	return met
}

// events are what was seen so far, in this host's names.
func (l *lookout) events() []trace.Event {
	seen, _ := l.watcher.Seen()
	events := make([]trace.Event, 0, len(seen))
	here := l.t.host.Here()
	for i := range seen {
		events = append(events, l.t.switchEvent(&here, &seen[i]))
	}
	for _, e := range l.ears {
		events = append(events, e.heard()...)
	}
	return events
}

// report is what was seen, and if the trace was lost why it may have been. In
// clear nothing is told of encrypted networks, nor of what others did meanwhile.
func (l *lookout) report(lost, clear bool) trace.Report {
	_, more := l.watcher.Seen()
	r := trace.Report{Events: l.events(), Lost: more, Notes: l.missing}
	if all := len(r.Events); clear {
		if r.Events = l.public(r.Events); len(r.Events) < all {
			r.Notes = append(slices.Clone(r.Notes), "what it saw in encrypted networks is told by the link only")
		}
	}
	for _, e := range l.ears {
		r.Lost += e.missed()
	}
	if lost {
		r.Moved, r.Causes = l.moved(r.Events), l.causes(r.Events)
	}
	if clear {
		r.Moved = slices.DeleteFunc(r.Moved, func(m trace.Moved) bool { return m.Also })
	}
	return r
}

// public are the events that are of no encrypted network.
func (l *lookout) public(events []trace.Event) []trace.Event {
	here := l.t.host.Here()
	secret := func(port string) bool { return len(here.encrypted(here.Ports[port].VIDs)) > 0 }
	return slices.DeleteFunc(events, func(e trace.Event) bool {
		if e.At == trace.AtSwitch {
			return here.Network(frame.VID(e.VLAN)).Encrypt
		}
		return secret(e.Far) || e.Netns != "" && secret(l.portOf(e.Netns))
	})
}

// switchEvent puts what the switch did with a packet into names.
func (t *Tracer) switchEvent(h *Here, s *trace.Seen) trace.Event {
	v := s.Verdict
	e := sightEvent(trace.AtSwitch, &s.Sight, s.Time)
	n := h.Network(v.VID)
	e.Network, e.VLAN, e.Action, e.Reason, e.More = n.Name, int(v.VID), v.Action.String(), v.Reason.String(), s.More
	e.Port, e.Peer = h.Place(s.In)
	if e.Peer {
		e.VNI, e.Sealed = n.VNI, n.Encrypt && v.Reason != frame.PlaintextRefused
	}
	for _, c := range s.Copies() {
		x := trace.Exit{VLAN: int(c.Tag.VID())}
		if x.Port, x.Peer = h.Place(c.Port); x.Peer {
			x.VLAN, x.VNI, x.Sealed = 0, n.VNI, n.Encrypt
		}
		if c.Refused != frame.ReasonNone {
			x.Refused = c.Refused.String()
		}
		e.Exits = append(e.Exits, x)
	}
	if v.Reason == frame.KnownUnicast {
		e.Entry, e.Taught = t.host.Entry(v.VID, s.Dst, v.Out)
	}
	return e
}

// portName is the name of a port, of a peer's peer/NAME.
func (h *Here) portName(id frame.PortID) string {
	name, peer := h.Place(id)
	if peer {
		return "peer/" + name
	}
	return name
}

// sightEvent is an event with what the packet itself tells.
func sightEvent(at trace.Place, s *trace.Sight, when time.Time) trace.Event {
	return trace.Event{
		At: at, Time: when.UnixNano(), What: s.What, Code: s.Code, TTL: s.TTL, Src: s.Src, Dst: s.Dst,
		From: s.From.String(), To: s.To.String(), Tag: int(s.Tag.VID()),
	}
}
