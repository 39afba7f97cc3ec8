package daemon

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/offload"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// Explain implements api.Backend.
func (d *Daemon) Explain(r api.ExplainRequest) (api.ExplainReply, error) {
	data, err := hex.DecodeString(r.Hex)
	if err != nil {
		return api.ExplainReply{}, &api.Error{Code: 2, Msg: fmt.Sprintf("frame: %v", err), Hint: "give the frame's octets as hexadecimal digits"}
	}
	if len(data) > frame.MaxLen {
		return api.ExplainReply{}, &api.Error{Code: 2, Msg: fmt.Sprintf("frame: %d octets are more than a frame can have (%d)", len(data), frame.MaxLen)}
	}
	from, remote, err := d.remote(r.In)
	if err != nil {
		return api.ExplainReply{}, err
	}
	if remote {
		return d.explainDatagram(r, from, data)
	}
	d.mu.Lock()
	in := d.portID(r.In)
	d.mu.Unlock()
	if in == 0 {
		return api.ExplainReply{}, d.noPort(r.In)
	}
	if r.VNI != 0 || r.Datagram || r.OuterTOS != 0 {
		return api.ExplainReply{}, &api.Error{Code: 2, Msg: fmt.Sprintf("in: port %s hears no tunnel", clip(r.In)), Hint: "name a peer as peer/NAME"}
	}
	f := frame.Frame{Data: data}
	if r.Segment != 0 {
		if f.GSO, err = segments(data, r.Segment); err != nil {
			return api.ExplainReply{}, err
		}
	}
	return d.explanation(d.sw.Explain(in, f)), nil
}

// segments is the offload metadata of a frame that stands for several.
func segments(data []byte, size int) (frame.GSO, error) {
	if size < 1 || size > frame.MaxLen {
		return frame.GSO{}, &api.Error{Code: 2, Msg: fmt.Sprintf("segment: got %d, want 1 to %d octets", size, frame.MaxLen)}
	}
	g, err := offload.Super(data, size)
	if err != nil {
		return g, &api.Error{Code: 2, Msg: fmt.Sprintf("segment: %v", err), Hint: "only TCP and UDP with a payload have segments"}
	}
	return g, nil
}

// remote tells whether in is a peer, or anybody's address, and which address.
func (d *Daemon) remote(in string) (from netip.Addr, ok bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, isPeer := strings.CutPrefix(in, peerPrefix)
	if !isPeer {
		from, err = netip.ParseAddr(in)
		if err != nil || d.ports[in] != nil {
			return from, false, nil
		}
	}
	if d.vtep == nil {
		return from, false, &api.Error{Code: 5, Msg: fmt.Sprintf("in: %q: this switch has no tunnel", clip(in)), Hint: "see `tapestry peer add --help`"}
	}
	if !isPeer {
		return from, true, nil
	}
	for _, p := range d.peerSpecs() {
		if p.Name == name {
			return p.Address.Addr(), true, nil
		}
	}
	return from, false, &api.Error{Code: 5, Msg: fmt.Sprintf("no peer %q", clip(name)), Hint: "`tapestry peer ls` lists the peers"}
}

// explainDatagram explains what comes from the underlay.
func (d *Daemon) explainDatagram(r api.ExplainRequest, from netip.Addr, data []byte) (api.ExplainReply, error) {
	if r.Segment != 0 {
		return api.ExplainReply{}, &api.Error{Code: 2, Msg: "segment: a datagram carries no GSO frame", Hint: "explain one of its segments"}
	}
	d.mu.Lock()
	v := d.vtep
	vni, err := d.vniOf(r, from)
	d.mu.Unlock()
	if err != nil {
		return api.ExplainReply{}, err
	}
	if v == nil {
		return api.ExplainReply{}, d.noPort(r.In) // gone since it was looked up
	}
	if !r.Datagram {
		h := make([]byte, vxlan.HeaderLen, vxlan.HeaderLen+len(data))
		vxlan.Put(h, vni)
		data = append(h, data...)
	}
	a := v.Explain(from, data, r.OuterTOS, !r.Datagram && v.sealed(from, vni))
	x := vswitch.Explanation{Steps: a.Steps, Verdict: frame.Verdict{Reason: a.Refused}}
	if a.Refused == frame.ReasonNone {
		x = d.sw.Explain(a.Frame.In, a.Frame)
		x.Steps = slices.Concat(a.Steps, x.Steps)
	} else {
		x.Steps = append(x.Steps, frame.Step{Stage: "verdict", What: "DROP", Result: a.Refused.String()})
	}
	return d.explanation(x), nil
}

// vniOf is the VNI of a frame that comes from an address: the one that was given,
// or the only one that the peer may carry. The caller holds mu.
func (d *Daemon) vniOf(r api.ExplainRequest, from netip.Addr) (vxlan.VNI, error) {
	if r.VNI != 0 || r.Datagram {
		if v := vxlan.VNI(r.VNI); v > vxlan.MaxVNI {
			return 0, &api.Error{Code: 2, Msg: fmt.Sprintf("vni: got %d, want 1 to %d", v, vxlan.MaxVNI)}
		}
		return vxlan.VNI(r.VNI), nil
	}
	var carried []string
	var vni vxlan.VNI
	spec := tunnel.Spec{}
	if d.vtep != nil {
		spec = d.tunnelSpec(d.eff)
	}
	for _, p := range spec.Peers {
		if p.Address.Addr().Unmap() != from.Unmap() {
			continue
		}
		for _, n := range spec.Networks {
			if slices.Contains(p.VIDs, n.VID) {
				carried = append(carried, fmt.Sprintf("%v (%s)", n.VNI, d.names.Load().network(n.VID)))
				vni = n.VNI
			}
		}
	}
	if len(carried) > 1 {
		return 0, &api.Error{Code: 2, Msg: fmt.Sprintf("vni: %s may carry several networks", clip(r.In)), Hint: "add `vni N`: " + strings.Join(carried, ", ")}
	}
	return vni, nil
}

// explanation is x in the users' words.
func (d *Daemon) explanation(x vswitch.Explanation) api.ExplainReply {
	n := *d.names.Load()
	out := api.ExplainReply{Action: x.Verdict.Action, Reason: x.Verdict.Reason, VLAN: int(x.Verdict.VID), Fresh: x.Verdict.Fresh, Out: []api.Egress{}}
	for _, s := range x.Steps {
		out.Steps = append(out.Steps, api.Step(s))
	}
	for _, c := range x.Copies {
		e := api.Egress{Port: n.port(c.Port), Tag: tagText(c.Tag), Reason: refusedText(c)}
		if o, ok := x.Outer[c.Port]; ok {
			e.Outer = &api.Outer{
				VNI: o.VNI, Source: o.Source.String(), Destination: o.Destination.String(), TTL: int(o.TTL),
				DSCP: int(o.TOS >> 2), ECN: int(o.TOS & 3), Length: o.Len,
			}
		}
		out.Out = append(out.Out, e)
	}
	return out
}

func tagText(t frame.Tag) string {
	if !t.Present() {
		return "untagged"
	}
	return fmt.Sprintf("tagged %d pcp %d", t.VID(), t.PCP())
}

func refusedText(c vswitch.Copy) string {
	if c.Refused == frame.ReasonNone {
		return ""
	}
	return c.Refused.String()
}
