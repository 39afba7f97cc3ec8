package daemon

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/audit"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// Check implements api.Backend.
func (d *Daemon) Check(ctx context.Context, r api.CheckRequest) (api.CheckReply, error) {
	began := time.Now()
	traffic, refused, lost := d.watchTraffic(ctx, time.Duration(r.WatchMS)*time.Millisecond)
	if ctx.Err() != nil {
		return api.CheckReply{}, ctx.Err()
	}
	reply := api.CheckReply{Findings: []api.Finding{}, Frames: traffic.Frames, Missed: lost + uint64(traffic.Left), WatchedS: time.Since(began).Seconds()}
	if r.WatchMS == 0 {
		reply.WatchedS = 0
	}
	for _, p := range d.Status().Problems {
		reply.Findings = append(reply.Findings, api.Finding{Area: "status", What: p.What, Hint: p.Hint})
	}
	wanted := d.wanted()
	peers := d.peersToCheck()
	reply.Entries, reply.Peers = d.table.Len(), len(peers)

	found := d.checkState()
	ports, own, err := d.kernelState()
	reply.Ports = len(ports)
	if err != nil {
		reply.Findings = append(reply.Findings, api.Finding{
			Area: audit.AreaKernel, What: fmt.Sprintf("the kernel's state can't be read: %v", err), Hint: "a keeper that is older than the worker can't tell: restart the switch",
		})
	} else {
		found = append(found, audit.Kernel(ports, own)...)
	}
	found = append(found, audit.Table(d.tableEntries(), wanted)...)
	found = append(found, traffic.Findings(wanted, d.lookUp, d.pasts())...)
	found = append(found, audit.Peers(peers, d.refusals(refused), d.networkOf)...)
	found = append(found, d.checkCounters(ctx)...)
	for _, f := range found {
		reply.Findings = append(reply.Findings, api.Finding(f))
	}
	return reply, nil
}

// checkHead is how many octets of a frame are looked at: of a refused datagram
// all headers up to VXLAN, over IPv6.
const checkHead = 96

// watchTraffic looks at what comes in for a while; lost is how many packets came
// too fast.
func (d *Daemon) watchTraffic(ctx context.Context, long time.Duration) (t *audit.Traffic, refused *audit.Refusals, lost uint64) {
	t, refused = audit.NewTraffic(), audit.NewRefusals()
	if long == 0 {
		return t, refused, 0
	}
	ring := capture.NewRing(capture.Choice{Direction: capture.In, Snap: checkHead}, 0)
	d.observe(ring)
	defer d.unobserve(ring)
	watching, stop := context.WithTimeout(ctx, long)
	defer stop()
	look(watching, ring, func(rec *capture.Record) {
		if rec.Verdict.Reason.Stage() == frame.StageTunnel {
			from, vni := audit.Outer(rec.Data)
			refused.Add(audit.Refusal{Peer: rec.In, From: from, Reason: rec.Verdict.Reason, VNI: vni}, 1)
		} else if h, ok := frame.Parse(rec.Data); ok {
			t.Add(rec.In, rec.Verdict, h)
		}
	})
	return t, refused, ring.LostAll()
}

// portion is how many records are looked at before the clock is: traffic may be
// faster than who looks at it.
const portion = 256

// look calls see with what comes into ring until ctx ends, and with what is there
// then.
func look(ctx context.Context, ring *capture.Ring, see func(*capture.Record)) {
	var rec capture.Record
	for ctx.Err() == nil {
		n := 0
		for n < portion && ring.Poll(&rec) {
			see(&rec)
			n++
		}
		if n == portion {
			continue
		}
		select {
		case <-ring.Ready():
		case <-ctx.Done():
		}
	}
	for mark := ring.Mark(); !ring.Passed(mark) && ring.Poll(&rec); {
		see(&rec)
	}
}

// checkState compares what is in force with what a restart would find.
func (d *Daemon) checkState() []audit.Finding {
	d.mu.Lock()
	defer d.mu.Unlock()
	saved, ok, err := load(int(d.state.Fd()))
	f := audit.Finding{Area: "config", Subject: "the saved state", Want: "the configuration in force", Hint: "make a change that succeeds, which saves everything: tapestry apply -c FILE"}
	switch {
	case err != nil:
		f.Got, f.What = "unreadable", fmt.Sprintf("the saved state can't be read, a restarted switch would not start: %v", err)
	case !ok:
		f.Got, f.What = "none", "the state file has gone: a restarted switch would begin with the file that it is given"
	case saved.Config != string(d.cfg.Marshal()):
		f.Got, f.What = "another configuration", "the saved state is not the configuration in force: a restarted switch would have the saved one"
	default:
		return nil
	}
	return []audit.Finding{f}
}

