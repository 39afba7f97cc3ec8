package keeper

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns"
	"github.com/tapestry-net/tapestry/switch/port/packet"
	"github.com/tapestry-net/tapestry/switch/port/tap"
	"golang.org/x/sys/unix"
)

// defaultMTU in octets is that of an interface made without one given (IEEE
// 802.3 clause 3.2.7).
const defaultMTU = 1500

// machine carries requests out on the machine's own interfaces. What it makes
// is marked with the instance and the port's name.
type machine struct {
	instance string
}

func (m machine) owner(port string) link.Owner {
	return link.Owner{Instance: m.instance, Port: port}
}

// Open implements Devices.
func (m machine) Open(r PortRequest) (PortReply, int, error) {
	ns, err := namespaceOf(r)
	if err != nil {
		return PortReply{}, -1, err
	}
	defer ns.Close()
	p := PortReply{Name: r.Name, Kind: r.Kind, NetnsID: ns.Inode()}
	s := link.Settings{MAC: r.MAC, MTU: r.MTU, Addresses: r.Addresses, Gateway: r.Gateway, Up: true}
	if s.MTU == 0 {
		s.MTU = defaultMTU
	}
	if r.Kind == KindDevice {
		return openDevice(r, p)
	}
	at := ns
	if r.Netns == "" {
		at = nil
	}
	if r.Kind == KindVeth {
		return m.openVeth(at, r, s, p)
	}
	d, err := tap.Open(at, tap.Request{Name: r.Ifname, Owner: m.owner(r.Name), Settings: s, NoGSO: r.NoGSO})
	if err != nil {
		return PortReply{}, -1, err
	}
	p.describe(d.Link)
	p.VNetHdr, p.Offloads, p.Reattached = d.VNetHdr, d.Offloads, d.Reattached
	return p, d.FD, nil
}

func (p *PortReply) describe(l link.Link) {
	p.Device, p.Ifindex, p.MAC, p.MTU = l.Name, l.Index, l.MAC, l.MTU
}

// namespaceOf opens the namespace that r's interface is in; for a port without
// one that is the keeper's own.
func namespaceOf(r PortRequest) (*netns.Handle, error) {
	if r.Netns == "" {
		return netns.Current()
	}
	ns, err := netns.Open(r.Netns)
	if err != nil {
		return nil, err
	}
	if r.NetnsID != 0 && r.NetnsID != ns.Inode() {
		ns.Close()
		return nil, &Error{
			Code: CodeNotFound,
			Msg:  fmt.Sprintf("network namespace %s is another one now: inode %d, want %d", r.Netns, ns.Inode(), r.NetnsID),
			Hint: "attach the port again, to the namespace that bears the name now",
		}
	}
	return ns, nil
}

func openDevice(r PortRequest, p PortReply) (PortReply, int, error) {
	if err := checkDevice(r.Device); err != nil {
		return PortReply{}, -1, err
	}
	d, err := packet.Open(r.Device, r.NoGSO)
	if err != nil {
		return PortReply{}, -1, err
	}
	p.Device, p.Ifindex, p.MAC, p.MTU = r.Device, d.Index, d.MAC, d.MTU
	p.VNetHdr, p.Offloads, p.Packet = d.VNetHdr, d.Offloads, true
	if err := awaitPair(d.Index); err != nil {
		_ = d.Close() // the error that counts is err
		return PortReply{}, -1, err
	}
	return p, d.FD, nil
}

