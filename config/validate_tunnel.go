package config

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
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
		// This host itself may be listed: one file serves all hosts.
		k.peer(path, t.Peers[name])
	}
}

func (k *checker) peer(path string, p *Peer) {
	ap := p.Address.AddrPort(DefaultVXLANPort)
	switch a := ap.Addr(); {
	case !a.IsValid():
		k.fail(path, "has no address; want where the peer listens")
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		k.fail(path+".address", "%s is no address of a single host", a)
	default:
		k.claim(path+".address", "address", ap.String(), "peers")
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
	if a := d.Rekey.After; a != nil && *a < Duration(time.Second) {
		k.fail(path+".rekey.after", "%s is too short; want 1s or more", a)
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
