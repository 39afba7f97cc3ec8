package daemon

import (
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/tunnel/discovery"
)

// others are the peers of c that are not this host: the same list serves all
// hosts. The caller holds mu.
func (d *Daemon) others(c *config.Config) []discovery.Peer {
	if c.Tunnel == nil {
		return nil
	}
	var list []discovery.Peer
	for _, name := range slices.Sorted(maps.Keys(c.Tunnel.Peers)) {
		p := c.Tunnel.Peers[name]
		list = append(list, discovery.Peer{Name: name, Address: p.Address.AddrPort(config.DefaultVXLANPort), Networks: p.Networks})
	}
	return discovery.Others(list, c.Host, d.own)
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
	t := d.eff.Tunnel
	if t == nil {
		return
	}
	known := len(d.own)
	if d.meetOwn(d.eff); len(d.own) == known {
		return
	}
	had := func(own []netip.Addr) bool {
		for name, p := range t.Peers {
			if name == d.eff.Host || slices.Contains(own, p.Address.AddrPort(config.DefaultVXLANPort).Addr()) {
				return true
			}
		}
		return false
	}
	if had(d.own[:known]) || !had(d.own) {
		return
	}
	if err := d.enforce(); err != nil {
		d.log.Error("leave this host out of its peers", "err", err)
		return
	}
	d.log.Info("this host's own entry is found among the peers", "peers", len(d.others(d.eff)))
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
