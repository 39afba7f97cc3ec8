package daemon

import (
	"cmp"
	"fmt"
	"time"

	"github.com/tapestry-net/tapestry/capture/dissect"
	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/watch"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// lookout watches this host for the packets of one trace.
type lookout struct {
	d       *Daemon
	key     trace.Key
	watcher *trace.Watcher
	ears    []*ear
	walls   []*wall  // none unless firewalls are followed
	missing []string // namespaces that could not be watched, and why
	before  map[frame.PortID]dropCounts
}

type dropCounts = [frame.NumReasons]uint64

// lookOut begins to watch for k: the switch, the host's interfaces, and those in
// the namespaces of the named ports; with walls their firewalls as well.
func (d *Daemon) lookOut(k *trace.Key, walls bool, ports ...string) *lookout {
	m := trace.NewMatcher(k)
	l := &lookout{d: d, key: *k, watcher: trace.NewWatcher(m), before: d.dropsByPort()}
	program, err := k.BPF()
	o := watch.Options{Filter: program, SnapLen: earSnap}
	for _, e := range d.earsFor(ports...) {
		if err == nil {
			err = d.listen(e, o, func(e *ear, name string, p *watch.Packet) { e.note(m, name, p) })
		}
		if err != nil {
			l.missing = append(l.missing, fmt.Sprintf("the interfaces of %s can't be watched: %v", cmp.Or(e.port, "this host"), err))
			continue
		}
		l.ears = append(l.ears, e)
		if !walls {
			continue
		}
		if w, err := d.followFirewall(keeper.Place{Port: e.port}, k); err != nil {
			l.missing = append(l.missing, fmt.Sprintf("the firewall of %s can't be followed: %v", d.placeName(keeper.Place{Port: e.port}), err))
		} else {
			l.walls = append(l.walls, w)
		}
	}
	d.sw.Observe(l.watcher)
	d.observers.Add(trace.Refused{Watcher: l.watcher})
	return l
}

// close ends the watch.
func (l *lookout) close() {
	l.d.observers.Remove(trace.Refused{Watcher: l.watcher})
	l.d.sw.Unobserve(l.watcher)
	for _, e := range l.ears {
		e.close()
	}
	for _, w := range l.walls {
		w.close()
	}
}

// dropsByPort are the drop counters of all ports and peers.
func (d *Daemon) dropsByPort() map[frame.PortID]dropCounts {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make(map[frame.PortID]dropCounts, len(d.ports))
	for _, p := range d.ports {
		n, _ := d.sw.PortStats(p.id)
		all[p.id] = n.Drops
	}
	if d.vtep == nil {
		return all
	}
	for _, s := range d.vtep.Status() {
		n, _ := d.sw.PortStats(s.ID)
		for why, m := range s.Drops {
			n.Drops[why] += m
		}
		all[s.ID] = n.Drops
	}
	return all
}

// moved are the drop counters that went up since the watch began.
func (l *lookout) moved() []trace.Moved {
	var out []trace.Moved
	host := l.d.hostName()
	names := l.d.names.Load()
	for id, now := range l.d.dropsByPort() {
		for why, n := range now {
			if was := l.before[id][why]; n > was && frame.Reason(why).IsDrop() {
				out = append(out, trace.Moved{Host: host, Port: names.port(id), Reason: frame.Reason(why).String(), Frames: n - was})
			}
		}
	}
	return out
}

// events are what was seen so far, in this host's names.
func (l *lookout) events() []trace.Event {
	seen, _ := l.watcher.Seen()
	events := make([]trace.Event, 0, len(seen))
	vnis := l.d.vnis()
	for i := range seen {
		events = append(events, l.d.switchEvent(&seen[i], vnis))
	}
	for _, e := range l.ears {
		events = append(events, e.heard()...)
	}
	return events
}

// report is what was seen, and if the trace was lost why it may have been.
func (l *lookout) report(lost bool) trace.Report {
	_, more := l.watcher.Seen()
	r := trace.Report{Events: l.events(), Lost: more, Notes: l.missing}
	for _, e := range l.ears {
		r.Lost += e.missed()
	}
	if lost {
		r.Moved, r.Causes = l.moved(), l.causes(r.Events)
	}
	return r
}

// vnis are the VNIs of the networks that have one.
func (d *Daemon) vnis() map[frame.VID]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[frame.VID]int{}
	for name, n := range d.eff.Networks {
		if n.VNI != 0 {
			all[d.st.VLANs[name]] = int(n.VNI)
		}
	}
	return all
}

// switchEvent puts what the switch did with a packet into names.
func (d *Daemon) switchEvent(s *trace.Seen, vnis map[frame.VID]int) trace.Event {
	n := d.names.Load()
	v := s.Verdict
	e := sightEvent(trace.AtSwitch, &s.Sight, s.Time)
	e.Network, e.VLAN, e.Action, e.Reason, e.More = n.network(v.VID), int(v.VID), v.Action.String(), v.Reason.String(), s.More
	e.Port, e.Peer = n.place(s.In)
	if e.Peer {
		e.VNI = vnis[v.VID]
	}
	for _, c := range s.Copies() {
		x := trace.Exit{VLAN: int(c.Tag.VID())}
		if x.Port, x.Peer = n.place(c.Port); x.Peer {
			x.VLAN, x.VNI = 0, vnis[v.VID]
		}
		if c.Refused != frame.ReasonNone {
			x.Refused = c.Refused.String()
		}
		e.Exits = append(e.Exits, x)
	}
	if v.VID != 0 && !s.Dst.IsGroup() {
		e.Entry, e.Taught = d.entryText(v.VID, s.Dst)
	}
	return e
}

// place is the name of a port, or of the peer that it stands for.
func (n *names) place(id frame.PortID) (name string, peer bool) {
	if p, ok := n.peers[id]; ok {
		return p, true
	}
	return n.port(id), false
}

// sightEvent is an event with what the packet itself tells.
func sightEvent(at trace.Place, s *trace.Sight, when time.Time) trace.Event {
	return trace.Event{
		At: at, Time: when.UnixNano(), What: s.What, Code: s.Code, TTL: s.TTL, Src: s.Src, Dst: s.Dst,
		From: s.From.String(), To: s.To.String(), Tag: int(s.Tag.VID()),
	}
}

// entryText says what the filtering database has about a station, and which
// frame taught it; empty when there is no entry.
func (d *Daemon) entryText(v frame.VID, m frame.MAC) (entry, taught string) {
	e, ok := d.table.Entry(fdb.MakeKey(v, m))
	if !ok {
		return "", ""
	}
	n := *d.names.Load()
	row := entryRow(n, e, tick())
	where := row.Port
	if row.Peer != "" {
		where = peerPrefix + row.Peer
	}
	entry = fmt.Sprintf("%s on %s", m, where)
	if e.Static {
		return entry + ", static", ""
	}
	entry += fmt.Sprintf(", heard %d s ago", row.AgeS)
	records := d.table.HistoryOf(m)
	for i := len(records) - 1; i >= 0; i-- {
		if r := records[i]; r.VID == v && len(r.Head) > 0 && (r.Event == fdb.EventLearned || r.Event == fdb.EventMoved) {
			return entry, fmt.Sprintf("%s at %s", dissect.Line(r.Head), time.Unix(0, r.Wall).Format(time.TimeOnly))
		}
	}
	return entry, ""
}
