package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/tapestry-net/tapestry/capture/dissect"
	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/tracer"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/inject"
	"github.com/tapestry-net/tapestry/tunnel"
)

// Trace implements api.Backend.
func (d *Daemon) Trace(ctx context.Context, r api.TraceRequest) (api.TraceRun, error) {
	return d.tracer.Trace(ctx, r)
}

// traced is the Daemon as traces see it.
type traced struct{ d *Daemon }

var _ tracer.Host = traced{}

// Here implements tracer.Host.
func (t traced) Here() tracer.Here {
	d := t.d
	d.mu.Lock()
	defer d.mu.Unlock()
	n, nets := d.names.Load(), map[frame.VID]tracer.Network{}
	for name, network := range d.eff.Networks {
		nets[d.st.VLANs[name]] = tracer.Network{VNI: int(network.VNI), Encrypt: network.Encrypt == config.EncryptRequired}
	}
	h := tracer.Here{
		Host: d.eff.Host, Ports: make(map[string]tracer.Port, len(d.ports)),
		Place: n.place,
		Network: func(v frame.VID) tracer.Network {
			w := nets[v]
			w.Name = n.network(v)
			return w
		},
	}
	for name, p := range d.ports {
		o := tracer.Port{ID: p.id, Request: p.req, Reply: p.reply, Hint: p.hint}
		if !p.up() {
			o.Down = p.reason
		}
		for _, network := range d.eff.Ports[name].Networks() {
			o.VIDs = append(o.VIDs, d.st.VLANs[network])
		}
		if c := d.eff.Ports[name]; c.Untagged() == "" && len(c.Trunk) > 0 {
			o.Tag = frame.MakeTag(d.st.VLANs[c.Trunk[0]], 0, false)
		}
		h.Ports[name] = o
	}
	if d.vtep == nil {
		return h
	}
	carried := map[frame.PortID][]frame.VID{}
	for _, p := range d.peerSpecs() {
		carried[p.ID] = p.VIDs
	}
	for _, s := range d.vtep.Status() {
		h.Peers = append(h.Peers, tracer.Peer{
			ID: s.ID, Name: s.Name, Down: s.State == tunnel.Down, Passive: s.Passive, Sealed: s.Link != nil, VIDs: carried[s.ID],
		})
	}
	return h
}

// Entry implements tracer.Host.
func (t traced) Entry(v frame.VID, m frame.MAC, at frame.PortID) (entry, taught string) {
	e, ok := t.d.table.Entry(fdb.MakeKey(v, m))
	if !ok || e.Port != at {
		return "", ""
	}
	entry = fmt.Sprintf("%s on %s", m, t.d.names.Load().port(e.Port))
	if e.Static {
		return entry + ", static", ""
	}
	entry += fmt.Sprintf(", heard %d s ago", int(e.Age(tick()).Seconds()))
	if r, ok := t.d.teacher(e); ok && len(r.Head) > 0 {
		taught = fmt.Sprintf("%s at %s", dissect.Line(r.Head), time.Unix(0, r.Wall).Format(time.TimeOnly))
	}
	return entry, taught
}

// Drops implements tracer.Host.
func (t traced) Drops() map[frame.PortID]tracer.Counts {
	d := t.d
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make(map[frame.PortID]tracer.Counts, len(d.ports))
	for p := range maps.Values(d.ports) {
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

// Observe implements tracer.Host.
func (t traced) Observe(o, refused vswitch.Observer) {
	t.d.sw.Observe(o)
	if refused != nil {
		t.d.observers.Add(refused)
	}
}

// Unobserve implements tracer.Host.
func (t traced) Unobserve(o, refused vswitch.Observer) {
	if refused != nil {
		t.d.observers.Remove(refused)
	}
	t.d.sw.Unobserve(o)
}

// Inject implements tracer.Host.
func (t traced) Inject(f inject.Frame) bool { return t.d.inject.Put(f) }

// Ask implements tracer.Host.
func (t traced) Ask(ctx context.Context, id frame.PortID, text []byte, sealed bool) (tunnel.Told, error) {
	t.d.mu.Lock()
	v := t.d.vtep
	t.d.mu.Unlock()
	if v == nil {
		return tunnel.Told{}, errors.New("the tunnel was taken out of the configuration")
	}
	return v.Ask(ctx, id, text, sealed)
}

// place is the name of a port, or of the peer that it stands for.
func (n *names) place(id frame.PortID) (name string, peer bool) {
	if p, ok := n.peers[id]; ok {
		return p, true
	}
	return n.port(id), false
}
