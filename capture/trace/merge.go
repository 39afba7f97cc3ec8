package trace

import (
	"slices"
	"time"
)

// MaxEvents is how many events of all hosts together are put in order; later
// ones are left out.
const MaxEvents = 512

// sighting is an event with its host and our clock.
type sighting struct {
	Event
	host string
	time time.Time
}

// Merge puts what the hosts have seen into the order in which it happened: the
// request, then the answer. What two interfaces of one kernel show of a routed
// packet becomes one hop. Accounts may lack events, and may be in any order.
func Merge(id ID, accounts []Account) []Hop {
	var all [2][]sighting
	for i := range accounts {
		a := &accounts[i]
		for _, e := range a.Events {
			dir := 0
			if e.Answer() {
				dir = 1
			}
			if len(all[0])+len(all[1]) < MaxEvents {
				all[dir] = append(all[dir], sighting{e, a.Host, time.Unix(0, e.Time).Add(-a.Offset)})
			}
		}
	}
	var hops []Hop
	var last time.Time
	for _, events := range all {
		hops = append(hops, unfold(order(events))...)
	}
	for i := range hops {
		h := &hops[i]
		h.Trace, h.Hop = id, i+1
		if i > 0 {
			h.SinceUS = max(h.Time.Sub(last).Microseconds(), 0)
		}
		if h.Time.After(last) {
			last = h.Time
		}
	}
	return hops
}

// order sorts the events of one direction: an event comes when nothing that
// must be before it is left, and of several the one that has the earliest time.
// Should causes contradict each other, times decide.
func order(events []sighting) []sighting {
	slices.SortStableFunc(events, func(a, b sighting) int { return a.time.Compare(b.time) })
	waits := make([]int, len(events)) // for how many others
	for i := range events {
		for j := range events {
			if i != j && before(&events[j], &events[i]) {
				waits[i]++
			}
		}
	}
	const done = -1
	out := make([]sighting, 0, len(events))
	for range events {
		next := -1
		for i, n := range waits {
			if n != done && (next < 0 || n == 0 && waits[next] != 0) {
				next = i
			}
		}
		waits[next] = done
		out = append(out, events[next])
		for i := range events {
			if waits[i] > 0 && before(&events[next], &events[i]) {
				waits[i]--
			}
		}
	}
	return out
}

// before reports whether a must have happened before b, whatever clocks say.
func before(a, b *sighting) bool {
	switch {
	case a.TTL != b.TTL:
		return a.TTL > b.TTL // routers only ever take
	case a.host != b.host:
		// What crosses from host to host leaves first and arrives then.
		return a.encapsulates() && b.At == AtSwitch && b.Peer || a.leaves() && b.arrives()
	case a.At == AtSwitch && b.At == AtIn:
		return b.Far != "" && a.exits(b.Far)
	case a.At == AtOut && b.At == AtSwitch:
		return a.Far != "" && !b.Peer && b.Port == a.Far
	}
	return false
}

func (s *sighting) encapsulates() bool {
	return s.At == AtSwitch && slices.ContainsFunc(s.Exits, func(x Exit) bool { return x.Peer && x.Refused == "" })
}

// leaves reports whether the packet left the host by an interface of its own,
// which no port of the switch is at the other end of.
func (s *sighting) leaves() bool { return s.At == AtOut && s.Far == "" }

func (s *sighting) arrives() bool { return s.Received() && s.Far == "" }

// exits reports whether a copy left by port.
func (s *sighting) exits(port string) bool {
	return slices.ContainsFunc(s.Exits, func(x Exit) bool { return !x.Peer && x.Port == port && x.Refused == "" })
}
