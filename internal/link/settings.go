package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Settings are what an interface shall have; zero values leave what there is.
type Settings struct {
	MAC       frame.MAC
	MTU       int // octets of L3 packet
	Addresses []netip.Prefix
	Gateway   netip.Addr // of a default route by this interface
	Up        bool
}

// Configure brings an interface to its settings. It is idempotent, removes
// nothing, and keeps what others added. The error wraps ErrConflict when the
// namespace's default route belongs to another interface.
func (c *Conn) Configure(index int, s Settings) error {
	l, err := c.ByIndex(index)
	if err != nil {
		return err
	}
	if !s.MAC.IsZero() && s.MAC != l.MAC {
		if err := c.h.LinkSetHardwareAddr(ref(index), s.MAC[:]); err != nil {
			return fmt.Errorf("set MAC address %v of %s: %w", s.MAC, l.Name, explain(err))
		}
	}
	if s.MTU != 0 && s.MTU != l.MTU {
		if err := c.h.LinkSetMTU(ref(index), s.MTU); err != nil {
			return fmt.Errorf("set MTU %d of %s: %w", s.MTU, l.Name, explain(err))
		}
	}
	for _, p := range s.Addresses {
		if err := c.h.AddrReplace(ref(index), address(p)); err != nil {
			return fmt.Errorf("add address %v to %s: %w", p, l.Name, explain(err))
		}
	}
	if s.Up && !l.Up {
		if err := c.SetUp(index, true); err != nil {
			return err
		}
	}
	if s.Gateway.IsValid() {
		return c.defaultRoute(l, s.Gateway)
	}
	return nil
}

// Addresses returns the interface's addresses, link-local ones included.
func (c *Conn) Addresses(index int) ([]netip.Prefix, error) {
	all, err := dump(func() ([]netlink.Addr, error) { return c.h.AddrList(ref(index), netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of interface %d: %w", index, err)
	}
	var ps []netip.Prefix
	for _, a := range all {
		if p, ok := prefixOf(a); ok {
			ps = append(ps, p)
		}
	}
	return ps, nil
}

// AllAddresses returns the addresses of every interface, by its index.
func (c *Conn) AllAddresses() (map[int][]netip.Prefix, error) {
	all, err := dump(func() ([]netlink.Addr, error) { return c.h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	byIndex := make(map[int][]netip.Prefix)
	for _, a := range all {
		if p, ok := prefixOf(a); ok {
			byIndex[a.LinkIndex] = append(byIndex[a.LinkIndex], p)
		}
	}
	return byIndex, nil
}

// Gateways returns the gateways of the default routes, by the index of their
// interface. It reads the whole main table.
func (c *Conn) Gateways() (map[int][]netip.Addr, error) {
	routes, err := dump(func() ([]netlink.Route, error) {
		return c.h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	byIndex := make(map[int][]netip.Addr)
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if gw, ok := netip.AddrFromSlice(r.Gw); ok {
			byIndex[r.LinkIndex] = append(byIndex[r.LinkIndex], gw.Unmap())
		}
	}
	return byIndex, nil
}

func prefixOf(a netlink.Addr) (netip.Prefix, bool) {
	ip, ok := netip.AddrFromSlice(a.IP)
	ones, _ := a.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), ones), ok
}

// address is p for netlink. Duplicate address detection is left out: the
// configuration has made sure, and the address is usable at once.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func (c *Conn) defaultRoute(l Link, gateway netip.Addr) error {
	r := &netlink.Route{LinkIndex: l.Index, Gw: gateway.AsSlice()}
	err := c.h.RouteAdd(r)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add default route by %v on %s: %w", gateway, l.Name, explain(err))
	}
	family := netlink.FAMILY_V4
	if gateway.Is6() {
		family = netlink.FAMILY_V6
	}
	routes, err := dump(func() ([]netlink.Route, error) {
		return c.h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, o := range routes {
		if o.Dst != nil && !o.Dst.IP.IsUnspecified() || o.LinkIndex == l.Index {
			continue
		}
		name := fmt.Sprintf("interface %d", o.LinkIndex)
		if other, err := c.ByIndex(o.LinkIndex); err == nil {
			name = other.Name
		}
		return fmt.Errorf("add default route by %v on %s: %w: %s has the default route by %v", gateway, l.Name, ErrConflict, name, o.Gw)
	}
	if err := c.h.RouteReplace(r); err != nil {
		return fmt.Errorf("replace default route by %v on %s: %w", gateway, l.Name, explain(err))
	}
	return nil
}

// Silence keeps the kernel from sending frames of its own by an interface of
// the calling thread's namespace: neighbour discovery, router solicitation and
// multicast reports of IPv6. It comes before SetUp.
func (c *Conn) Silence(l Link) error {
	const addrGenNone = 1 // IN6_ADDR_GEN_MODE_NONE
	// A kernel without IPv6 sends none of these and knows neither setting.
	err := c.h.LinkSetIP6AddrGenMode(ref(l.Index), addrGenNone)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("silence %s: %w", l.Name, explain(err))
	}
	// /proc/sys may be read-only; without an address there is next to nothing left to send.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+l.Name+"/disable_ipv6", []byte("1"), 0)
	return nil
}

// NoQueue makes an interface that is switched off send without a queueing
// discipline, as a veth does: a TAP has a queue of its own, and discards what
// doesn't fit whatever is in front of it. The kernel's default would be one of
// 24 KB for each of the 256 queues that a multi-queue TAP may have, 6 MB a port.
func (c *Conn) NoQueue(index int) {
	// A kernel that refuses keeps its default, which works as well.
	_ = c.h.QdiscReplace(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_ROOT},
		QdiscType:  "noqueue",
	})
}

// carrierWait bounds AwaitCarrier. The kernel's own work takes milliseconds.
const carrierWait = time.Second

// AwaitCarrier returns once the interface has carrier and so sends what it is
// given, at the latest after a second: the kernel gets there by itself, shortly
// after both ends of a pair are up, and discards frames until then.
func (c *Conn) AwaitCarrier(index int) error {
	for end := time.Now().Add(carrierWait); ; time.Sleep(time.Millisecond) {
		l, err := c.ByIndex(index)
		if err != nil {
			return err
		}
		if l.Alive || time.Now().After(end) {
			return nil
		}
	}
}
