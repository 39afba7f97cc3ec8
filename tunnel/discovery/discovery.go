// Package discovery says who the other hosts are. A Source is where the list of
// peers comes from: the configuration file, or later a control plane in which
// hosts find each other.
//
// # Concurrency
//
// A Source may be used from any goroutine. What it returns is the caller's.
package discovery

import (
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

// Source is a list of peers that may change.
type Source interface {
	// Peers returns the present list, by name, without this host.
	Peers() []Peer
	// Changed receives when Peers may have something new. A nil channel never
	// does.
	Changed() <-chan struct{}
}

// Static is the list that a configuration file gives, which may be the same file
// on every host.
type Static []Peer

// NewStatic returns the peers of list except self: the host with that name, or
// with one of its addresses, which are compared without the port.
func NewStatic(list []Peer, self string, own []netip.Addr) Static {
	s := make(Static, 0, len(list))
	for _, p := range list {
		a := p.Address.Addr().Unmap()
		if p.Name == self || slices.ContainsFunc(own, func(o netip.Addr) bool { return o.Unmap() == a }) {
			continue
		}
		p.Networks = slices.Clone(p.Networks)
		s = append(s, p)
	}
	slices.SortFunc(s, func(a, b Peer) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	return s
}

// Peers implements Source.
func (s Static) Peers() []Peer { return slices.Clone(s) }

// Changed implements Source: a static list never changes.
func (s Static) Changed() <-chan struct{} { return nil }