// checkDevice refuses an interface that can be no port.
func checkDevice(name string) error {
	c, err := link.Open(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.ByName(name)
	if err == nil && l.Loop {
		return invalid("open device %s: a loopback gives back every frame that it is given, and can be no port", name)
	}
	return err
}

// awaitPair waits for the carrier of a veth end that has just been switched on:
// until the kernel sees it, what is sent there is lost in silence. A NIC without
// a cable has no carrier to wait for.
func awaitPair(index int) error {
	c, err := link.Open(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.ByIndex(index)
	if err != nil || l.Kind != "veth" || !l.Up || l.Alive {
		return err
	}
	return c.AwaitCarrier(index)
}

func (m machine) openVeth(at *netns.Handle, r PortRequest, s link.Settings, p PortReply) (PortReply, int, error) {
	if r.Adopt != "" {
		s.MTU = r.MTU // 0 leaves it as it is
	}
	v, err := tap.OpenVeth(at, tap.VethRequest{
		Name: r.Ifname, Adopt: r.Adopt, Owner: m.owner(r.Name), Settings: s, NoGSO: r.NoGSO,
	})
	if err != nil {
		return PortReply{}, -1, err
	}
	container := v.Peer
	if r.Adopt != "" {
		container = v.HostEnd // the other end is its maker's, and may be anywhere
	}
	p.describe(container)
	p.Splice, p.HostEnd = v.Link.Name, v.HostEnd.Name
	p.VNetHdr, p.Offloads, p.Reattached = v.VNetHdr, v.Offloads, v.Reattached
	return p, v.FD, nil
}

// place opens the namespace that a held port's interface is in. A TAP is asked
// by its descriptor, because the name or process that led there may lead
// elsewhere by now.
func place(h Held) (*netns.Handle, error) {
	if h.Request.Kind == KindTap || h.Request.Kind == KindHost {
		fd, err := unix.IoctlRetInt(h.FD, unix.TUNGETDEVNETNS)
		if err == nil {
			defer unix.Close(fd)
			return netns.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
		}
		if errors.Is(err, unix.EBADFD) {
			return nil, tap.ErrGone
		}
	}
	r := h.Request
	r.NetnsID = h.Reply.NetnsID
	return namespaceOf(r)
}

// Inside implements Devices.
func (m machine) Inside(h *Held, do func() error) error {
	if h == nil {
		return do()
	}
	ns, err := place(*h)
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(do)
}

// Remove implements Devices.
func (m machine) Remove(h Held) error {
	r := h.Request
	switch r.Kind {
	case KindDevice:
		return nil // promiscuous mode ends with the descriptor
	case KindVeth:
		return tap.RemoveVeth(m.owner(r.Name), r.Adopt)
	}
	name, err := tap.Name(h.FD)
	if errors.Is(err, tap.ErrGone) {
		return nil
	}
	if err != nil {
		name = r.Ifname
	}
	ns, err := place(h)
	if errors.Is(err, tap.ErrGone) || errors.Is(err, netns.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	return tap.Remove(ns, name, m.owner(r.Name))
}

// Lost implements Devices. Only a TAP that was attached again inside its
// namespace keeps that alive (see package tap); any other goes with its
// namespace, and is no business of ours while processes without a name for it
// still live there.
func (m machine) Lost(h Held) bool {
	if h.Request.Netns == "" || !h.Reply.Reattached {
		return false
	}
	ns, err := netns.Open(h.Request.Netns)
	if err != nil {
		// A name without its mount is a plain file.
		return errors.Is(err, netns.ErrNotFound) || errors.Is(err, netns.ErrInvalid)
	}
	defer ns.Close()
	return ns.Inode() != h.Reply.NetnsID
}

// Set implements Devices. The interface is found by its number: it may have
// been renamed.
func (m machine) Set(h Held, s SetRequest) (PortReply, error) {
	ns, err := place(h)
	if err != nil {
		return PortReply{}, err
	}
	defer ns.Close()
	c, err := link.Open(ns)
	if err != nil {
		return PortReply{}, err
	}
	defer c.Close()
	l, err := c.ByIndex(h.Reply.Ifindex)
	if err != nil {
		return PortReply{}, err
	}
	if l.Owner != m.owner(h.Request.Name) {
		return PortReply{}, conflict("set %s: it is %s now", h.Reply.Device, l.Describe())
	}
	if err := m.configure(c, l, h, s); err != nil {
		return PortReply{}, err
	}
	if l, err = c.ByIndex(l.Index); err != nil {
		return PortReply{}, err
	}
	p := h.Reply
	p.describe(l)
	return p, nil
}

func (m machine) configure(c *link.Conn, l link.Link, h Held, s SetRequest) error {
	if s.Addresses != nil {
		if err := removeOld(c, l.Index, h.Request, s); err != nil {
			return err
		}
	}
	to := link.Settings{MAC: s.MAC, MTU: s.MTU, Addresses: s.Addresses, Gateway: s.Gateway, Up: s.Up != nil && *s.Up}
	if err := c.Configure(l.Index, to); err != nil {
		return err
	}
	if s.Up != nil && !*s.Up {
		if err := c.SetUp(l.Index, false); err != nil {
			return err
		}
	}
	if s.MTU == 0 || h.Request.Kind != KindVeth {
		return nil
	}
	return m.widen(h, s.MTU)
}

// removeOld takes away what the port was given and shall have no more.
func removeOld(c *link.Conn, index int, had PortRequest, s SetRequest) error {
	if had.Gateway.IsValid() && had.Gateway != s.Gateway {
		if err := c.RemoveGateway(index, had.Gateway); err != nil {
			return err
		}
	}
	gone := slices.DeleteFunc(slices.Clone(had.Addresses), func(p netip.Prefix) bool {
		return slices.Contains(s.Addresses, p)
	})
	for _, p := range gone {
		if err := c.RemoveAddress(index, p); err != nil {
			return err
		}
	}
	return nil
}

// widen sets the MTU of a veth port's interfaces in the keeper's namespace.
func (m machine) widen(h Held, mtu int) error {
	c, err := link.Open(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, name := range []string{h.Reply.HostEnd, h.Reply.Splice} {
		l, err := c.ByName(name)
		if err != nil {
			return err
		}
		if err := c.Configure(l.Index, link.Settings{MTU: mtu}); err != nil {
			return err
		}
	}
	return nil
}

// Sweep implements Devices.
func (m machine) Sweep(keep func(port string) bool) ([]string, error) {
	c, err := link.Open(nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	owned, err := c.Owned(m.instance)
	if err != nil {
		return nil, err
	}
	var gone []string
	for _, l := range owned {
		if keep(l.Owner.Port) {
			continue
		}
		if err := c.Delete(l.Name, l.Owner); err != nil {
			return gone, err
		}
		gone = append(gone, l.Name)
	}
	return gone, nil
}
