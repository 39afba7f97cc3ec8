package join

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/tapestry-net/tapestry/config"
)

// file is a host's configuration: the networks that span hosts, and as peers
// those of the offer's file, the host that the CA is on, which the new one has
// reached at the address to, and all who have joined before.
func (l *Listener) file(host string, to netip.Addr) ([]byte, error) {
	c := &config.Config{Host: host, Tunnel: &config.Tunnel{Peers: map[string]*config.Peer{}}}
	t := c.Tunnel
	t.DTLS = &config.DTLS{Cert: host + ".crt", Key: host + ".key", CA: "ca.crt", CRL: "revoked.crl"}
	own := &config.Peer{Address: config.PeerAddr(netip.AddrPortFrom(to, 0))}
	if from := l.offer.File; from != nil {
		from = from.Clone()
		c.Networks = from.Networks
		for name, n := range c.Networks {
			if n.VNI == 0 {
				delete(c.Networks, name)
			}
		}
		if f := from.Tunnel; f != nil {
			t.VXLANReserved, t.UDPChecksum = f.VXLANReserved, f.UDPChecksum
			if f.Listen.Addr().IsUnspecified() { // an address of this host is none of the other's
				t.Listen = f.Listen
			}
			if f.DTLS != nil {
				t.DTLS.Rekey = f.DTLS.Rekey
				if f.DTLS.Listen.Addr().IsUnspecified() {
					t.DTLS.Listen = f.DTLS.Listen
				}
			}
			if f.Peers != nil {
				t.Peers = f.Peers
			}
			own = ownPeer(f, to)
		}
	}
	hosts, caHost, err := l.ca.Hosts()
	if err != nil {
		return nil, err
	}
	taken := map[netip.AddrPort]bool{} // an address is one peer's
	for _, p := range t.Peers {
		taken[p.Address.AddrPort(config.DefaultVXLANPort)] = true
	}
	add := func(name string, p *config.Peer) {
		a := p.Address.AddrPort(config.DefaultVXLANPort)
		if t.Peers[name] == nil && a.Addr().IsValid() && !taken[a] {
			t.Peers[name], taken[a] = p, true
		}
	}
	if caHost != "" {
		add(caHost, own)
	}
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		if h := hosts[name]; name != caHost && name != host {
			add(name, &config.Peer{Address: config.PeerAddr(netip.AddrPortFrom(h.Address, 0))})
		}
	}
	delete(t.Peers, host)
	if err := config.Validate(c); err != nil {
		return nil, fmt.Errorf("make configuration of %s: %w", host, err)
	}
	return c.Marshal(), nil
}

// ownPeer is this host as another one's peer.
func ownPeer(t *config.Tunnel, at netip.Addr) *config.Peer {
	p := &config.Peer{}
	port := t.Listen.Port()
	if port == config.DefaultVXLANPort {
		port = 0 // needn't be written
	}
	p.Address = config.PeerAddr(netip.AddrPortFrom(at, port))
	if d := t.DTLS; d != nil && d.Listen.IsValid() {
		p.DTLSPort = d.Listen.Port()
	}
	return p
}
