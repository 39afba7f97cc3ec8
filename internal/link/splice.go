package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// splicePriority tells our filters from those of others on the same interface.
// Low numbers run first; others' filters may come before.
const splicePriority = 0x7a57

// Splice joins two interfaces of the Conn's namespace by tc: whatever enters by
// one leaves by the other, GSO frames and VLAN tags unchanged. It is
// idempotent. The error wraps ErrConflict when a already belongs to a bridge.
func (c *Conn) Splice(a, b Link) error {
	for _, l := range []Link{a, b} {
		if l.Master == 0 {
			continue
		}
		m, err := c.ByIndex(l.Master)
		if err != nil {
			m.Name = fmt.Sprintf("interface %d", l.Master)
		}
		return fmt.Errorf("splice %s: %w: it belongs to %s", l.Name, ErrConflict, m.Name)
	}
	for _, d := range [][2]Link{{a, b}, {b, a}} {
		if err := c.redirect(d[0], d[1]); err != nil {
			return fmt.Errorf("splice %s to %s: %w", d[0].Name, d[1].Name, explain(err))
		}
	}
	return nil
}

func (c *Conn) redirect(from, to Link) error {
	q := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: from.Index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
	if err := c.h.QdiscAdd(q); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact: %w", err)
	}
	if err := c.unredirect(from.Index); err != nil {
		return err
	}
	// A selector without keys matches every frame. With a key, even one of
	// mask 0, frames with fewer than four octets of payload would not match.
	err := c.h.FilterAdd(&netlink.U32{
		FilterAttrs: ingressFilter(from.Index),
		Sel:         &netlink.TcU32Sel{Flags: nl.TC_U32_TERMINAL},
		Actions:     []netlink.Action{netlink.NewMirredAction(to.Index)},
	})
	if err != nil {
		return fmt.Errorf("add u32 and mirred: %w", err)
	}
	return nil
}

func ingressFilter(index int) netlink.FilterAttrs {
	return netlink.FilterAttrs{
		LinkIndex: index,
		Parent:    netlink.HANDLE_MIN_INGRESS,
		Priority:  splicePriority,
		Protocol:  unix.ETH_P_ALL,
	}
}

// SplicedTo returns the number of the interface that our filter on interface
// index takes frames to, 0 when there is no such filter.
func (c *Conn) SplicedTo(index int) (int, error) {
	filters, err := dump(func() ([]netlink.Filter, error) { return c.h.FilterList(ref(index), netlink.HANDLE_MIN_INGRESS) })
	if absent(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list filters of interface %d: %w", index, err)
	}
	for _, f := range filters {
		u, ok := f.(*netlink.U32)
		if !ok || u.Priority != splicePriority {
			continue
		}
		for _, a := range u.Actions {
			if m, ok := a.(*netlink.MirredAction); ok {
				return m.Ifindex, nil
			}
		}
	}
	return 0, nil
}

// Unsplice takes our filter off an interface, and the clsact qdisc with it when
// nobody else has a filter there. What is gone already is no error.
func (c *Conn) Unsplice(index int) error {
	if err := c.unredirect(index); err != nil {
		return fmt.Errorf("unsplice interface %d: %w", index, explain(err))
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		left, err := dump(func() ([]netlink.Filter, error) { return c.h.FilterList(ref(index), parent) })
		if err != nil || len(left) > 0 {
			return nil
		}
	}
	err := c.h.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
	if err != nil && !absent(err) {
		return fmt.Errorf("unsplice interface %d: %w", index, explain(err))
	}
	return nil
}

func (c *Conn) unredirect(index int) error {
	err := c.h.FilterDel(&netlink.U32{FilterAttrs: ingressFilter(index)})
	if err != nil && !absent(err) {
		return fmt.Errorf("remove filter: %w", err)
	}
	return nil
}

func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV)
}
