package config

import (
	"hash/fnv"
	"net/netip"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// The defaults. Those of the profiles are in guards.
const (
	DefaultAgeing       = Duration(300 * time.Second) // IEEE 802.1Q-2022 table 8-6
	DefaultFDBLimit     = 1 << 20
	DefaultSpin         = Duration(20 * time.Microsecond)
	DefaultIfname       = "eth0"
	DefaultMTU          = 1500
	DefaultVXLANMTU     = 1450 // 1500 less the 50 octets of RFC 7348 over IPv4
	DefaultVXLANPort    = 4789
	DefaultDTLSPort     = 4788
	DefaultRekeyRecords = 1 << 30
	DefaultRekeyAfter   = Duration(12 * time.Hour)
	maxIfname           = 15 // IFNAMSIZ less the final zero
)

// guards returns what a profile says of a port's guards.
func guards(p Profile) (loopGuard bool, storm Storm) {
	if p == Lab {
		return false, Storm{new(Rate(0)), new(Rate(0)), new(Rate(0))}
	}
	return true, Storm{new(Rate(1000)), new(Rate(1000)), new(Rate(5000))}
}

// Resolved returns a copy of c, which must be valid, with every default filled
// in: no pointer to a setting is nil, ports have taken over what their untagged
// network says (the first tagged one where there is none), and every network
// has a VLAN. host is the host's name where the file gives none; prev are
// earlier assignments for AssignVLANs.
//
// Still absent are what only the kernel knows (an interface's MAC address), an
// optional section, and a port's MTU and FDB limit, where 0 means the network's
// and none.
func (c *Config) Resolved(host string, prev map[string]frame.VID) *Config {
	r := c.Clone()
	setDefault(&r.Host, host)
	setDefault(&r.Profile, Strict)
	setDefault(&r.FDBLimit, DefaultFDBLimit)
	setDefault(&r.Ageing, new(DefaultAgeing))
	setDefault(&r.Offload.GSO, new(true))
	setDefault(&r.Offload.Coalesce, new(r.Profile != Lab))
	setDefault(&r.Offload.Spin, new(DefaultSpin))
	vids := AssignVLANs(c, prev)
	for name, n := range r.Networks {
		r.resolveNetwork(n, vids[name])
	}
	for name, p := range r.Ports {
		r.resolvePort(name, p)
	}
	if r.Tunnel != nil {
		r.Tunnel.resolve()
	}
	for _, rt := range r.Routers {
		setDefault(&rt.Forward, new(true))
	}
	return r
}

// setDefault sets an absent value.
func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func (c *Config) resolveNetwork(n *Network, vid frame.VID) {
	n.VLAN = vid
	if n.VNI != 0 {
		setDefault(&n.MTU, DefaultVXLANMTU)
	}
	setDefault(&n.MTU, DefaultMTU)
	setDefault(&n.Ageing, new(*c.Ageing))
	setDefault(&n.Mode, Bridge)
	guard, storm := guards(c.Profile)
	setDefault(&n.LoopGuard, &guard)
	n.Storm = n.Storm.or(&storm)
	if c.Profile == Lab {
		n.ForwardReserved = 0xffff
	}
}

// or returns a copy of s, which may be nil, with absent limits taken from t.
func (s *Storm) or(t *Storm) *Storm {
	out := new(Storm)
	for _, from := range []*Storm{s, t} {
		if from == nil {
			continue
		}
		for _, l := range [][2]**Rate{{&out.Broadcast, &from.Broadcast}, {&out.Unknown, &from.Unknown}, {&out.Multicast, &from.Multicast}} {
			if *l[0] == nil && *l[1] != nil {
				*l[0] = new(**l[1])
			}
		}
	}
	return out
}

func (c *Config) resolvePort(name string, p *Port) {
	if i := p.Interface(); i != nil && i.Adopt == "" {
		setDefault(&i.Ifname, defaultIfname(p.Kind(), name))
	}
	n := c.Networks[p.Networks()[0]]
	setDefault(&p.Mode, n.Mode)
	setDefault(&p.LoopGuard, new(*n.LoopGuard))
	p.Storm = p.Storm.or(n.Storm)
	setDefault(&p.Offload.GSO, new(*c.Offload.GSO))
	setDefault(&p.Offload.Coalesce, new(*c.Offload.Coalesce))
}

// defaultIfname is the interface's name where the file gives none.
func defaultIfname(kind, port string) string {
	if kind != "host" {
		return DefaultIfname
	}
	name := "tap-" + port
	return name[:min(len(name), maxIfname)]
}

func (t *Tunnel) resolve() {
	any4 := netip.IPv4Unspecified()
	setDefault(&t.Listen, netip.AddrPortFrom(any4, DefaultVXLANPort))
	setDefault(&t.VXLANReserved, ReservedDrop)
	setDefault(&t.UDPChecksum, new(true))
	for _, p := range t.Peers {
		p.Address = PeerAddr(p.Address.AddrPort(DefaultVXLANPort))
		setDefault(&p.DTLSPort, DefaultDTLSPort)
	}
	if d := t.DTLS; d != nil {
		setDefault(&d.Listen, netip.AddrPortFrom(any4, DefaultDTLSPort))
		setDefault(&d.Rekey.Records, DefaultRekeyRecords)
		setDefault(&d.Rekey.After, new(DefaultRekeyAfter))
	}
}

// AssignVLANs returns the VID of every network: the written one, else prev's
// unless it is taken, else a free one at or after a place that the name alone
// decides. An assignment therefore stays the same when it is handed in as prev,
// whatever other networks come and go. A network beyond the 4,094th gets none.
func AssignVLANs(c *Config, prev map[string]frame.VID) map[string]frame.VID {
	out := make(map[string]frame.VID, len(c.Networks))
	var used [4096]bool
	take := func(name string, v frame.VID) bool {
		if !v.Valid() || used[v] {
			return false
		}
		out[name], used[v] = v, true
		return true
	}
	names := sortedKeys(c.Networks)
	for _, name := range names {
		take(name, c.Networks[name].VLAN)
	}
	for _, name := range names {
		if c.Networks[name].VLAN == 0 {
			take(name, prev[name])
		}
	}
	for _, name := range names {
		if _, done := out[name]; done || len(out) == 4094 {
			continue
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(name))
		for v := h.Sum32() % 4094; !take(name, frame.VID(v+1)); v = (v + 1) % 4094 {
		}
	}
	return out
}
