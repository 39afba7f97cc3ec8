package packet

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// bufferSize is what a socket may hold of frames not yet read, in octets: some
// 60 GSO frames, or a thousand frames of 1500 octets with the kernel's own cost.
const bufferSize = 8 << 20

// Device is an open packet socket.
type Device struct {
	FD       int // non-blocking, close-on-exec
	Index    int // of the interface
	MAC      frame.MAC
	MTU      int
	VNetHdr  int // octets of vnet header; 0 = none
	Offloads frame.Offloads
}

// Close closes the socket.
func (d *Device) Close() error { return unix.Close(d.FD) }

// Open opens the interface called name in the calling thread's namespace. With
// noGSO only plain frames are sent; what is received may be GSO frames still. The error wraps link.ErrNotFound or
// fs.ErrPermission. It needs CAP_NET_RAW.
func Open(name string, noGSO bool) (*Device, error) {
	d, err := open(name, noGSO)
	if err != nil {
		return nil, fmt.Errorf("open device %s: %w", name, err)
	}
	return d, nil
}

func open(name string, noGSO bool) (*Device, error) {
	c, err := link.Open(nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	l, err := c.ByName(name)
	if err != nil {
		return nil, err
	}
	// Protocol 0 receives nothing until the socket is bound to the interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: needs CAP_NET_RAW", err)
		}
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	d := &Device{FD: fd, Index: l.Index, MAC: l.MAC, MTU: l.MTU}
	if err := d.setUp(noGSO); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return d, nil
}

func (d *Device) setUp(noGSO bool) error {
	// Received frames may be GSO frames and lack their checksum whatever we
	// ask for; without the header nobody could tell.
	if unix.SetsockoptInt(d.FD, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1) == nil {
		d.VNetHdr = offload.HeaderLen
	}
	if d.VNetHdr > 0 && !noGSO {
		// The kernel segments and completes whatever the interface itself can't.
		d.Offloads = frame.OffloadChecksum | frame.OffloadTSO4 | frame.OffloadTSO6 |
			frame.OffloadUSO4 | frame.OffloadUSO6 | frame.OffloadECN
	} else {
		// Speed only. On this way the kernel discards a frame that it would
		// have to segment or complete, so it is for plain frames.
		_ = unix.SetsockoptInt(d.FD, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	}
	for _, o := range []struct {
		name string
		opt  int
	}{
		{"auxdata", unix.PACKET_AUXDATA},                 // without it tags are lost
		{"ignore outgoing", unix.PACKET_IGNORE_OUTGOING}, // without it we hear ourselves
	} {
		if err := unix.SetsockoptInt(d.FD, unix.SOL_PACKET, o.opt, 1); err != nil {
			return fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	// A smaller buffer than asked for is good enough.
	for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(d.FD, unix.SOL_SOCKET, o[0], bufferSize) != nil {
			_ = unix.SetsockoptInt(d.FD, unix.SOL_SOCKET, o[1], bufferSize)
		}
	}
	err := unix.SetsockoptPacketMreq(d.FD, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(d.Index), Type: unix.PACKET_MR_PROMISC})
	if err != nil {
		return fmt.Errorf("set promiscuous: %w", err)
	}
	all := uint16(unix.ETH_P_ALL)
	err = unix.Bind(d.FD, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: d.Index})
	if err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}
