package daemon

import (
	"maps"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// modes translates config's words; the default is bridge.
var modes = map[config.Mode]vswitch.Mode{
	config.Bridge:   vswitch.ModeBridge,
	config.VEPA:     vswitch.ModeVEPA,
	config.Private:  vswitch.ModePrivate,
	config.Passthru: vswitch.ModePassthru,
}

// supported refuses what the file format has and this worker does not do.
func supported(c *config.Config) error {
	if len(c.Routers) == 0 {
		return nil
	}
	return &api.Error{Code: 2, Msg: "routers: this version does not route", Hint: "take the key `routers` out of the file"}
}

// request is what the keeper is asked for on behalf of one port. c is resolved.
func request(c *config.Config, name string) keeper.PortRequest {
	p := c.Ports[name]
	r := keeper.PortRequest{
		Name: name, Kind: p.Kind(), MTU: portMTU(c, p),
		NoGSO: p.Offload.GSO != nil && !*p.Offload.GSO,
	}
	if p.Device != nil {
		r.Device = p.Device.Name
		return r
	}
	i := p.Interface()
	r.Netns, r.Ifname, r.Adopt = i.Netns, i.Ifname, i.Adopt
	r.Addresses, r.Gateway, r.MAC = slices.Clone(i.Address), i.Gateway, i.MAC
	return r
}

// portMTU is the port's own MTU, or the smallest of its networks'.
func portMTU(c *config.Config, p *config.Port) int {
	if p.MTU != 0 {
		return p.MTU
	}
	mtu := 0
	for _, n := range p.Networks() {
		if m := c.Networks[n].MTU; m != 0 && (mtu == 0 || m < mtu) {
			mtu = m
		}
	}
	return mtu
}

// spec is what the switch is told. c is resolved; ports say which queues are
// there and under which numbers.
func spec(c *config.Config, vlans map[string]frame.VID, ports map[string]*port) vswitch.Spec {
	s := vswitch.Spec{Lab: c.Profile == config.Lab}
	for _, name := range slices.Sorted(maps.Keys(c.Networks)) {
		n := c.Networks[name]
		s.Networks = append(s.Networks, vswitch.Network{
			Name: name, VID: vlans[name], MTU: n.MTU, Ageing: duration(n.Ageing),
			ForwardReserved: uint16(n.ForwardReserved),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Ports)) {
		if p := ports[name]; p != nil {
			s.Ports = append(s.Ports, portSpec(c, c.Ports[name], p, vlans))
		}
	}
	return s
}

func portSpec(c *config.Config, cp *config.Port, p *port, vlans map[string]frame.VID) vswitch.Port {
	out := vswitch.Port{
		ID: p.id, Name: p.name, Queue: p.queue, MTU: cp.MTU,
		Native: vlans[cp.Untagged()], Isolated: cp.Isolated, Hairpin: cp.Hairpin,
		Mode: modes[cp.Mode], Uplink: cp.Uplink, Sources: cp.Sources,
		LoopGuard: isOn(cp.LoopGuard), FDBLimit: cp.FDBLimit,
		NoCoalesce: !isOn(cp.Offload.Coalesce), Storm: storm(cp.Storm),
	}
	for _, n := range cp.Trunk {
		if n != cp.Untagged() {
			out.Tagged = append(out.Tagged, vlans[n])
		}
	}
	if cp.MACPin.On {
		out.MACPin = cp.MACPin.MAC
		if out.MACPin.IsZero() {
			out.MACPin = p.reply.MAC
		}
	}
	return out
}

func storm(s *config.Storm) vswitch.Storm {
	if s == nil {
		return vswitch.Storm{}
	}
	return vswitch.Storm{Broadcast: rate(s.Broadcast), Unknown: rate(s.Unknown), Multicast: rate(s.Multicast)}
}

func rate(r *config.Rate) uint32 {
	if r == nil {
		return 0
	}
	return uint32(*r)
}

func duration(d *config.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return time.Duration(*d)
}

func isOn(b *bool) bool { return b != nil && *b }
