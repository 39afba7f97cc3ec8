package tap

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns"
	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Request describes a TAP as it shall be.
type Request struct {
	Name     string // of the interface, in its namespace
	Owner    link.Owner
	Settings link.Settings
	NoGSO    bool // plain frames, without vnet header
}

// Device is an open TAP.
type Device struct {
	FD         int // non-blocking, close-on-exec
	Link       link.Link
	VNetHdr    int // octets of vnet header; 0 = none
	Offloads   frame.Offloads
	Reattached bool // the interface was there already
}

// Close closes the descriptor; the interface stays.
func (d *Device) Close() error { return unix.Close(d.FD) }

// Open makes a TAP in ns, nil being the calling thread's namespace, or attaches
// to the one that an earlier process of the same owner made there, keeping its
// addresses. A device that is attached to, unlike one just made, keeps its
// namespace alive until the descriptor is closed. An interface of that name that isn't the owner's TAP is a
// link.ErrConflict. After an error nothing is there that wasn't before. It
// needs CAP_NET_ADMIN, and CAP_SYS_ADMIN to enter ns.
func Open(ns *netns.Handle, r Request) (*Device, error) {
	d, err := open(ns, r, false)
	if err != nil {
		return nil, fmt.Errorf("open tap %s: %w", r.Name, err)
	}
	return d, nil
}

// Remove deletes the owner's interface called name; one that is gone already is
// no error, and another owner's is a link.ErrConflict.
func Remove(ns *netns.Handle, name string, o link.Owner) error {
	c, err := link.Open(ns)
	if err != nil {
		return fmt.Errorf("remove tap %s: %w", name, err)
	}
	defer c.Close()
	return c.Delete(name, o)
}

