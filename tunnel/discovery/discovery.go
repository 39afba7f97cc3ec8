// Package discovery says who the other hosts are. What it is given is a list of
// hosts that may be the same everywhere, as the configuration file's is and as a
// control plane's would be; what it returns is this host's peers. A list that
// changes is given again: who applies it finds out what is new.
package discovery

import (
	"cmp"
	"net/netip"
	"slices"
)

// Peer is another host: where its VTEP listens and what it carries.
type Peer struct {
	Name    string
	Address netip.AddrPort
	// Networks are those that the peer may carry; empty = every one that spans
	// hosts.
	Networks []string
}

// Others returns the hosts of list except self, by name: the host with that name,
// or with one of its addresses, which are compared without the port. The list
// stays as it is; its Networks are shared.
func Others(list []Peer, self string, own []netip.Addr) []Peer {
	others := make([]Peer, 0, len(list))
	for _, p := range list {
		a := p.Address.Addr().Unmap()
		if p.Name != self && !slices.ContainsFunc(own, func(o netip.Addr) bool { return o.Unmap() == a }) {
			others = append(others, p)
		}
	}
	slices.SortFunc(others, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	return others
}