// wanted is what the table is compared with.
func (d *Daemon) wanted() *audit.Wanted {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := *d.names.Load()
	w := &audit.Wanted{Members: map[frame.PortID]audit.Member{}, Static: map[audit.Key]frame.PortID{}, Network: n.network}
	for name, p := range d.ports {
		m := audit.Member{Name: name, Reason: p.reason}
		if !p.reply.Packet && p.req.Adopt == "" {
			m.MAC = p.reply.MAC
		}
		for _, network := range d.eff.Ports[name].Networks() {
			m.VIDs = append(m.VIDs, d.st.VLANs[network])
		}
		w.Members[p.id] = m
	}
	for _, p := range d.peerSpecs() {
		w.Members[p.ID] = audit.Member{Name: peerPrefix + p.Name, VIDs: p.VIDs}
	}
	if d.vtep != nil {
		for _, s := range d.vtep.Status() {
			if m, ok := w.Members[s.ID]; ok && s.State == tunnel.Down {
				m.Reason = "it doesn't answer"
				w.Members[s.ID] = m
			}
		}
	}
	for _, e := range d.eff.FDB {
		if p := d.ports[e.Port]; p != nil {
			w.Static[audit.Key{VID: d.st.VLANs[e.Network], MAC: e.MAC}] = p.id
		}
	}
	ageing := map[frame.VID]string{}
	for name, network := range d.eff.Networks {
		ageing[d.st.VLANs[name]] = duration(network.Ageing).String()
	}
	w.Ageing = func(v frame.VID) string { return ageing[v] }
	return w
}

// tableEntries are the entries as the audit wants them.
func (d *Daemon) tableEntries() func(yield func(audit.Entry) bool) {
	return func(yield func(audit.Entry) bool) {
		d.table.Walk(func(e fdb.Entry) bool {
			return yield(audit.Entry{Key: audit.Key{VID: e.VID, MAC: e.MAC}, Port: e.Port, Static: e.Static})
		})
	}
}

func (d *Daemon) lookUp(k audit.Key) (audit.Entry, bool) {
	e, ok := d.table.Entry(fdb.MakeKey(k.VID, k.MAC))
	return audit.Entry{Key: k, Port: e.Port, Static: e.Static}, ok
}

// pasts says how the entry of a station ended, if the history knows. Reading the
// history holds up who learns, so it is read once, and only if somebody asks.
func (d *Daemon) pasts() func(audit.Key) string {
	last := sync.OnceValue(func() map[audit.Key]fdb.Record {
		last := map[audit.Key]fdb.Record{}
		for _, e := range d.table.History(math.MaxInt) {
			e.Head = nil
			last[audit.Key{VID: e.VID, MAC: e.MAC}] = e
		}
		return last
	})
	return func(k audit.Key) string {
		e, ok := last()[k]
		if !ok {
			return ""
		}
		how := e.Event.String()
		if e.Event == fdb.EventAged {
			how = "aged out"
		}
		return fmt.Sprintf("%s at %s, behind port %s", how, time.Unix(0, e.Wall).Format(time.TimeOnly), d.names.Load().port(e.Port))
	}
}

// kernelState asks the keeper for the interfaces of every port that is up, and
// for those of its own namespace.
func (d *Daemon) kernelState() (ports []audit.Port, own []audit.Interface, err error) {
	d.mu.Lock()
	spaces := map[uint64]string{} // a port of each namespace
	of := map[string]uint64{}
	for _, name := range sortedNames(d.ports) {
		p := d.ports[name]
		if !p.up() {
			continue // status tells why
		}
		ports = append(ports, auditPort(p))
		if p.req.Netns != "" {
			spaces[p.reply.NetnsID], of[name] = name, p.reply.NetnsID
		}
	}
	d.mu.Unlock()
	if own, err = d.interfacesAt(""); err != nil {
		return nil, nil, err
	}
	within := map[uint64][]audit.Interface{}
	for id, name := range spaces {
		// One that has just gone has no interfaces.
		if within[id], err = d.interfacesAt(name); err != nil && codeOf(err) != keeper.CodeNotFound {
			return nil, nil, err
		}
	}
	for i := range ports {
		ports[i].Inside = own
		if id, ok := of[ports[i].Name]; ok {
			ports[i].Inside = within[id]
		}
	}
	return ports, own, nil
}

func auditPort(p *port) audit.Port {
	a := audit.Port{
		Name: p.name, Netns: p.req.Netns, Device: p.reply.Device, Index: p.reply.Ifindex, MAC: p.reply.MAC, MTU: p.reply.MTU,
		Addresses: p.req.Addresses, Gateway: p.req.Gateway, HostEnd: p.reply.HostEnd, Splice: p.reply.Splice,
	}
	if p.renamed != "" {
		a.Device = p.renamed // status tells
	}
	if p.reply.Packet || p.req.Adopt != "" {
		a.Least, a.MAC, a.MTU = true, frame.MAC{}, p.req.MTU
	}
	return a
}

func (d *Daemon) interfacesAt(port string) ([]audit.Interface, error) {
	all, err := d.keeper.Interfaces(keeper.Place{Port: port})
	if err != nil {
		return nil, err
	}
	out := make([]audit.Interface, len(all))
	for i, x := range all {
		out[i] = audit.Interface{
			Index: x.Index, Name: x.Name, MAC: x.MAC, MTU: x.MTU, Up: x.Up, Carrier: x.Carrier, Master: x.Master, Addresses: x.Addresses, Gateways: x.Gateways, Redirect: x.Redirect,
		}
	}
	return out, nil
}

// networkOf is the network that has a VNI.
func (d *Daemon) networkOf(v vxlan.VNI) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range sortedNames(d.eff.Networks) {
		if d.eff.Networks[name].VNI == uint32(v) {
			return name
		}
	}
	return ""
}
