package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Veth is a pair to be made.
type Veth struct {
	Host   string        // name of the end in the Conn's namespace
	Peer   string        // name of the end in PeerNS
	PeerNS *netns.Handle // the container's namespace
	MAC    frame.MAC     // of the peer; zero = the kernel's choice
	MTU    int           // of both ends; 0 = the kernel's choice
	Owner  Owner
}

// AddVeth makes a pair with its peer directly in the container's namespace and
// marks both ends. Both are down. The error wraps ErrConflict and names the
// owner when either name is taken.
func (c *Conn) AddVeth(v Veth) (host, peer Link, err error) {
	pc, err := Open(v.PeerNS)
	if err != nil {
		return host, peer, err
	}
	defer pc.Close()
	nl := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: v.Host, MTU: v.MTU, TxQLen: -1},
		PeerName:      v.Peer,
		PeerNamespace: netlink.NsFd(v.PeerNS.FD),
	}
	if !v.MAC.IsZero() {
		nl.PeerHardwareAddr = v.MAC[:]
	}
	if err := c.h.LinkAdd(nl); err != nil {
		return host, peer, fmt.Errorf("add veth %s: %w", v.Host, c.vethError(err, pc, v))
	}
	if host, err = c.ByName(v.Host); err == nil {
		if err = c.Mark(host.Index, v.Owner); err == nil {
			if peer, err = pc.ByName(v.Peer); err == nil {
				err = pc.Mark(peer.Index, v.Owner)
			}
		}
	}
	if err != nil {
		_ = c.h.LinkDel(nl)
		return Link{}, Link{}, fmt.Errorf("add veth %s: %w", v.Host, err)
	}
	host.Owner, peer.Owner = v.Owner, v.Owner
	return host, peer, nil
}

func (c *Conn) vethError(err error, pc *Conn, v Veth) error {
	if !errors.Is(err, unix.EEXIST) {
		return explain(err)
	}
	if _, e := c.ByName(v.Host); e == nil {
		return c.taken(v.Host)
	}
	return pc.taken(v.Peer)
}
