package link

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RemoveAddress takes one address off an interface. One that isn't there is no
// error.
func (c *Conn) RemoveAddress(index int, p netip.Prefix) error {
	err := c.h.AddrDel(ref(index), address(p))
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove address %v from interface %d: %w", p, index, explain(err))
	}
	return nil
}

// RemoveGateway removes the default route by gateway on an interface. One that
// isn't there is no error.
func (c *Conn) RemoveGateway(index int, gateway netip.Addr) error {
	err := c.h.RouteDel(&netlink.Route{LinkIndex: index, Gw: gateway.AsSlice()})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove default route by %v on interface %d: %w", gateway, index, explain(err))
	}
	return nil
}
