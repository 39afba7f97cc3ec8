package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"net"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// bufferSize is what a socket may hold of packets not yet read, in octets of
// the kernel's memory, which counts some 700 for the smallest packet.
const bufferSize = 4 << 20

// nothing is the program that passes no packet.
var nothing = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K}}

// Open opens a socket that hears what the interface called ifname, or with an
// empty name every interface of the calling thread's namespace, receives and
// sends. Nothing waits in it before New has attached its reader's filter. The
// descriptor is non-blocking, close-on-exec and the caller's. The error wraps
// fs.ErrNotExist when there is no such interface, and fs.ErrPermission without
// CAP_NET_RAW.
func Open(ifname string) (fd int, err error) {
	index := 0
	if ifname != "" {
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			return -1, fmt.Errorf("watch interface %q: %w", ifname, fs.ErrNotExist)
		}
		index = i.Index
	}
	// Protocol 0 receives nothing until the socket is bound.
	if fd, err = open(unix.AF_PACKET, 0); err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	if err := setUp(fd, index); err != nil {
		_ = unix.Close(fd) // the error that counts is err
		return -1, fmt.Errorf("watch interface %q: %w", ifname, err)
	}
	return fd, nil
}

func setUp(fd, index int) error {
	if err := attach(fd, nothing); err != nil {
		return err
	}
	for _, o := range []struct {
		name       string
		level, opt int
	}{
		{"auxdata", unix.SOL_PACKET, unix.PACKET_AUXDATA}, // without it tags are lost
		// From here on, because the kernel begins to stamp only a moment later.
		{"timestamps", unix.SOL_SOCKET, unix.SO_TIMESTAMPNS},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, 1); err != nil {
			return fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	// A smaller buffer than asked for is good enough.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferSize)
	}
	all := uint16(unix.ETH_P_ALL)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: index}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// OpenRaw opens a socket of the calling thread's namespace that sends whole IP
// packets, IPv4 or IPv6, to where the namespace routes them, and receives none.
// The kernel fills in IPv4's checksum, total length and, where it is 0, ID, and
// else sends what it is given. The descriptor is non-blocking, close-on-exec and
// the caller's. The error wraps fs.ErrPermission without CAP_NET_RAW.
func OpenRaw(ipv6 bool) (fd int, err error) {
	family, level, opt := unix.AF_INET, unix.IPPROTO_IP, unix.IP_HDRINCL
	if ipv6 {
		family, level, opt = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL
	}
	if fd, err = open(family, unix.IPPROTO_RAW); err != nil {
		return -1, fmt.Errorf("open raw socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, level, opt, 1); err != nil {
		_ = unix.Close(fd) // the error that counts is err
		return -1, fmt.Errorf("open raw socket: include header: %w", err)
	}
	return fd, nil
}

func open(family, proto int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: needs CAP_NET_RAW", err)
	}
	return fd, err
}

// attach replaces the socket's filter by a program, which passes so many octets
// of a packet as it returns.
func attach(fd int, program []bpf.RawInstruction) error {
	if len(program) == 0 || len(program) > unix.BPF_MAXINSNS {
		return fmt.Errorf("attach filter: %d instructions, want 1 to %d", len(program), unix.BPF_MAXINSNS)
	}
	ins := make([]unix.SockFilter, len(program))
	for i, p := range program {
		ins[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(ins)), Filter: &ins[0]})
	if err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}
