package wiretest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// pipeDepth is how many packets an end in memory holds that nobody reads.
const pipeDepth = 1024

// Pipe is a pair of ends in memory: what is written to one is read from the
// other. A wire is given one of them and the test keeps the other. A Write to a
// full pipe fails with ErrFull, as a socket's buffer overflows.
func Pipe() (wire, test io.ReadWriteCloser) {
	a, b := make(chan []byte, pipeDepth), make(chan []byte, pipeDepth)
	done := make(chan struct{})
	once := new(sync.Once)
	return &pipe{in: a, out: b, done: done, once: once}, &pipe{in: b, out: a, done: done, once: once}
}

// ErrFull means that the reader of a Pipe is too slow.
var ErrFull = errors.New("pipe is full")

type pipe struct {
	in, out chan []byte
	done    chan struct{}
	once    *sync.Once
}

func (p *pipe) Read(b []byte) (int, error) {
	select {
	case d := <-p.in:
		return copy(b, d), nil
	case <-p.done:
		return 0, io.EOF
	}
}

func (p *pipe) Write(b []byte) (int, error) {
	select {
	case <-p.done:
		return 0, io.ErrClosedPipe
	default:
	}
	select {
	case p.out <- append([]byte(nil), b...):
		return len(b), nil
	default:
		return 0, ErrFull
	}
}

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// UDP is an end for the endpoint at peer: that one sends its datagrams to local,
// and gets what the wire carries from there.
func UDP(local, peer netip.AddrPort) (io.ReadWriteCloser, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(local))
	if err != nil {
		return nil, fmt.Errorf("open udp end: %w", err)
	}
	return &udpEnd{c, peer}, nil
}

type udpEnd struct {
	*net.UDPConn
	peer netip.AddrPort
}

// Write sends one datagram to the peer.
func (e *udpEnd) Write(b []byte) (int, error) { return e.WriteToUDPAddrPort(b, e.peer) }

// Device is an end on an interface of the calling thread's namespace: frames
// that arrive there are carried, those of the wire leave by it. Offloads are to
// be off at what sends to it, or its checksums are blank and its frames as long
// as 64 KiB. It needs CAP_NET_RAW.
func Device(name string) (io.ReadWriteCloser, error) {
	f, err := device(name)
	if err != nil {
		return nil, fmt.Errorf("open device end %s: %w", name, err)
	}
	return &deviceEnd{File: f}, nil
}

type deviceEnd struct {
	*os.File
	missed atomic.Uint64
}

// Missed is how many frames came while the socket's buffer was full.
func (e *deviceEnd) Missed() uint64 {
	raw, err := e.SyscallConn()
	if err != nil {
		return e.missed.Load() // it is closed
	}
	_ = raw.Control(func(fd uintptr) {
		if s, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil { // since the last call
			e.missed.Add(uint64(s.Drops))
		}
	})
	return e.missed.Load()
}

// Read is File.Read, but for the news that the interface is down, which comes
// once: frames arrive again when it is up.
func (e *deviceEnd) Read(b []byte) (int, error) {
	for {
		n, err := e.File.Read(b)
		if !errors.Is(err, unix.ENETDOWN) {
			return n, err
		}
	}
}

func device(name string) (*os.File, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	// Protocol 0 receives nothing until the socket is bound to the interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	// A smaller buffer than asked for is good enough.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20)
	}
	all := uint16(unix.ETH_P_ALL)
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(i.Index), Type: unix.PACKET_MR_PROMISC}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: i.Index}))
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
