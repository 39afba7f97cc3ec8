package daemon

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/tunnel/discovery"
)

// others are the peers of c that are not this host: the same list serves all
// hosts. The caller holds mu.
func (d *Daemon) others(c *config.Config) []discovery.Peer {
	if c.Tunnel == nil {
		return nil
	}
	return discovery.Others(listed(c), c.Host, d.own)
}

// listed are all hosts in the tunnel's part of c, which has one.
func listed(c *config.Config) []discovery.Peer {
	list := make([]discovery.Peer, 0, len(c.Tunnel.Peers))
	for _, name := range slices.Sorted(maps.Keys(c.Tunnel.Peers)) {
		p := c.Tunnel.Peers[name]
		list = append(list, discovery.Peer{Name: name, Address: p.Address.AddrPort(config.DefaultVXLANPort), Networks: p.Networks})
	}
	return list
}

// meetOwn notes the addresses that this host has now. As long as the tunnel's
// part of the file stays as it is, one that goes away is this host's own still:
// when it comes back, a host that has taken itself for a peer would hear its own
// floods. The caller holds mu.
func (d *Daemon) meetOwn(c *config.Config) {
	if c.Tunnel == nil {
		d.own = nil
		return
	}
	if d.eff == nil || !reflect.DeepEqual(c.Tunnel, d.eff.Tunnel) {
		d.own = nil
	}
	for _, a := range ownAddresses(c.Tunnel.Listen.Addr()) {
		if !slices.Contains(d.own, a) {
			d.own = append(d.own, a)
		}
	}
}

// lookForOwn finds this host's entry in the list when its address comes later
// than the switch, as from a DHCP server. Without a new address there is nothing
// to find. The caller holds mu.
func (d *Daemon) lookForOwn() {
	if d.eff.Tunnel == nil {
		return
	}
	known := d.own
	if d.meetOwn(d.eff); len(d.own) == len(known) {
		return
	}
	now := d.others(d.eff)
	if len(now) == len(discovery.Others(listed(d.eff), d.eff.Host, known)) {
		return
	}
	if err := d.enforce(); err != nil {
		d.own = known // to be tried again
		d.log.Error("leave this host out of its peers", "err", err)
		return
	}
	d.log.Info("an entry of this host is found among the peers", "peers", len(now))
}

// absent names the addresses that are listened on and that no interface has, as
// before a DHCP server has answered. The caller holds mu.
func (d *Daemon) absent() []api.Problem {
	here := ownAddresses(netip.IPv4Unspecified())
	var out []api.Problem
	for _, l := range []struct {
		field string
		at    netip.AddrPort
	}{{"tunnel.listen", d.vtep.listen}, {"tunnel.dtls.listen", d.vtep.dtls.listen}} {
		a := l.at.Addr()
		if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || slices.Contains(here, a) {
			continue
		}
		out = append(out, api.Problem{
			What: fmt.Sprintf("%s: no interface has %v: nothing is heard or sent until one has", l.field, a),
			Hint: "`ip addr` shows the addresses of this host; it needs no restart when the address comes",
		})
	}
	return out
}

// ownAddresses are those of this host that the tunnel listens on; none when the
// kernel won't tell.
func ownAddresses(listen netip.Addr) []netip.Addr {
	if !listen.IsUnspecified() {
		return []netip.Addr{listen}
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var own []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr())
		}
	}
	return own
}
