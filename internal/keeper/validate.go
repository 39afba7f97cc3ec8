package keeper

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// namePattern is the contract's pattern of names.
const namePattern = "[a-z0-9][a-z0-9._-]{0,62}"

func nameOK(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

// instanceOf names the switch whose state lies in dir, the same after a restart.
func instanceOf(dir string) string {
	sum := sha256.Sum256([]byte(path.Clean(dir)))
	return hex.EncodeToString(sum[:4])
}

// ifnameOK accepts the interface names that the kernel accepts (at most 15
// octets, no slash, no white space, not . or ..) less those that would need
// quoting in a message, or mean an alias or a pattern to other programs.
func ifnameOK(s string) bool {
	if s == "" || len(s) > 15 || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`/:%"'\`, c) >= 0 {
			return false
		}
	}
	return true
}

// maxNetns bounds the spec of a namespace in octets; no real one comes near.
const maxNetns = 512

// netnsOK accepts a name, a clean absolute path or pid:N.
func netnsOK(s string) bool {
	if s == "" || len(s) > maxNetns {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f {
			return false
		}
	}
	if pid, ok := strings.CutPrefix(s, "pid:"); ok {
		n, err := strconv.ParseUint(pid, 10, 31)
		return err == nil && n > 0 && strconv.FormatUint(n, 10) == pid
	}
	if s[0] == '/' {
		return s != "/" && path.Clean(s) == s
	}
	return s[0] != '.' && s[0] != '-' && len(s) <= 255 && !strings.ContainsAny(s, `/:"'\`)
}

const (
	// minMTU is the least that IPv4 allows (RFC 791), maxMTU the most that its
	// length field does.
	minMTU, maxMTU = 68, 65535
	maxAddresses   = 64
)

// validate holds r against everything that can be said without looking at the
// machine. Its error names field, value and what is wanted.
func (r *PortRequest) validate() error {
	if !nameOK(r.Name) {
		return invalid("port name %.80q: want the pattern %s", r.Name, namePattern)
	}
	if err := r.validateKind(); err != nil {
		return err
	}
	if err := validateSettings(r.Name, r.MAC, r.MTU, r.Addresses, r.Gateway); err != nil {
		return err
	}
	foreign := r.Device != "" || r.Adopt != ""
	if foreign && (!r.MAC.IsZero() || len(r.Addresses) > 0 || r.Gateway.IsValid() || r.NetnsID != 0) {
		return invalid("port %s: mac, addresses, gateway and namespace of an existing interface are left as they are", r.Name)
	}
	return nil
}

// validateKind sees that exactly the fields of the kind are there.
func (r *PortRequest) validateKind() error {
	type fields struct{ netns, ifname, adopt, device bool }
	got := fields{r.Netns != "", r.Ifname != "", r.Adopt != "", r.Device != ""}
	var want fields
	switch {
	case r.Kind == KindVeth && r.Adopt != "":
		want = fields{adopt: true}
	case r.Kind == KindTap, r.Kind == KindVeth:
		want = fields{netns: true, ifname: true}
	case r.Kind == KindDevice:
		want = fields{device: true}
	case r.Kind == KindHost:
		want = fields{ifname: true}
	default:
		return invalid("port %s: kind %.16q: want tap, veth, device or host", r.Name, r.Kind)
	}
	if got != want {
		return invalid("port %s: a %s port takes netns and ifname (tap, veth), adopt alone (veth), device (device) or ifname (host)", r.Name, r.Kind)
	}
	for _, n := range []string{r.Ifname, r.Adopt, r.Device} {
		if n != "" && !ifnameOK(n) {
			return invalid("port %s: interface name %.80q: want 1 to 15 printable characters without / : %% or quotes", r.Name, n)
		}
	}
	if r.Netns != "" && !netnsOK(r.Netns) {
		return invalid("port %s: netns %.80q: want a name, a clean absolute path or pid:N", r.Name, r.Netns)
	}
	return nil
}

func (s *SetRequest) validate() error {
	if !nameOK(s.Name) {
		return invalid("port name %.80q: want the pattern %s", s.Name, namePattern)
	}
	if s.Gateway.IsValid() && s.Addresses == nil {
		return invalid("port %s: gateway %s: a gateway is set together with the addresses", s.Name, s.Gateway)
	}
	return validateSettings(s.Name, s.MAC, s.MTU, s.Addresses, s.Gateway)
}

func validateSettings(port string, mac frame.MAC, mtu int, addrs []netip.Prefix, gw netip.Addr) error {
	if mac.IsGroup() {
		return invalid("port %s: mac %s: a group address is no station's", port, mac)
	}
	if mtu != 0 && (mtu < minMTU || mtu > maxMTU) {
		return invalid("port %s: mtu %d: want %d to %d", port, mtu, minMTU, maxMTU)
	}
	if len(addrs) > maxAddresses {
		return invalid("port %s: %d addresses: want at most %d", port, len(addrs), maxAddresses)
	}
	for i, p := range addrs {
		if !p.IsValid() || !stationOK(p.Addr()) {
			return invalid("port %s: address %s: want a unicast address with its prefix length", port, p)
		}
		if slices.Contains(addrs[:i], p) {
			return invalid("port %s: address %s is given twice", port, p)
		}
	}
	if !gw.IsValid() {
		return nil
	}
	within := func(p netip.Prefix) bool { return p.Contains(gw) && p.Addr() != gw }
	if !stationOK(gw) || !slices.ContainsFunc(addrs, within) && !(gw.Is6() && gw.IsLinkLocalUnicast()) {
		return invalid("port %s: gateway %s: want another address of a subnet of the port's addresses", port, gw)
	}
	return nil
}

// stationOK accepts the addresses that an interface or a gateway can have.
func stationOK(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsMulticast() && !a.IsUnspecified() &&
		!a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// sameInterface reports whether r and o describe the same interfaces, opened
// the same way.
func (r *PortRequest) sameInterface(o *PortRequest) bool {
	return r.Kind == o.Kind && r.Netns == o.Netns && r.Ifname == o.Ifname && r.Adopt == o.Adopt &&
		r.Device == o.Device && r.NoGSO == o.NoGSO && (r.NetnsID == 0 || o.NetnsID == 0 || r.NetnsID == o.NetnsID)
}

// changes is what would make the held port h as r wants it; nil = nothing.
func (r *PortRequest) changes(h *Held) *SetRequest {
	s := SetRequest{Name: r.Name}
	any := false
	if !r.MAC.IsZero() && r.MAC != h.Reply.MAC {
		s.MAC, any = r.MAC, true
	}
	if r.MTU != 0 && r.MTU != h.Request.MTU && r.Device == "" && r.Adopt == "" {
		s.MTU, any = r.MTU, true
	}
	if !slices.Equal(r.Addresses, h.Request.Addresses) || r.Gateway != h.Request.Gateway {
		s.Addresses, s.Gateway, any = append([]netip.Prefix{}, r.Addresses...), r.Gateway, true
	}
	if !any {
		return nil
	}
	return &s
}
