package udpio

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// ReceiveBuffer in octets is 10 ms of a 10 Gb/s link: longer than the event
	// loop is ever away.
	ReceiveBuffer = 16 << 20
	// sendBuffer in octets bounds what one socket may have under way in the
	// egress device's queue before EAGAIN.
	sendBuffer = 4 << 20
	// OuterTTL is the outer TTL and hop limit: the tunnel's own, never the inner one's.
	OuterTTL = 64
)

// Source ports are dynamic ports (RFC 6335 clause 6), one stratum a slot.
const (
	firstPort = 49152
	portCount = 65536 - firstPort
	// Slots is how many sending sockets a Pool has at most.
	Slots   = 256
	stratum = portCount / Slots
)

// ReceiverOptions describe a receiving socket.
type ReceiverOptions struct {
	Listen netip.AddrPort // the unspecified IPv6 address receives IPv4 too; port 0 lets the kernel choose one
	// Sends lets a Socket send from it too. What the egress queue drops isn't
	// reported on it: the error queue, which would tell, would wake who polls the
	// socket for each ICMP message that anybody forges.
	Sends bool
	// Early allows an address that no interface has yet: nothing is received until
	// one has.
	Early bool
	// Beside are sockets of the caller's that may stay where the new one shall
	// be, as while one takes the place of another. Which of them receives what
	// both could is the kernel's choice until the others are closed.
	Beside []int
}

// Open opens a non-blocking, close-on-exec socket with all options that a
// Receiver needs. A receive buffer above the system's limit needs CAP_NET_ADMIN;
// without it the buffer is smaller and all else the same.
func Open(o ReceiverOptions) (fd int, err error) {
	fd, err = open(o.Listen.Addr(), func(fd int) error {
		if o.Sends {
			if err := set(fd, bothOptions(o.Listen.Addr())...); err != nil {
				return err
			}
		}
		return setUpReceiver(fd, &o)
	})
	if err != nil {
		return -1, fmt.Errorf("open udp %s: %w", o.Listen, err)
	}
	return fd, nil
}

// OpenReceiver opens a socket for a Receiver alone.
func OpenReceiver(listen netip.AddrPort) (fd int, err error) {
	return Open(ReceiverOptions{Listen: listen})
}

// OpenBoth opens a socket for a Receiver that a Socket may send from too.
func OpenBoth(listen netip.AddrPort) (fd int, err error) {
	return Open(ReceiverOptions{Listen: listen, Sends: true})
}

// bothOptions are those of a sender that a receiver may have. Options of IPv4 are
// for datagrams from a dual-stack socket too.
func bothOptions(listen netip.Addr) []option {
	options := []option{
		{"send buffer", unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer, true},
		{"forced send buffer", unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer, true},
		{"IP_MTU_DISCOVER", unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, false},
		{"IP_TTL", unix.SOL_IP, unix.IP_TTL, OuterTTL, false},
	}
	if listen.Is6() {
		options = append(options,
			option{"IPV6_MTU_DISCOVER", unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, false},
			option{"IPV6_UNICAST_HOPS", unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, OuterTTL, false})
	}
	return options
}

// SenderOptions describe a sending socket.
type SenderOptions struct {
	Local      netip.Addr // source address; 0.0.0.0 or :: = by route; chooses the family
	Slot       int        // 0 to Slots-1: which stratum of 49152-65535 the source port comes from
	NoChecksum bool       // outer UDP checksum 0, IPv4 only; UDP_SEGMENT is then not used
	Early      bool       // no interface need have Local yet
}

// OpenSender opens a non-blocking, close-on-exec sending socket on a free port
// of its slot's stratum of 64. It receives nothing.
func OpenSender(o SenderOptions) (fd int, err error) {
	switch {
	case o.Slot < 0 || o.Slot >= Slots:
		err = fmt.Errorf("slot %d, want 0 to %d", o.Slot, Slots-1)
	case !o.Local.IsValid():
		err = errors.New("no source address: want 0.0.0.0, :: or one of this host")
	case o.NoChecksum && !o.Local.Is4():
		err = errors.New("checksum off over IPv6, want IPv4: RFC 8200 clause 8.1 demands the checksum")
	default:
		fd, err = open(o.Local, func(fd int) error { return setUpSender(fd, o) })
	}
	if err != nil {
		return -1, fmt.Errorf("open udp sender %s: %w", o.Local, err)
	}
	return fd, nil
}

