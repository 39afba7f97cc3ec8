package daemon

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

// tellWorker tells that this worker forwards, and why there is a new one.
func (d *Daemon) tellWorker(g keeper.Greeting) {
	cause := "start"
	switch {
	case g.Takeover:
		cause = "upgrade"
	case d.generation > 1:
		cause = "restart"
	}
	d.hub.publish(api.Event{
		Kind: "worker", What: fmt.Sprintf("worker %d forwards (generation %d, %s)", os.Getpid(), d.generation, cause),
		Fields: map[string]any{"pid": os.Getpid(), "generation": d.generation, "cause": cause, "version": d.version},
	})
}

// tellPort tells that a port is down for a reason, or up without one.
func (d *Daemon) tellPort(name, reason string) {
	e := api.Event{Kind: "port", What: fmt.Sprintf("port %s is up", name), Port: name, Fields: map[string]any{"state": "up"}}
	if reason != "" {
		e.What = fmt.Sprintf("port %s is down: %s", name, reason)
		e.Fields = map[string]any{"state": "down", "reason": reason}
	}
	d.hub.publish(e)
}

// tellCommit tells of a change that is in force, and what it did to ports.
func (d *Daemon) tellCommit(c *change, lines []string) {
	d.hub.publish(api.Event{
		Kind: "config", What: fmt.Sprintf("configuration %d: %s", c.st.Revision, strings.Join(lines, "; ")),
		Fields: map[string]any{"revision": c.st.Revision, "changes": len(lines)},
	})
	for _, name := range slices.Sorted(maps.Keys(d.ports)) {
		p, old := d.ports[name], c.oldPorts[name]
		switch {
		case old == p:
		case old == nil:
			d.tellPort(name, p.reason)
		case old.reply.MTU != p.reply.MTU:
			d.hub.publish(api.Event{
				Kind: "port", What: fmt.Sprintf("port %s: MTU %d → %d", name, old.reply.MTU, p.reply.MTU), Port: name,
				Fields: map[string]any{"mtu": p.reply.MTU, "old_mtu": old.reply.MTU},
			})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.oldPorts)) {
		if d.ports[name] == nil {
			d.hub.publish(api.Event{Kind: "port", What: fmt.Sprintf("port %s is removed", name), Port: name, Fields: map[string]any{"state": "removed"}})
		}
	}
}

// stormAt is a storm that has begun on a port.
type stormAt struct {
	class  string
	begin  time.Time
	drops  uint64 // of the port when it began
	latest uint64 // drops when last looked
	rose   time.Time
}

// stormOver is how long no frame is dropped after a storm.
const stormOver = 10 * time.Second

// tellStorm tells that a storm begins. It must not take mu.
func (d *Daemon) tellStorm(e vswitch.Event, name string) {
	n, _ := d.sw.PortStats(e.Port)
	drops := n.Drops[frame.Storm]
	d.cutsMu.Lock()
	s := d.storms[e.Port]
	again := s != nil
	if !again {
		d.storms[e.Port] = &stormAt{class: e.Class.String(), begin: e.Time, drops: drops, latest: drops, rose: e.Time}
	}
	d.cutsMu.Unlock()
	if again {
		return
	}
	d.log.Warn("storm control drops frames", "port", name, "class", e.Class.String())
	d.hub.publish(api.Event{
		Time: e.Time, Kind: "storm", What: fmt.Sprintf("storm: port %s floods %s frames faster than its limit", name, e.Class), Port: name,
		Fields: map[string]any{"storm": true, "class": e.Class.String()},
	})
}

// watchStorms tells which storms are over.
func (d *Daemon) watchStorms(now time.Time) {
	n := *d.names.Load()
	d.cutsMu.Lock()
	defer d.cutsMu.Unlock()
	for id, s := range d.storms {
		stats, ok := d.sw.PortStats(id)
		drops := stats.Drops[frame.Storm]
		if ok && drops != s.latest {
			s.latest, s.rose = drops, now
			continue
		}
		if ok && now.Sub(s.rose) < stormOver {
			continue
		}
		delete(d.storms, id)
		d.hub.publish(api.Event{
			Kind: "storm", Port: n.port(id),
			What:   fmt.Sprintf("the storm on port %s is over: %d frames dropped in %v", n.port(id), s.latest-s.drops, s.rose.Sub(s.begin).Round(time.Second)),
			Fields: map[string]any{"storm": false, "class": s.class, "drops": s.latest - s.drops},
		})
	}
}