// open does the work of Open. A silent device gets no IPv6, so that the kernel
// puts no frame of its own into the switch; this is for one that only carries
// the frames of another interface, in the calling thread's namespace.
func open(ns *netns.Handle, r Request, silent bool) (*Device, error) {
	c, err := link.Open(ns)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	l, err := c.ByName(r.Name)
	found := err == nil
	switch {
	case found && (l.Owner != r.Owner || l.Kind != "tuntap" && l.Kind != "tun"):
		return nil, fmt.Errorf("%w: %s", link.ErrConflict, l.Describe())
	case !found && !errors.Is(err, link.ErrNotFound):
		return nil, err
	}
	d := &Device{FD: -1, Reattached: found}
	switch {
	case found:
		err = within(ns, func() (err error) { d.FD, err = attachQueue(r.Name, r, false); return err })
	case ns == nil:
		d.FD, err = attachQueue(r.Name, r, true)
	default:
		d.FD, err = makeElsewhere(ns, r)
	}
	if err != nil {
		return nil, err
	}
	if err := d.setUp(c, r, silent); err != nil {
		if !found {
			if l, e := c.ByName(r.Name); e == nil {
				_ = c.Mark(l.Index, r.Owner)
				_ = c.Delete(r.Name, r.Owner)
			}
		}
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

func within(ns *netns.Handle, fn func() error) error {
	if ns == nil {
		return fn()
	}
	return ns.Do(fn)
}

// makeElsewhere makes the device in the calling thread's namespace and moves it
// to ns. A descriptor keeps the namespace alive that it was opened in; made like
// this, the container's ends with its last process, and the port is told.
func makeElsewhere(ns *netns.Handle, r Request) (fd int, err error) {
	c, err := link.Open(nil)
	if err != nil {
		return -1, err
	}
	defer c.Close()
	name := "tpn" + nameID(r.Owner)
	if err := c.Delete(name, r.Owner); err != nil { // of a process that was killed between two steps
		return -1, err
	}
	if fd, err = attachQueue(name, r, true); err != nil {
		return -1, err
	}
	l, err := c.ByName(name)
	if err == nil {
		err = c.Move(l.Index, ns, r.Name)
	}
	if err != nil {
		_ = c.Delete(name, r.Owner)
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// setUp marks the device before anything else, so that whatever happens later
// its owner can be told.
func (d *Device) setUp(c *link.Conn, r Request, silent bool) error {
	l, err := c.ByName(r.Name)
	if err != nil {
		return err
	}
	if err := c.Mark(l.Index, r.Owner); err != nil {
		return err
	}
	if err := d.negotiate(); err != nil {
		return err
	}
	if silent {
		if err := c.Silence(l); err != nil {
			return err
		}
	}
	if !l.Up {
		c.NoQueue(l.Index)
	}
	if err := c.Configure(l.Index, r.Settings); err != nil {
		return err
	}
	d.Link, err = c.ByIndex(l.Index)
	return err
}

// attachQueue makes or opens the device by netlink, attaches a queue by water
// and returns its descriptor. A device made here is marked before it is made to
// stay, so that it can't be left behind as nobody's. The calling thread is in
// the device's namespace.
func attachQueue(name string, r Request, create bool) (int, error) {
	t := &netlink.Tuntap{
		LinkAttrs:  netlink.LinkAttrs{Name: name},
		Mode:       netlink.TUNTAP_MODE_TAP,
		Flags:      netlink.TUNTAP_MULTI_QUEUE_DEFAULTS,
		Queues:     1,
		NonPersist: true, // it stays when water has opened it
	}
	if create {
		t.Flags |= netlink.TUNTAP_TUN_EXCL
	}
	if !r.NoGSO {
		t.Flags |= netlink.TUNTAP_VNET_HDR
	}
	if err := netlink.LinkAdd(t); err != nil {
		return -1, explain(err)
	}
	defer func() {
		for _, f := range t.Fds {
			_ = f.Close()
		}
	}()
	if create {
		if err := netlink.LinkSetAlias(t, r.Owner.String()); err != nil {
			return -1, fmt.Errorf("mark: %w", err)
		}
	}
	return openWater(name)
}

// openWater attaches a queue to a device that exists. water opens it without
// close-on-exec and hands it to the runtime's poller: the lock keeps programs
// from being started meanwhile, and the duplicate is in no poller.
func openWater(name string) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	w, err := water.New(water.Config{
		DeviceType:             water.TAP,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name, Persist: true, MultiQueue: true},
	})
	if err != nil {
		return -1, fmt.Errorf("attach queue: %w", err)
	}
	defer w.Close()
	raw, err := w.ReadWriteCloser.(*os.File).SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("attach queue: %w", err)
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(p uintptr) { fd, dupErr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, fmt.Errorf("attach queue: %w", err)
	}
	if dupErr != nil {
		return -1, fmt.Errorf("attach queue: %w", dupErr)
	}
	return fd, nil
}

// offers are the sets of offloads to try, best first.
var offers = []struct {
	kernel int
	set    frame.Offloads
}{
	{unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6,
		frame.OffloadChecksum | frame.OffloadTSO4 | frame.OffloadTSO6 | frame.OffloadECN | frame.OffloadUSO4 | frame.OffloadUSO6},
	{unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN,
		frame.OffloadChecksum | frame.OffloadTSO4 | frame.OffloadTSO6 | frame.OffloadECN},
	{unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6, frame.OffloadChecksum | frame.OffloadTSO4 | frame.OffloadTSO6},
	{unix.TUN_F_CSUM, frame.OffloadChecksum},
	{0, 0},
}

// negotiate finds the vnet header's length and the best offloads that the
// kernel takes. What the descriptor has counts, not what was asked for.
func (d *Device) negotiate() error {
	r, err := getIff(d.FD)
	if err != nil {
		return fmt.Errorf("read flags: %w", err)
	}
	// The largest buffer: a full one would refuse frames that the receiver's
	// own queues can still take.
	if err := unix.IoctlSetPointerInt(d.FD, unix.TUNSETSNDBUF, math.MaxInt32); err != nil {
		return fmt.Errorf("set send buffer: %w", err)
	}
	if r.flags&unix.IFF_VNET_HDR == 0 {
		return unix.IoctlSetInt(d.FD, unix.TUNSETOFFLOAD, 0)
	}
	d.VNetHdr = offload.HeaderLenMerged
	if err := unix.IoctlSetPointerInt(d.FD, unix.TUNSETVNETHDRSZ, d.VNetHdr); err != nil {
		d.VNetHdr = offload.HeaderLen
		if err := unix.IoctlSetPointerInt(d.FD, unix.TUNSETVNETHDRSZ, d.VNetHdr); err != nil {
			return fmt.Errorf("set vnet header length: %w", err)
		}
	}
	for _, o := range offers {
		if err = unix.IoctlSetInt(d.FD, unix.TUNSETOFFLOAD, o.kernel); err == nil {
			d.Offloads = o.set
			return nil
		}
	}
	return fmt.Errorf("set offloads: %w", err)
}

// explain names what is missing. netlink flattens the errno of an ioctl into
// text, which is why it is looked for there.
func explain(err error) error {
	is := func(e unix.Errno) bool {
		return errors.Is(err, e) || strings.HasSuffix(err.Error(), "errno "+e.Error())
	}
	switch {
	case is(unix.ENOENT), is(unix.ENODEV), is(unix.ENXIO):
		return fmt.Errorf("%w: no usable /dev/net/tun (modprobe tun, or give the container the device)", err)
	case is(unix.EPERM), is(unix.EACCES):
		return fmt.Errorf("%w: %w: needs CAP_NET_ADMIN and access to /dev/net/tun", os.ErrPermission, err)
	case is(unix.EBUSY), is(unix.EEXIST):
		return fmt.Errorf("%w: the interface is in use: %w", link.ErrConflict, err)
	}
	return err
}
