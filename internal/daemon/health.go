package daemon

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/packet"
	"github.com/tapestry-net/tapestry/switch/port/tap"
)

// healthEvery is how often ports are looked at, and the longest that a port
// stays down after its cause has gone.
const healthEvery = time.Second

// nameEvery is after how many looks a port's name has been looked at once: it
// takes a system call a port, and a rename changes nothing for the frames.
const nameEvery = 4

// onSwitchEvent is called by a goroutine of the switch, which must not wait for
// changes: ports that went down are seen to by watchHealth.
func (d *Daemon) onSwitchEvent(e vswitch.Event) {
	n := *d.names.Load()
	switch e.Kind {
	case vswitch.EventPortDown:
		select {
		case d.down <- e:
		default: // watchHealth finds it at the next look
		}
	case vswitch.EventMove:
		what := fmt.Sprintf("station %s moved from port %s to %s in network %s", e.MAC, n.port(e.Old), n.port(e.Port), n.network(e.VID))
		if e.Missed > 0 {
			what += fmt.Sprintf(" (%d more moves to this port not told)", e.Missed)
		}
		d.log.Info("station move", "mac", e.MAC.String(), "from", n.port(e.Old), "to", n.port(e.Port), "network", n.network(e.VID), "missed", e.Missed)
		d.hub.publish(api.Event{Time: e.Time, Kind: "fdb", What: what, Port: n.port(e.Port), Network: n.network(e.VID), MAC: e.MAC.String()})
	case vswitch.EventLoopCut:
		what := fmt.Sprintf("loop: port %s hears the switch's own frames come back (last by %s) and is cut for %v", n.port(e.Port), e.MAC, e.For)
		d.log.Warn("loop guard cut a port", "port", n.port(e.Port), "network", n.network(e.VID), "mac", e.MAC.String(), "for", e.For)
		d.cut(e.Port, what)
		d.hub.publish(api.Event{Time: e.Time, Kind: "loop", What: what, Port: n.port(e.Port), Network: n.network(e.VID), MAC: e.MAC.String(),
			Fields: map[string]any{"cut": true, "for_s": e.For.Seconds()}})
	case vswitch.EventLoopOpened:
		d.cut(e.Port, "")
		d.log.Info("loop guard opened a port", "port", n.port(e.Port))
		d.hub.publish(api.Event{Time: e.Time, Kind: "loop", What: fmt.Sprintf("port %s is open again", n.port(e.Port)), Port: n.port(e.Port),
			Fields: map[string]any{"cut": false}})
	case vswitch.EventStorm:
		d.tellStorm(e, n.port(e.Port))
	}
}

// watchHealth sees to ports that are down, and finds those that should be.
func (d *Daemon) watchHealth() {
	t := time.NewTicker(healthEvery)
	defer t.Stop()
	for {
		select {
		case <-d.healthQuit:
			return
		case e := <-d.down:
			d.lost(e)
		case <-t.C:
			d.look()
			d.watchChanges(time.Now())
		}
	}
}

// lost takes a port out of the switch whose queue has failed, and tries once to
// open it again at once.
func (d *Daemon) lost(e vswitch.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.ports {
		if p.id == e.Port && p.queue != nil {
			d.drop(p, fmt.Sprintf("its interface has gone: %v", e.Err), "it comes back by itself when the namespace or interface does")
			d.retry(p)
			return
		}
	}
}

// drop closes a port's queue and says why it is down. The caller holds mu.
func (d *Daemon) drop(p *port, reason, hint string) {
	if err := d.enforceWithout(p.name); err != nil {
		d.log.Error("take a failed port out of the switch", "port", p.name, "err", err)
		return
	}
	p.down(reason, hint)
	p.next = time.Now()
	d.log.Warn("port is down", "port", p.name, "reason", reason)
	d.tellPort(p.name, reason)
}

// retry opens a port that is down. The caller holds mu.
func (d *Daemon) retry(p *port) {
	q := newPort(p.name, p.id, p.req)
	q.req.Reopen = true
	q.netns, q.heals, q.plain, q.missed = p.netns, p.heals+1, p.plain, p.missed
	if err := d.open(q); err != nil {
		p.fail(err)
		return
	}
	q.req.Reopen = false
	d.ports[p.name] = q
	if err := d.enforce(); err != nil {
		d.log.Error("bring a port back into the switch", "port", p.name, "err", err)
		return
	}
	d.log.Info("port is up", "port", p.name)
	d.tellPort(p.name, "")
}

// look checks every port, and tries those again that are down for lack of an
// interface.
func (d *Daemon) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.looks++
	d.releaseLost()
	d.lookForOwn()
	d.lookAtLists(now)
	d.lookAtUnderlay()
	d.lookForMissing()
	var taps, others []*port
	var fds []int
	for _, p := range d.ports {
		if p.queue == nil {
			if now.After(p.next) {
				d.retry(p)
			}
			continue
		}
		if !p.reply.Packet {
			taps, fds = append(taps, p), append(fds, p.fd)
		}
		if p.reply.Packet || p.reply.HostEnd != "" {
			others = append(others, p)
		}
	}
	states, err := tap.States(nil, fds)
	if err != nil {
		d.log.Error("look at ports", "err", err)
		return
	}
	for i, s := range states {
		d.judge(taps[i], s)
	}
	if len(others) > 0 {
		d.judgeOthers(others)
	}
}

