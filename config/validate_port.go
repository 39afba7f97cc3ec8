package config

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// checkValue checks one present value against its row of the table.
func checkValue(v reflect.Value, key Key) error {
	switch x := v.Interface().(type) {
	case netip.Addr:
		return checkAddr(x)
	case netip.Prefix:
		if !x.IsValid() {
			return errors.New("is no valid prefix")
		}
		return checkAddr(x.Addr())
	case netip.AddrPort:
		return checkAddr(x.Addr())
	case PeerAddr:
		return checkAddr(netip.AddrPort(x).Addr())
	case frame.MAC:
		return checkMAC(x)
	case MACPin:
		if x.MAC.IsZero() {
			return nil
		}
		return checkMAC(x.MAC)
	case Duration:
		if x < 0 {
			return fmt.Errorf("%s is negative; want 0s or more", x)
		}
	case bool:
		return nil
	case string:
		return checkWord(x, key)
	}
	switch {
	case v.Kind() == reflect.String:
		return checkChoice(v.String(), key)
	case v.CanUint():
		return checkRange(v.Uint(), key)
	case v.CanInt() && v.Int() < 0:
		return fmt.Errorf("%d is negative; want %d to %d", v.Int(), key.Min, key.Max)
	case v.CanInt():
		return checkRange(uint64(v.Int()), key)
	}
	return nil
}

// checkWord checks the form that the row's type asks of a text.
func checkWord(s string, key Key) error {
	switch key.Type {
	case "interface name":
		return checkIfname(s)
	case "namespace":
		return checkNetns(s)
	case "file":
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("%s has a control character", quote(s))
		}
	}
	return nil
}

// checkIfname follows the kernel's dev_valid_name, and refuses what is not
// printable ASCII besides.
func checkIfname(s string) error {
	switch {
	case len(s) > maxIfname:
		return fmt.Errorf("%s has %d characters; the kernel takes %d", quote(s), len(s), maxIfname)
	case s == "." || s == "..":
		return fmt.Errorf("%s is no interface name", quote(s))
	}
	for _, r := range s {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune("/:%", r) {
			return fmt.Errorf("%s is no interface name; %q is not allowed in one", quote(s), r)
		}
	}
	return nil
}

