package daemon

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/discovery"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// lookUpWays asks the kernel what the underlay carries to each peer, by its route:
// none for one without a route.
func lookUpWays(c *config.Config, peers []discovery.Peer) map[netip.Addr]int {
	if len(peers) == 0 {
		return nil
	}
	to := make([]netip.Addr, len(peers))
	for i, p := range peers {
		to[i] = p.Address.Addr().Unmap()
	}
	ways, err := link.PathMTUs(c.Tunnel.Listen.Addr(), to)
	if err != nil {
		return nil
	}
	return ways
}

// narrowest is the longest inner packet that reaches every peer in one piece, as
// far as this host can tell. The caller holds mu.
func (d *Daemon) narrowest(peers []discovery.Peer) int {
	inner := 0
	for _, p := range peers {
		a := p.Address.Addr().Unmap()
		n := vxlan.Link{IPv6: a.Is6()}.InnerMTU(cmp.Or(d.ways[a], config.DefaultMTU))
		if inner == 0 || n < inner {
			inner = n
		}
	}
	return cmp.Or(inner, config.DefaultVXLANMTU)
}

// lookAtUnderlay tells the tunnel what the underlay carries when that has changed.
// The caller holds mu.
func (d *Daemon) lookAtUnderlay() {
	if d.notice == nil || !d.notice.Changed() || d.vtep == nil {
		return
	}
	now := lookUpWays(d.eff, d.others(d.eff))
	if maps.Equal(now, d.ways) {
		return
	}
	d.ways = now
	if err := d.vtep.tell(d.tunnelSpec(d.eff)); err != nil {
		d.log.Error("tell the tunnel what the underlay carries", "err", err)
	}
}

// What an interface's MTU can be: the least that IPv4 allows and the longest
// packet.
const minMTU, maxMTU = 68, 65535

// maxSealedMTU is the longest packet that fits a record.
const maxSealedMTU = record.MaxPlaintext - vxlan.HeaderLen - frame.HeaderLen

// fitNetworks sets the MTU of those networks that span hosts and that cfg gives
// none, so that their packets cross the underlay in one piece.
func (d *Daemon) fitNetworks(cfg, eff *config.Config) {
	if cfg.Tunnel == nil {
		return
	}
	var open []string
	for name, n := range cfg.Networks {
		if n.VNI != 0 && n.MTU == 0 {
			open = append(open, name)
		}
	}
	if len(open) == 0 {
		return
	}
	inner := min(d.narrowest(d.others(eff)), maxMTU)
	for _, name := range open {
		mtu := inner
		if eff.Networks[name].Encrypt == config.EncryptRequired {
			mtu = min(inner-record.Overhead, maxSealedMTU)
		}
		if mtu >= minMTU {
			eff.Networks[name].MTU = mtu
		}
	}
}

func sortedNames[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