// toldPeer is what was told of a peer last.
type toldPeer struct {
	Name    string
	Address netip.AddrPort
	State   tunnel.State
	Passive bool
	MTU     int
}

// tellPeer tells what has changed of a peer since it was last told. It must not
// take mu.
func (d *Daemon) tellPeer(s tunnel.Status, at time.Time) {
	d.cutsMu.Lock()
	defer d.cutsMu.Unlock()
	old, known := d.peers[s.ID]
	known = known && old.Name == s.Name
	told := toldPeer{s.Name, s.Address, s.State, s.Passive, s.MTU}
	d.peers[s.ID] = told
	if known && old == told {
		return
	}
	what := fmt.Sprintf("peer %s at %v is %v, its path carries packets of %d octets", s.Name, s.Address, s.State, s.MTU)
	switch {
	case known && old.State == s.State && old.MTU != s.MTU:
		what = fmt.Sprintf("peer %s: its path carries packets of %d octets, %d before", s.Name, s.MTU, old.MTU)
	case known && old.State == s.State && s.Passive:
		what = fmt.Sprintf("peer %s sends frames and answers no probe, as the kernel's VTEP", s.Name)
	case known && old.State == s.State && old.Passive:
		what = fmt.Sprintf("peer %s answers probes", s.Name)
	}
	d.log.Info("peer", "peer", s.Name, "address", s.Address, "state", s.State, "mtu", s.MTU, "passive", s.Passive)
	d.hub.publish(api.Event{
		Time: at, Kind: "peer", What: what, Peer: s.Name,
		Fields: map[string]any{"state": s.State.String(), "address": s.Address.String(), "mtu": s.MTU, "passive": s.Passive},
	})
}

// forgetPeers forgets what was told of peers that have gone. The caller holds
// mu.
func (d *Daemon) forgetPeers() {
	d.cutsMu.Lock()
	defer d.cutsMu.Unlock()
	known := map[string]bool{}
	maps.DeleteFunc(d.peers, func(id frame.PortID, _ toldPeer) bool { return d.vtep == nil || d.vtep.Peer(id) == nil })
	for _, p := range d.peerSpecs() {
		known[p.Name] = true
	}
	maps.DeleteFunc(d.links, func(name string, _ toldLink) bool { return !known[name] })
}

// allPeers is the state of all peers, one after the other.
func (d *Daemon) allPeers() iter.Seq[tunnel.Status] {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.vtep == nil {
		return func(func(tunnel.Status) bool) {}
	}
	return d.vtep.All()
}

// peerList is the state of all peers.
func (d *Daemon) peerList() []tunnel.Status { return slices.Collect(d.allPeers()) }

// flapEvery is how often the FDB's history is looked through for stations that
// flap.
const flapEvery = 5 * time.Second

// watchFlaps tells which stations begin to flap and which have stopped, one
// event for all that do so between the same ports.
func (d *Daemon) watchFlaps(now time.Time) {
	moves := d.table.Counters().Moves
	if moves == d.moves && len(d.flapping) == 0 {
		return
	}
	d.moves = moves
	d.mu.Lock()
	flaps := d.flaps(now)
	d.mu.Unlock()
	groups := map[string]api.Flap{}
	for _, f := range flaps {
		if _, ok := groups[flapGroup(f)]; !ok && len(groups) < maxFlapProblems {
			groups[flapGroup(f)] = f
		}
	}
	for _, g := range sortedNames(groups) {
		if _, told := d.flapping[g]; !told {
			f := groups[g]
			d.tellFlap(f, true, fmt.Sprintf("station %s flaps %s, %s: likely %s", f.MAC, g, flapRate(f), f.Cause))
		}
	}
	for _, g := range sortedNames(d.flapping) {
		if _, still := groups[g]; !still {
			d.tellFlap(d.flapping[g], false, "no station flaps any more "+g)
		}
	}
	d.flapping = groups
}

func (d *Daemon) tellFlap(f api.Flap, begins bool, what string) {
	d.hub.publish(api.Event{
		Kind: "fdb", What: what, Network: f.Network, MAC: f.MAC.String(),
		Fields: map[string]any{"flapping": begins, "ports": f.Ports, "moves_per_minute": f.Rate, "cause": f.Cause, "hint": f.Hint},
	})
}

// watchChanges tells of what has no event of its own.
func (d *Daemon) watchChanges(now time.Time) {
	d.watchStorms(now)
	d.noteRefused(d.allPeers(), now)
	if now.Sub(d.flapsSeen) >= flapEvery {
		d.flapsSeen = now
		d.watchFlaps(now)
	}
}
