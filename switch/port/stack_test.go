package port_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/tap"
)

// station is a namespace with a TAP whose kernel speaks TCP and UDP.
func station(t *testing.T, n byte, noGSO bool) (*netnstest.NS, *tap.Queue) {
	t.Helper()
	netnstest.Require(t, "netns", "tun")
	ns := netnstest.New(t)
	d, err := tap.Open(ns.Handle, tap.Request{
		Name: "eth0", Owner: owner, NoGSO: noGSO,
		Settings: link.Settings{MTU: 1500, Up: true, MAC: frame.MAC{2, 0, 0, 0, 0, n}, Addresses: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, n}), 24),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 15: n}), 64),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	q, err := tap.NewQueue(d.FD, d.VNetHdr, d.Offloads)
	if err != nil {
		t.Fatal(err)
	}
	return ns, q
}

// wire carries frames between two queues until the test ends.
func wire(t *testing.T, a, b *tap.Queue) {
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- carry(a, b, stop) }()
	t.Cleanup(func() {
		_, _ = unix.Write(stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		if err := <-done; err != nil {
			t.Error(err)
		}
		_, _, _ = a.Close(), b.Close(), unix.Close(stop)
	})
}

func carry(a, b *tap.Queue, stop int) error {
	e, in, out := offload.NewEgress(), frame.NewBatch(1<<20), frame.NewBatch(0)
	polls := []unix.PollFd{{Fd: int32(a.FD()), Events: unix.POLLIN}, {Fd: int32(b.FD()), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(polls, -1); err != nil && err != unix.EINTR {
			return err
		}
		if polls[2].Revents != 0 {
			return nil
		}
		for _, d := range [][2]*tap.Queue{{a, b}, {b, a}} {
			in.Reset()
			if err := d[0].Receive(in); err != nil {
				return err
			}
			for rest := in.Frames; len(rest) > 0; {
				out.Reset()
				n := e.Plan(rest, d[1].Offloads(), true, out)
				if _, err := d[1].Transmit(out); err != nil {
					return err
				}
				rest = rest[n:]
			}
		}
	}
}

// TestStacksTalk sends TCP and UDP between two kernels through two TAPs with
// every combination of offloads. The receiving kernel checks each checksum.
func TestStacksTalk(t *testing.T) {
	for _, c := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("noGSO %v %v", c[0], c[1]), func(t *testing.T) {
			nsA, qA := station(t, 1, c[0])
			nsB, qB := station(t, 2, c[1])
			wire(t, qA, qB)
			for _, addr := range []string{"10.1.0.2:7", "[fd00::2]:7"} {
				for _, n := range []int{1, 1448, 65536, 1 << 20} {
					if err := tcp(nsA, nsB, addr, n); err != nil {
						t.Errorf("tcp %s, %d octets: %v", addr, n, err)
					}
				}
				for _, n := range []int{1, 1472, 9000} {
					if err := udp(nsA, nsB, addr, n); err != nil {
						t.Errorf("udp %s, %d octets: %v", addr, n, err)
					}
				}
			}
		})
	}
}

const patience = 10 * time.Second

func tcp(a, b *netnstest.NS, addr string, n int) error {
	var l net.Listener
	if err := b.Handle.Do(func() (err error) { l, err = net.Listen("tcp", addr); return err }); err != nil {
		return err
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	var c net.Conn
	err := a.Handle.Do(func() error {
		return dial(unix.SOCK_STREAM, addr, &c)
	})
	if err != nil {
		return err
	}
	defer c.Close()
	return echo(c, n, func() { _ = c.(*net.TCPConn).CloseWrite() })
}

func udp(a, b *netnstest.NS, addr string, n int) error {
	var l net.PacketConn
	if err := b.Handle.Do(func() (err error) { l, err = net.ListenPacket("udp", addr); return err }); err != nil {
		return err
	}
	defer l.Close()
	go func() {
		buf := make([]byte, 65536)
		k, from, err := l.ReadFrom(buf)
		if err == nil {
			_, _ = l.WriteTo(buf[:k], from)
		}
	}()
	var c net.Conn
	if err := a.Handle.Do(func() error { return dial(unix.SOCK_DGRAM, addr, &c) }); err != nil {
		return err
	}
	defer c.Close()
	want := pattern(n)
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(want); err != nil {
		return err
	}
	got := make([]byte, n+1)
	k, err := c.Read(got)
	if err == nil && !bytes.Equal(got[:k], want) {
		err = errors.New("other octets come back")
	}
	return err
}

// dial makes the socket on the calling thread, where net.Dial might use another.
func dial(kind int, addr string, out *net.Conn) error {
	ap := netip.MustParseAddrPort(addr)
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()})
	if ap.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), addr)
	defer f.Close()
	tv := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return err
	}
	if err := unix.Connect(fd, sa); err != nil {
		return err
	}
	*out, err = net.FileConn(f)
	return err
}

func echo(c net.Conn, n int, half func()) error {
	want := pattern(n)
	_ = c.SetDeadline(time.Now().Add(patience))
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		half()
		sent <- err
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d other octets come back", len(got))
	}
	return nil
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}
