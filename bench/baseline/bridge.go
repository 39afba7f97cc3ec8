package baseline

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns"
)

// End is one namespace on the bridge.
type End struct {
	NS      *netns.Handle
	Ifname  string
	Address netip.Prefix
}

const bridgeName = "br0"

// owner marks our interfaces, so that whoever sees them knows whose they are.
const owner = "bench"

// Build makes a bridge in ns and connects the ends to it. It needs
// CAP_NET_ADMIN over all namespaces, and a kernel with bridge and veth.
func Build(ns *netns.Handle, ends ...End) error {
	if err := ns.Do(addBridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	c, err := link.Open(ns)
	if err != nil {
		return fmt.Errorf("build kernel bridge: %w", err)
	}
	defer c.Close()
	br, err := c.ByName(bridgeName)
	if err == nil {
		err = c.SetUp(br.Index, true)
	}
	if err != nil {
		return fmt.Errorf("build kernel bridge: %w", err)
	}
	for i, e := range ends {
		if err := connect(ns, c, "p"+strconv.Itoa(i), e); err != nil {
			return fmt.Errorf("connect %s to kernel bridge: %w", e.NS, err)
		}
	}
	return nil
}

func connect(ns *netns.Handle, c *link.Conn, port string, e End) error {
	host, peer, err := c.AddVeth(link.Veth{
		Host: port, Peer: e.Ifname, PeerNS: e.NS, Owner: link.Owner{Instance: owner, Port: port},
	})
	if err != nil {
		return err
	}
	if err := ns.Do(func() error { return enslave(host.Index) }); err != nil {
		return err
	}
	if err := c.SetUp(host.Index, true); err != nil {
		return err
	}
	pc, err := link.Open(e.NS)
	if err != nil {
		return err
	}
	defer pc.Close()
	return pc.Configure(peer.Index, link.Settings{Addresses: []netip.Prefix{e.Address}, Up: true})
}

// addBridge makes the bridge in the thread's namespace and takes netfilter off
// its path.
func addBridge() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	name, err := unix.ByteSliceFromString(bridgeName)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCBRADDBR, uintptr(unsafe.Pointer(&name[0]))); errno != 0 {
		return fmt.Errorf("add %s: %w", bridgeName, errno)
	}
	for _, f := range []string{"iptables", "ip6tables", "arptables"} {
		// The switch is there, and on, only where br_netfilter is loaded.
		err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+f, []byte("0"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("switch off bridge-nf-call-%s: %w", f, err)
		}
	}
	return nil
}

// enslave adds an interface of the thread's namespace to the bridge.
func enslave(index int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(bridgeName)
	if err != nil {
		return err
	}
	r.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(fd, unix.SIOCBRADDIF, r); err != nil {
		return fmt.Errorf("add interface %d to %s: %w", index, bridgeName, err)
	}
	return nil
}