func open(local netip.Addr, setUp func(fd int) error) (int, error) {
	family := unix.AF_INET
	switch {
	case local.Is6() && !local.Is4In6():
		family = unix.AF_INET6
	case !local.Is4():
		return -1, errors.New("want an IPv4 or IPv6 address")
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return -1, err
	}
	if err := setUp(fd); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// option is one socket option, and what to do without it.
type option struct {
	name       string
	level, opt int
	value      int
	optional   bool
}

func set(fd int, options ...option) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil && !o.optional {
			return fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	return nil
}

func setUpReceiver(fd int, o *ReceiverOptions) error {
	options := []option{
		{"receive buffer", unix.SOL_SOCKET, unix.SO_RCVBUF, ReceiveBuffer, true},
		{"forced receive buffer", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, ReceiveBuffer, true},
		// Without it every datagram is a message of its own.
		{"UDP_GRO", unix.SOL_UDP, unix.UDP_GRO, 1, true},
		// Options of IPv4 are for datagrams to a dual-stack socket too.
		{"IP_RECVTOS", unix.SOL_IP, unix.IP_RECVTOS, 1, false},
		{"IP_RECVTTL", unix.SOL_IP, unix.IP_RECVTTL, 1, false},
	}
	if o.Listen.Addr().Is6() {
		v6only := 1
		if o.Listen.Addr().IsUnspecified() {
			v6only = 0
		}
		options = append(options,
			option{"IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, v6only, false},
			option{"IPV6_RECVTCLASS", unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1, false},
			option{"IPV6_RECVHOPLIMIT", unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT, 1, false},
			// A VTEP may send checksum 0 (RFC 7348 clause 5, RFC 6936).
			option{"UDP_NO_CHECK6_RX", unix.SOL_UDP, unix.UDP_NO_CHECK6_RX, 1, true},
		)
	}
	if o.Early {
		options = append(options, early(o.Listen.Addr()))
	}
	if err := set(fd, options...); err != nil {
		return err
	}
	err := bind(fd, o.Listen)
	if errors.Is(err, unix.EADDRINUSE) && len(o.Beside) > 0 {
		return bindBeside(fd, o.Listen, o.Beside)
	}
	return err
}

// early is the option to bind to an address that no interface has yet.
func early(a netip.Addr) option {
	if a.Is6() {
		return option{"IPV6_FREEBIND", unix.SOL_IPV6, unix.IPV6_FREEBIND, 1, false}
	}
	return option{"IP_FREEBIND", unix.SOL_IP, unix.IP_FREEBIND, 1, false}
}

// bindBeside binds fd although the sockets others have the same place. The
// kernel asks for the option when it binds, and of both sides; it is taken back,
// so that no other program can put itself beside them, nor the kernel share what
// comes out among them.
func bindBeside(fd int, to netip.AddrPort, others []int) error {
	share := func(on int) (err error) {
		for _, s := range append([]int{fd}, others...) {
			err = errors.Join(err, set(s, option{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, on, false}))
		}
		return err
	}
	if err := share(1); err != nil {
		return errors.Join(err, share(0))
	}
	return errors.Join(bind(fd, to), share(0))
}

func setUpSender(fd int, o SenderOptions) error {
	options := []option{
		{"send buffer", unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer, true},
		{"forced send buffer", unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer, true},
		// Room for an error or two; the filter keeps all else out.
		{"receive buffer", unix.SOL_SOCKET, unix.SO_RCVBUF, 0, true},
	}
	// RECVERR makes the kernel admit what the egress queue has dropped
	// (ENOBUFS). It also reports ICMP errors; see Sender.
	if o.Local.Is4() {
		options = append(options,
			option{"IP_MTU_DISCOVER", unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, false},
			option{"IP_TTL", unix.SOL_IP, unix.IP_TTL, OuterTTL, false},
			option{"IP_RECVERR", unix.SOL_IP, unix.IP_RECVERR, 1, false})
	} else {
		options = append(options,
			option{"IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, 1, false},
			option{"IPV6_MTU_DISCOVER", unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, false},
			option{"IPV6_UNICAST_HOPS", unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, OuterTTL, false},
			option{"IPV6_RECVERR", unix.SOL_IPV6, unix.IPV6_RECVERR, 1, false})
	}
	if o.Early {
		options = append(options, early(o.Local))
	}
	if o.NoChecksum {
		options = append(options, option{"SO_NO_CHECK", unix.SOL_SOCKET, unix.SO_NO_CHECK, 1, false})
	}
	if err := set(fd, options...); err != nil {
		return err
	}
	if err := deaf(fd); err != nil {
		return err
	}
	return bindInStratum(fd, o.Local, o.Slot)
}

// deaf makes the kernel drop whatever is sent to the socket: nobody reads it.
func deaf(fd int) error {
	raw, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

// bindInStratum tries the slot's ports, from a random one on, until one is free.
func bindInStratum(fd int, local netip.Addr, slot int) error {
	first := rand.IntN(stratum)
	var err error
	for i := range stratum {
		port := firstPort + slot*stratum + (first+i)%stratum
		err = bind(fd, netip.AddrPortFrom(local, uint16(port)))
		if !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
	return fmt.Errorf("all ports of slot %d are taken: %w", slot, err)
}

func bind(fd int, to netip.AddrPort) error {
	var sa unix.Sockaddr
	if to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	} else {
		sa = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}
