package link

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// ErrNotFound means that there is no such interface.
var ErrNotFound = errors.New("interface not found")

// ErrConflict means that something with the same name, address or place exists
// and belongs to somebody else; the message names the owner.
var ErrConflict = errors.New("conflict")

// dumpTries bounds how often a dump that the kernel interrupted is repeated.
const dumpTries = 10

// Owner is the mark of an interface that the product made.
type Owner struct {
	Instance string // of the daemon; two daemons on one machine differ
	Port     string // the port's name
}

const markPrefix = "tapestry:"

// String is the mark as it stands in the ifalias: tapestry:INSTANCE:PORT.
func (o Owner) String() string { return markPrefix + o.Instance + ":" + o.Port }

// IsZero reports whether there is no mark.
func (o Owner) IsZero() bool { return o == Owner{} }

// ParseOwner reads a mark; the zero Owner means that alias is none.
func ParseOwner(alias string) Owner {
	rest, ok := strings.CutPrefix(alias, markPrefix)
	if !ok {
		return Owner{}
	}
	instance, port, ok := strings.Cut(rest, ":")
	if !ok {
		return Owner{}
	}
	return Owner{Instance: instance, Port: port}
}

// Link is one interface as it was when it was looked at.
type Link struct {
	Name   string
	Index  int
	Kind   string // the kernel's word: tuntap, veth, bridge, device, …
	MAC    frame.MAC
	MTU    int  // octets of L3 packet
	Up     bool // IFF_UP: switched on by the administrator
	Alive  bool // IFF_RUNNING: it has carrier
	Loop   bool // IFF_LOOPBACK: it hears what it says
	Owner  Owner
	Master int // index of the bridge or bond that it belongs to; 0 = none
}

// Describe says what the interface is and whose, for a conflict's message.
func (l Link) Describe() string {
	if l.Owner.IsZero() {
		return fmt.Sprintf("%s is a %s that tapestry did not make", l.Name, l.Kind)
	}
	return fmt.Sprintf("%s is a %s of port %s, tapestry instance %s", l.Name, l.Kind, l.Owner.Port, l.Owner.Instance)
}

// Conn is a netlink conversation with one namespace.
type Conn struct {
	h *netlink.Handle
}

// Open begins a conversation with ns; nil is the calling thread's namespace.
func Open(ns *netns.Handle) (*Conn, error) {
	fd := vnetns.None()
	if ns != nil {
		fd = vnetns.NsHandle(ns.FD)
	}
	h, err := netlink.NewHandleAt(fd, unix.NETLINK_ROUTE)
	if err != nil {
		if ns != nil && strings.HasSuffix(err.Error(), unix.EPERM.Error()) { // netlink flattens it into text
			err = fmt.Errorf("%w: entering another namespace needs CAP_SYS_ADMIN, changing it CAP_NET_ADMIN", fs.ErrPermission)
			return nil, fmt.Errorf("open netlink: %w", err)
		}
		return nil, fmt.Errorf("open netlink: %w", explain(err))
	}
	return &Conn{h: h}, nil
}

// Close ends the conversation.
func (c *Conn) Close() { c.h.Close() }

// ByName finds an interface by its name. The error wraps ErrNotFound.
func (c *Conn) ByName(name string) (Link, error) {
	l, err := c.h.LinkByName(name)
	if err != nil {
		return Link{}, fmt.Errorf("find interface %q: %w", name, explain(err))
	}
	return fromNetlink(l), nil
}

// ByIndex finds an interface by its number. The error wraps ErrNotFound.
func (c *Conn) ByIndex(index int) (Link, error) {
	l, err := c.h.LinkByIndex(index)
	if err != nil {
		return Link{}, fmt.Errorf("find interface %d: %w", index, explain(err))
	}
	return fromNetlink(l), nil
}