// netnsName is what internal/netns accepts as a name, too.
var netnsName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$`)

func checkNetns(s string) error {
	pid, isPID := strings.CutPrefix(s, "pid:")
	switch {
	case isPID:
		if n, err := strconv.ParseInt(pid, 10, 32); err != nil || n < 1 || pid[0] == '+' || pid[0] == '0' {
			return fmt.Errorf("%s is no process; write it like pid:1234", quote(s))
		}
		return nil
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f }):
		return fmt.Errorf("%s has a character that is not printable ASCII", quote(s))
	case strings.HasPrefix(s, "/"):
		for _, part := range strings.Split(s, "/") {
			if part == ".." {
				return fmt.Errorf("%s has .. in it; write the path without", quote(s))
			}
		}
		return nil
	case !netnsName.MatchString(s):
		return fmt.Errorf("%s is no namespace; want a name of `ip netns`, an absolute path, or pid:N", quote(s))
	}
	return nil
}

func (k *checker) port(path, name string, p *Port) {
	var kinds []string
	for _, kind := range []struct {
		name string
		set  bool
	}{{"tap", p.Tap != nil}, {"veth", p.Veth != nil}, {"device", p.Device != nil}, {"host", p.HostIf != nil}} {
		if kind.set {
			kinds = append(kinds, kind.name)
		}
	}
	switch len(kinds) {
	case 0:
		k.fail(path, "has no kind; add one of tap, veth, device, host")
	case 1:
		k.kind(path+"."+kinds[0], kinds[0], name, p)
	default:
		k.fail(path, "has %d kinds, %s; keep one", len(kinds), strings.Join(kinds, " and "))
	}
	k.membership(path, p)
	if p.MACPin.On && p.MACPin.MAC.IsZero() && p.Device != nil {
		k.fail(path+".mac_pin", "a device carries the addresses of others; write the MAC address instead of true")
	}
}

func (k *checker) membership(path string, p *Port) {
	if p.Access != "" && (len(p.Trunk) > 0 || p.Native != "") {
		k.fail(path+".access", "access together with trunk or native; an access port has one untagged network, a trunk has trunk and native")
	}
	if len(p.Networks()) == 0 {
		k.fail(path, "is a member of no network; add access or trunk")
	}
	if p.Access != "" {
		k.known(path+".access", p.Access)
	}
	if p.Native != "" {
		k.known(path+".native", p.Native)
	}
	seen := make(map[string]bool)
	for i, n := range p.Trunk {
		field := fmt.Sprintf("%s.trunk[%d]", path, i)
		if k.known(field, n) && seen[n] {
			k.fail(field, "network %s is listed twice", segment(n))
		}
		seen[n] = true
	}
}

func (k *checker) kind(path, kind, port string, p *Port) {
	if d := p.Device; d != nil {
		if d.Name == "" {
			k.fail(path, "has no name; want the interface to use")
			return
		}
		k.claim(path+".name", "interface", quote(d.Name), "")
		return
	}
	i := p.Interface()
	switch {
	case i.Adopt != "":
		k.claim(path+".adopt", "interface", quote(i.Adopt), "")
		if i.Netns != "" || i.Ifname != "" {
			k.fail(path+".adopt", "adopt together with netns or ifname; an adopted veth has its other end in place already")
		}
		if len(i.Address) > 0 || i.Gateway.IsValid() || !i.MAC.IsZero() {
			k.fail(path+".adopt", "adopt together with address, gateway or mac; who made the veth sets these")
		}
	case kind != "host" && i.Netns == "":
		k.fail(path, "has no netns; want a name, an absolute path or pid:N")
	default:
		name := i.Ifname
		if name == "" {
			name = defaultIfname(kind, port)
		}
		field := path
		if i.Ifname != "" {
			field += ".ifname"
		}
		k.claim(field, "interface", quote(name), i.Netns)
	}
	if !i.MAC.IsZero() {
		k.claim(path+".mac", "MAC address", i.MAC.String(), "")
	}
	k.addresses(path, p.Untagged(), i.Address)
	k.gateway(path+".gateway", i)
}

// addresses checks the addresses of an interface in a network.
func (k *checker) addresses(path, network string, list []netip.Prefix) {
	for i, a := range list {
		field := fmt.Sprintf("%s.address[%d]", path, i)
		if !a.IsValid() {
			k.fail(field, "is no address with prefix length")
			continue
		}
		if err := checkHost(a); err != nil {
			k.fail(field, "%s", err)
		}
		k.claim(field, "address", a.Addr().String(), network)
	}
}

// checkHost refuses what no station can have: a group address, the unspecified
// one, and a subnet's network and broadcast addresses. RFC 3021 lets /31 use
// both; RFC 4291 clause 2.6.1 gives an IPv6 subnet's first to its routers.
func checkHost(p netip.Prefix) error {
	a, bits := p.Addr(), p.Addr().BitLen()
	switch {
	case a.IsMulticast() || a.IsUnspecified() || a.IsLoopback():
		return fmt.Errorf("%s is no address for an interface", p)
	case p.Bits() == 0:
		return fmt.Errorf("%s covers every address; want the subnet's prefix length", p)
	case p.Bits() >= bits-1:
		return nil
	case a == p.Masked().Addr():
		return fmt.Errorf("%s is the address of the subnet itself; a host has one like %s", p, netip.PrefixFrom(a.Next(), p.Bits()))
	case a.Is4() && !p.Contains(a.Next()):
		return fmt.Errorf("%s is the broadcast address of its subnet; a host has one like %s", p, netip.PrefixFrom(a.Prev(), p.Bits()))
	}
	return nil
}

func (k *checker) gateway(field string, i *Interface) {
	if !i.Gateway.IsValid() {
		return
	}
	if len(i.Address) == 0 {
		k.fail(field, "%s without an address; add address", i.Gateway)
		return
	}
	for _, a := range i.Address {
		switch {
		case a.Addr() == i.Gateway:
			k.fail(field, "%s is the interface's own address", i.Gateway)
			return
		case a.Contains(i.Gateway):
			if err := checkHost(netip.PrefixFrom(i.Gateway, a.Bits())); err != nil && i.Gateway.Is4() {
				k.fail(field, "%s", err)
			}
			return
		}
	}
	if i.Gateway.Is6() && i.Gateway.IsLinkLocalUnicast() {
		return
	}
	k.fail(field, "%s is outside %s; want an address of the subnet", i.Gateway, i.Address[0].Masked())
}