// releaseLost lets go of ports whose namespace has gone by its name, also where
// the port itself has kept it alive. The caller holds mu.
func (d *Daemon) releaseLost() {
	lost, err := d.keeper.Lost()
	if err != nil {
		d.log.Error("look for lost namespaces", "err", err)
		return
	}
	for _, name := range lost {
		p := d.ports[name]
		if p == nil || p.queue == nil {
			continue
		}
		d.drop(p, fmt.Sprintf("its namespace %s has gone", p.req.Netns), "it comes back by itself when a namespace of that name does")
		if err := d.keeper.Remove(name); err != nil {
			d.log.Error("remove interface", "port", name, "err", err)
		}
	}
}

// judge brings a port's state in line with what its TAP says of itself.
func (d *Daemon) judge(p *port, s tap.State) {
	switch s {
	case tap.StateGone:
		d.drop(p, "its interface has been deleted, or its namespace has", "it comes back by itself when the namespace does")
	case tap.StateDown:
		d.changed(p, fmt.Sprintf("interface %s is set down", p.reply.Device), "ip link set "+p.reply.Device+" up")
	default:
		if p.reply.HostEnd != "" {
			break // of a veth the ends decide
		}
		d.changed(p, "", "")
		if int(p.id)%nameEvery == d.looks%nameEvery {
			p.renamed = ""
			if name, err := tap.Name(p.fd); err == nil && name != p.reply.Device {
				p.renamed = name
			}
		}
	}
	if q, ok := p.queue.(*tap.Queue); ok && q.GSORefused() && !p.plain {
		p.plain = true
		d.drop(p, "this kernel refuses GSO writes", "none needed: the port is opened again without offloads")
		d.retry(p)
	}
}

// judgeOthers does the same for ports whose state is that of an interface in the
// daemon's namespace.
func (d *Daemon) judgeOthers(ports []*port) {
	now, err := listInterfaces()
	if err != nil {
		d.log.Error("look at ports", "err", err)
		return
	}
	for _, p := range ports {
		switch {
		case p.queue == nil: // dropped meanwhile
		case p.reply.Packet:
			d.judgeDevice(p, now)
		default:
			d.judgeVeth(p, now)
		}
	}
}

// judgeVeth looks at the host end, which goes with the other end and has no
// carrier while that one is set down.
func (d *Daemon) judgeVeth(p *port, now interfaces) {
	end, ok := now[p.reply.HostEnd]
	switch {
	case !ok && p.req.Adopt != "":
		d.drop(p, fmt.Sprintf("interface %s has gone", p.req.Adopt), "it comes back by itself when the interface does")
	case !ok:
		d.drop(p, "its interface has been deleted, or its namespace has", "it comes back by itself when the namespace does")
	case end.Flags&net.FlagUp == 0:
		d.changed(p, fmt.Sprintf("interface %s is set down", end.Name), "ip link set "+end.Name+" up")
	case end.Flags&net.FlagRunning == 0:
		d.changed(p, fmt.Sprintf("interface %s is set down", p.far()), "set it up inside the container")
	default:
		d.changed(p, "", "")
	}
}

// far is what to call the container's end of a veth.
func (p *port) far() string {
	if p.req.Adopt != "" {
		return "at the other end of " + p.req.Adopt
	}
	return p.reply.Device
}

// judgeDevice looks at an existing interface.
func (d *Daemon) judgeDevice(p *port, now interfaces) {
	if q, ok := p.queue.(*packet.Queue); ok {
		if n, err := q.Dropped(); err == nil {
			p.missed += uint64(n)
		}
	}
	err := now.device(p.reply.Device, p.reply.Ifindex)
	switch {
	case err == nil:
		d.changed(p, "", "")
	case errors.Is(err, errDeviceDown):
		d.changed(p, err.Error(), "ip link set "+p.reply.Device+" up")
	default:
		d.drop(p, err.Error(), "it comes back by itself when the interface does")
	}
}

// changed gives a port that still has its queue another reason, or none.
func (d *Daemon) changed(p *port, reason, hint string) {
	if p.reason == reason {
		return
	}
	wasUp := p.reason == ""
	p.reason, p.hint, p.since = reason, hint, time.Now()
	if reason == "" && !wasUp {
		p.heals++
	}
	d.log.Info("port state", "port", p.name, "reason", reason)
	d.tellPort(p.name, reason)
}

// cut notes what the loop guard did to a port; empty = it is open. The switch
// waits for whoever is told, so this takes no lock that is held while the
// switch is told something.
func (d *Daemon) cut(id frame.PortID, what string) {
	d.cutsMu.Lock()
	defer d.cutsMu.Unlock()
	if what == "" {
		delete(d.cuts, id)
	} else {
		d.cuts[id] = what
	}
}

// cutText is what the loop guard says of p, empty when it is open.
func (d *Daemon) cutText(p *port) string {
	d.cutsMu.Lock()
	defer d.cutsMu.Unlock()
	return d.cuts[p.id]
}
