package daemon

import (
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/discovery"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// underlay is the narrowest way to a peer as far as this host can tell.
type underlay struct {
	mtu   int // of the interface; 1500 when there is none
	inner int // longest inner packet
}

// narrowest looks up the interface by which each peer is reached.
func narrowest(peers []discovery.Peer) underlay {
	mtus := interfaceMTUs()
	u := underlay{}
	for _, p := range peers {
		link := vxlan.Link{IPv6: p.Address.Addr().Unmap().Is6()}
		mtu, ok := mtus[source(p.Address)]
		if !ok {
			mtu = config.DefaultMTU
		}
		if inner := link.InnerMTU(mtu); u.inner == 0 || inner < u.inner {
			u.inner = inner
		}
		if u.mtu == 0 || mtu < u.mtu {
			u.mtu = mtu
		}
	}
	if u.mtu == 0 {
		return underlay{mtu: config.DefaultMTU, inner: config.DefaultVXLANMTU}
	}
	return u
}

// source is the address that the kernel would send from; none without a route.
func source(to netip.AddrPort) netip.Addr {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)) // sends nothing
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	a, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	return a.AddrPort().Addr().Unmap().WithZone("")
}

// interfaceMTUs are the MTUs of this namespace's interfaces by their addresses.
func interfaceMTUs() map[netip.Addr]int {
	out := map[netip.Addr]int{}
	list, err := net.Interfaces()
	if err != nil {
		return out
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out[p.Addr().Unmap()] = i.MTU
			}
		}
	}
	return out
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
	inner := min(narrowest(d.others(eff)).inner, maxMTU)
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