// List returns every interface of the namespace.
func (c *Conn) List() ([]Link, error) {
	all, err := dump(c.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	links := make([]Link, len(all))
	for i, l := range all {
		links[i] = fromNetlink(l)
	}
	return links, nil
}

// Owned returns the interfaces marked with the instance: its own, and what it
// left behind when it was killed.
func (c *Conn) Owned(instance string) ([]Link, error) {
	all, err := c.List()
	if err != nil {
		return nil, err
	}
	var own []Link
	for _, l := range all {
		if !l.Owner.IsZero() && l.Owner.Instance == instance {
			own = append(own, l)
		}
	}
	return own, nil
}

// Mark writes the owner into the interface's ifalias.
func (c *Conn) Mark(index int, o Owner) error {
	if err := c.h.LinkSetAlias(ref(index), o.String()); err != nil {
		return fmt.Errorf("mark interface %d: %w", index, explain(err))
	}
	return nil
}

// Delete removes an interface that carries the owner's mark. One that is gone
// already is no error.
func (c *Conn) Delete(name string, o Owner) error {
	l, err := c.ByName(name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if l.Owner != o {
		return fmt.Errorf("delete interface %q: %w: %s", name, ErrConflict, l.Describe())
	}
	return c.deleteIndex(l.Index)
}

func (c *Conn) deleteIndex(index int) error {
	err := c.h.LinkDel(ref(index))
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %d: %w", index, explain(err))
	}
	return nil
}

// SetUp switches an interface on or off.
func (c *Conn) SetUp(index int, up bool) error {
	set := c.h.LinkSetDown
	if up {
		set = c.h.LinkSetUp
	}
	if err := set(ref(index)); err != nil {
		return fmt.Errorf("set interface %d up=%v: %w", index, up, explain(err))
	}
	return nil
}

// Rename gives an interface another name. The error wraps ErrConflict when the
// name is taken.
func (c *Conn) Rename(index int, name string) error {
	err := c.h.LinkSetName(ref(index), name)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("rename interface %d: %w", index, c.taken(name))
	}
	if err != nil {
		return fmt.Errorf("rename interface %d to %q: %w", index, name, explain(err))
	}
	return nil
}

// taken is the conflict about an interface name that somebody uses.
func (c *Conn) taken(name string) error {
	l, err := c.ByName(name)
	if err != nil {
		return fmt.Errorf("%w: interface %q exists", ErrConflict, name)
	}
	return fmt.Errorf("%w: %s", ErrConflict, l.Describe())
}

// dump repeats a netlink dump that a concurrent change has interrupted, since
// its result may lack entries. What is still interrupted at last is an error.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	for range dumpTries {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, explain(err)
		}
	}
	return nil, fmt.Errorf("interrupted %d times: %w", dumpTries, netlink.ErrDumpInterrupted)
}

func fromNetlink(l netlink.Link) Link {
	a := l.Attrs()
	out := Link{
		Name: a.Name, Index: a.Index, Kind: l.Type(), MTU: a.MTU,
		Up:    a.RawFlags&unix.IFF_UP != 0,
		Alive: a.RawFlags&unix.IFF_RUNNING != 0,
		Loop:  a.RawFlags&unix.IFF_LOOPBACK != 0,
		Owner: ParseOwner(a.Alias), Master: a.MasterIndex,
	}
	if len(a.HardwareAddr) == len(out.MAC) {
		out.MAC = frame.MAC(a.HardwareAddr)
	}
	return out
}

// ref names an interface by its index alone, which survives a rename.
func ref(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// explain turns what netlink reports into a sentinel or names what is missing.
func explain(err error) error {
	var missing netlink.LinkNotFoundError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &missing), errors.Is(err, unix.ENODEV):
		return ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: needs CAP_NET_ADMIN", err)
	}
	return err
}

// Move puts an interface into another namespace under the given name. It comes
// out switched off, without addresses. The error wraps ErrConflict when the
// name is taken there.
func (c *Conn) Move(index int, ns *netns.Handle, name string) error {
	to, err := Open(ns)
	if err != nil {
		return err
	}
	defer to.Close()
	l, err := c.ByIndex(index)
	if err != nil {
		return err
	}
	if err := c.h.LinkSetNsFd(ref(index), ns.FD); err != nil {
		return fmt.Errorf("move interface %s: %w", l.Name, explain(err))
	}
	// Its index may be taken in the other namespace and change.
	if l, err = to.ByName(l.Name); err != nil {
		return err
	}
	if err := to.Rename(l.Index, name); err != nil {
		return errors.Join(err, to.deleteIndex(l.Index))
	}
	return nil
}
