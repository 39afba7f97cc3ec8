package config

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// What new keys may be asked for after. Less than the least leaves no time for the
// handshake before the old ones end, and keys of more than a week are no new ones.
const (
	minRekeyAfter = Duration(10 * time.Second)
	maxRekeyAfter = Duration(168 * time.Hour)
)

// maxRouterAddresses bounds the comparison of a router's subnets.
const maxRouterAddresses = 1024

func (k *checker) tunnel() {
	t := k.c.Tunnel
	if t == nil {
		return
	}
	if t.Listen.IsValid() && t.Listen.Port() == 0 {
		k.fail("tunnel.listen", "%s has no port; write it like 0.0.0.0:4789", t.Listen)
	}
	if d := t.DTLS; d != nil {
		k.dtls(d)
		if d.Listen.IsValid() && t.Listen.IsValid() && d.Listen == t.Listen {
			k.fail("tunnel.dtls.listen", "%s is where VXLAN listens; give DTLS another port", d.Listen)
		}
	}
	for _, name := range sortedKeys(t.Peers) {
		path := "tunnel.peers." + segment(name)
		p := t.Peers[name]
		k.peer(path, p)
		if a := p.Address.AddrPort(DefaultVXLANPort).Addr(); a.IsValid() && !k.isSelf(name, a) {
			k.reach(path+".address", p, a)
		}
	}
}

// isSelf reports whether a peer is known to be this host itself, which may be
// listed: one file serves all hosts. It may be so without being known here, by
// the hostname or an interface's address.
func (k *checker) isSelf(name string, a netip.Addr) bool {
	return name == k.c.Host || a == k.c.Tunnel.Listen.Addr()
}

// reach checks that there is one peer at an address, since what comes from there
// is told apart by nothing else, and that it can be reached from where this host
// listens.
func (k *checker) reach(field string, p *Peer, a netip.Addr) {
	k.claim(field, "address", a.String(), "peers")
	t := k.c.Tunnel
	k.family(field, "tunnel.listen", a, t.Listen, DefaultVXLANPort)
	if t.DTLS == nil {
		return
	}
	for n, net := range k.c.Networks {
		if net.Encrypt == EncryptRequired && (len(p.Networks) == 0 || slices.Contains(p.Networks, n)) {
			k.family(field, "tunnel.dtls.listen", a, t.DTLS.Listen, DefaultDTLSPort)
			return
		}
	}
}

// family checks that a socket at listen can talk to a.
func (k *checker) family(field, key string, a netip.Addr, listen netip.AddrPort, port uint16) {
	if !listen.IsValid() {
		listen = netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	}
	if l := listen.Addr(); a.Is6() && l.Is4() || a.Is4() && l.Is6() && !l.IsUnspecified() {
		k.fail(field, "%s can't be reached from %s, which is %s; listen on [::]:%d, which does for both families, or name this host with host if it is the peer itself",
			a, key, listen, listen.Port())
	}
}

func (k *checker) peer(path string, p *Peer) {
	ap := p.Address.AddrPort(DefaultVXLANPort)
	switch a := ap.Addr(); {
	case !a.IsValid():
		k.fail(path, "has no address; want where the peer listens")
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		k.fail(path+".address", "%s is no address of a single host", a)
	}
	seen := make(map[string]bool)
	for i, n := range p.Networks {
		field := fmt.Sprintf("%s.networks[%d]", path, i)
		switch {
		case !k.known(field, n):
		case k.c.Networks[n].VNI == 0:
			k.fail(field, "network %s has no vni and stays on this host; give it one", segment(n))
		case seen[n]:
			k.fail(field, "network %s is listed twice", segment(n))
		}
		seen[n] = true
	}
}

func (k *checker) dtls(d *DTLS) {
	const path = "tunnel.dtls"
	certs := d.Cert != "" || d.Key != "" || d.CA != "" || d.CRL != ""
	switch {
	case d.PSKFile != "" && certs:
		k.fail(path+".psk_file", "psk_file together with cert, key, ca or crl; keep the certificates or the shared key")
	case d.PSKFile == "" && (d.Cert == "" || d.Key == "" || d.CA == ""):
		k.fail(path, "needs cert, key and ca (or psk_file)")
	}
	if d.Listen.IsValid() && d.Listen.Port() == 0 {
		k.fail(path+".listen", "%s has no port; write it like 0.0.0.0:4788", d.Listen)
	}
	if a := d.Rekey.After; a != nil && (*a < minRekeyAfter || *a > maxRekeyAfter) {
		k.fail(path+".rekey.after", "%s is out of range; want %s to %s", a, minRekeyAfter, maxRekeyAfter)
	}
}

func (k *checker) router(path string, r *Router) {
	if len(r.Interfaces) == 0 {
		k.fail(path, "has no interfaces; want one for each network that it joins")
	}
	type foot struct {
		field  string
		subnet netip.Prefix
	}
	var feet []foot
	for _, name := range sortedKeys(r.Interfaces) {
		field := path + ".interfaces." + segment(name)
		k.known(field, name)
		list := r.Interfaces[name].Address
		if len(list) == 0 {
			k.fail(field, "has no address")
		}
		k.addresses(field, name, list)
		if len(feet)+len(list) > maxRouterAddresses {
			k.fail(field, "more than %d addresses in one router", maxRouterAddresses)
			return
		}
		for i, a := range list {
			at := fmt.Sprintf("%s.address[%d]", field, i)
			for _, f := range feet {
				if a.Overlaps(f.subnet) {
					k.fail(at, "subnet %s overlaps %s of %s; a router cannot tell them apart", a.Masked(), f.subnet, f.field)
				}
			}
		}
		for i, a := range list {
			feet = append(feet, foot{fmt.Sprintf("%s.address[%d]", field, i), a.Masked()})
		}
	}
	for i, rt := range r.Routes {
		field := fmt.Sprintf("%s.routes[%d]", path, i)
		if !rt.To.IsValid() || !rt.Via.IsValid() {
			k.fail(field, "needs to and via")
			continue
		}
		if rt.To != rt.To.Masked() {
			k.fail(field+".to", "%s has host bits set; write %s", rt.To, rt.To.Masked())
		}
		if len(feet) > 0 && !slices.ContainsFunc(feet, func(f foot) bool { return f.subnet.Contains(rt.Via) }) {
			k.fail(field+".via", "%s is in no subnet of the router's interfaces", rt.Via)
		}
		k.claim(field+".to", "route to", rt.To.String(), path)
	}
}
