package link

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// PathMTUs says how long a packet from one address, unspecified = any, may be to
// each of others as far as the calling thread's namespace can tell: the MTU of the
// interface that its route leaves by, or the route's own where that is less, in
// octets. What ICMP has taught the kernel of the path is not asked. An address
// without a route is left out. It needs no privilege.
func PathMTUs(from netip.Addr, to []netip.Addr) (map[netip.Addr]int, error) {
	c, err := Open(nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	links, err := dump(func() ([]netlink.Link, error) { return c.h.LinkList() })
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	mtus := make(map[int]int, len(links))
	for _, l := range links {
		mtus[l.Attrs().Index] = l.Attrs().MTU
	}
	out := make(map[netip.Addr]int, len(to))
	for _, a := range to {
		if mtu := c.pathMTU(from, a, mtus); mtu > 0 {
			out[a] = mtu
		}
	}
	return out, nil
}

// pathMTU is that of one destination, 0 when it can't be told.
func (c *Conn) pathMTU(from, to netip.Addr, mtus map[int]int) int {
	o := netlink.RouteGetOptions{FIBMatch: true}
	if from.IsValid() && !from.IsUnspecified() && from.Is4() == to.Is4() {
		o.SrcAddr = from.AsSlice() // rules may look at it
	}
	match, err := c.lookUp(to, o)
	if err != nil && o.SrcAddr != nil {
		o.SrcAddr = nil // the address isn't there, or not yet
		match, err = c.lookUp(to, o)
	}
	if err != nil {
		return 0
	}
	ways := []int{match.LinkIndex}
	for _, n := range match.MultiPath {
		ways = append(ways, n.LinkIndex)
	}
	if match.LinkIndex == 0 && len(match.MultiPath) == 0 { // by a next-hop object
		o.FIBMatch = false
		if hop, err := c.lookUp(to, o); err == nil {
			ways = append(ways, hop.LinkIndex)
		}
	}
	least := match.MTU
	for _, index := range ways {
		if mtu := mtus[index]; mtu > 0 && (least == 0 || mtu < least) {
			least = mtu
		}
	}
	return least
}

// Notice tells whether interfaces, routes or rules of a namespace may have changed.
type Notice struct{ fd int }

// noticed are the groups of rtnetlink that a Notice belongs to.
var noticed = [...]int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_NEXTHOP,
}

// OpenNotice begins to listen in the calling thread's namespace. It needs no
// privilege.
func OpenNotice() (*Notice, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	sa := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for _, g := range noticed {
		sa.Groups |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, sa); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	return &Notice{fd}, nil
}

// Changed reports whether anything has changed since the last call. Words of the
// kernel that were lost for want of room count.
func (n *Notice) Changed() bool {
	changed := false
	for b := make([]byte, 1); ; changed = true {
		if _, _, err := unix.Recvfrom(n.fd, b, unix.MSG_DONTWAIT|unix.MSG_TRUNC); err != nil && err != unix.ENOBUFS && err != unix.EINTR {
			return changed
		}
	}
}

// Close ends it.
func (n *Notice) Close() error { return unix.Close(n.fd) }
