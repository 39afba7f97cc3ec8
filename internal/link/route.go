package link

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lookUp asks the kernel for the route of the flow: the entry that matches, or
// where that leads. The error is the kernel's own.
func (d *diagnosis) lookUp(match bool) (netlink.Route, error) {
	if d.f.In == "" {
		return d.c.lookUp(d.f.Dst, netlink.RouteGetOptions{FIBMatch: match, Mark: d.f.Mark})
	}
	return d.c.lookUp(d.f.Dst, netlink.RouteGetOptions{
		FIBMatch: match, Mark: d.f.Mark, SrcAddr: d.f.Src.AsSlice(), IifIndex: d.in.Index,
	})
}

// lookUpPlain asks for the entry that matches an address, as if the packet were
// made here.
func (d *diagnosis) lookUpPlain(to netip.Addr) (netlink.Route, error) {
	return d.c.lookUp(to, netlink.RouteGetOptions{FIBMatch: true, Mark: d.f.Mark})
}

func (c *Conn) lookUp(to netip.Addr, o netlink.RouteGetOptions) (netlink.Route, error) {
	routes, err := c.h.RouteGetWithOptions(to.AsSlice(), &o)
	if err != nil {
		return netlink.Route{}, err
	}
	if len(routes) == 0 {
		return netlink.Route{}, unix.ENETUNREACH
	}
	return routes[0], nil
}

// routeOf joins the entry that matched dst and where it leads.
func routeOf(match, hop netlink.Route, dst netip.Addr) *Route {
	r := &Route{Type: routeType(match.Type), To: prefixTo(match, dst), Table: uint32(match.Table), Index: hop.LinkIndex}
	if via, ok := netip.AddrFromSlice(hop.Gw); ok {
		r.Via = via.Unmap()
	} else if v, ok := hop.Via.(*netlink.Via); ok { // a gateway of the other family
		r.Via, _ = netip.AddrFromSlice(v.Addr)
	}
	return r
}

// leavesBy reports whether one of the route's ways leaves by the interface.
func leavesBy(r netlink.Route, index int) bool {
	return r.LinkIndex == index || slices.ContainsFunc(r.MultiPath, func(n *netlink.NexthopInfo) bool { return n.LinkIndex == index })
}

// prefixTo is the prefix of a route of the same family as a, /0 when it has none.
func prefixTo(r netlink.Route, a netip.Addr) netip.Prefix {
	if r.Dst != nil {
		if to, ok := netip.AddrFromSlice(r.Dst.IP); ok {
			ones, _ := r.Dst.Mask.Size()
			return netip.PrefixFrom(to.Unmap(), ones)
		}
	}
	p, _ := a.Prefix(0)
	return p
}

var routeTypes = [...]string{
	unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast",
	unix.RTN_MULTICAST: "multicast", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable",
	unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw", unix.RTN_NAT: "nat",
}

// routeType is the word of iproute2.
func routeType(t int) string {
	if t > 0 && t < len(routeTypes) {
		return routeTypes[t]
	}
	return fmt.Sprintf("type %d", t)
}

// mostSpecific finds the longest prefix of that kind that covers an address, in
// whichever table.
func (c *Conn) mostSpecific(to netip.Addr, kind int) (best netlink.Route, ok bool, err error) {
	family := netlink.FAMILY_V4
	if to.Is6() {
		family = netlink.FAMILY_V6
	}
	bits := -1
	err = c.h.RouteListFilteredIter(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Type: kind}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE,
		func(r netlink.Route) bool {
			if p := prefixTo(r, to); p.Contains(to) && p.Bits() > bits {
				best, bits = r, p.Bits()
			}
			return true
		})
	if err != nil {
		return best, false, fmt.Errorf("list routes: %w", explain(err))
	}
	return best, bits >= 0, nil
}

// neighbour is the state of an entry of the neighbour cache, 0 when there is none.
func (c *Conn) neighbour(index int, a netip.Addr) (state int, err error) {
	family := uint8(unix.AF_INET)
	if a.Is6() {
		family = unix.AF_INET6
	}
	all, err := dump(func() ([]netlink.Neigh, error) {
		return c.h.NeighListExecute(netlink.Ndmsg{Family: family, Index: uint32(index)})
	})
	if err != nil {
		return 0, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range all {
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == a {
			return n.State, nil
		}
	}
	return 0, nil
}
