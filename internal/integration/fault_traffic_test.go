package integration_test

import (
	endian "encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// flowPort is the UDP port that a flow goes to.
const flowPort = 7000

// flowEvery is the time between two datagrams of a flow. The container's own
// queue, of 1000 frames, holds two seconds of it.
const flowEvery = 2 * time.Millisecond

// flowAhead is how many datagrams may be under way while a flow makes up for time
// that the sender was kept from running: fewer than the queue holds. When nothing
// has come for flowLost, they don't count: they are lost.
const (
	flowAhead = 800
	flowLost  = 5 * time.Second
)

// flow sends numbered datagrams from one container to another, five hundred a
// second, and notes what arrives.
type flow struct {
	t    *testing.T
	sent atomic.Uint64
	got  atomic.Uint64
	last atomic.Uint64 // highest number that has come
	do   chan func()   // runs between two datagrams
	quit chan struct{}
	once sync.Once      // of quit
	over sync.WaitGroup // of sending
	done sync.WaitGroup

	// Owned by the receiving goroutine until done.
	late    int // came after one with a higher number, or the same
	longest time.Duration
	conn    *net.UDPConn
}

// startFlow starts a flow to the address of the second container, whose MAC is
// known to the switch afterwards.
func startFlow(t *testing.T, from, to *netnstest.NS, addr string) *flow {
	t.Helper()
	ping(t, from, addr, 1)
	f := &flow{t: t, do: make(chan func()), quit: make(chan struct{})}
	dst := netip.AddrPortFrom(netip.MustParseAddr(addr), flowPort)
	to.Do(func() (err error) {
		if f.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(dst)); err != nil {
			return err
		}
		return control(f.conn, func(fd int) error {
			return errors.Join(
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
		})
	})
	var out *net.UDPConn
	from.Do(func() (err error) {
		out, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(dst))
		return err
	})
	t.Cleanup(func() {
		f.stop()
		f.conn.Close()
		f.done.Wait()
		out.Close()
	})
	f.done.Go(f.receive)
	f.over.Go(func() { f.send(out) })
	f.pass(10)
	return f
}

func control(c *net.UDPConn, fn func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = fn(int(fd)) })
	return errors.Join(err, inner)
}

// send keeps its pace over any interruption of its own.
func (f *flow) send(out *net.UDPConn) {
	tick := time.NewTicker(flowEvery)
	defer tick.Stop()
	begin := time.Now()
	last, heard := uint64(0), begin
	for {
		if now := f.last.Load(); now != last {
			last, heard = now, time.Now()
		}
		select {
		case <-f.quit:
			return
		case fn := <-f.do:
			fn()
		case <-tick.C:
			for due := uint64(time.Since(begin) / flowEvery); f.sent.Load() < due; {
				if f.sent.Load()-f.last.Load() >= flowAhead && time.Since(heard) < flowLost {
					break
				}
				b := make([]byte, 16)
				endian.BigEndian.PutUint64(b, f.sent.Load()+1)
				endian.BigEndian.PutUint64(b[8:], uint64(time.Now().UnixNano()))
				_ = out.SetWriteDeadline(time.Now().Add(patience))
				if _, err := out.Write(b); err != nil {
					f.t.Errorf("send datagram %d: %v", f.sent.Load()+1, err)
					return
				}
				f.sent.Add(1)
			}
		}
	}
}

// receive ends when the connection does.
func (f *flow) receive() {
	b, oob := make([]byte, 64), make([]byte, 128)
	for {
		n, oobn, _, _, err := f.conn.ReadMsgUDP(b, oob)
		if err != nil {
			return
		}
		if n != 16 {
			f.t.Errorf("a datagram of %d octets came out of %d", n, 16)
			continue
		}
		number := endian.BigEndian.Uint64(b)
		if last := f.last.Load(); number <= last {
			f.late++
		} else {
			f.last.Store(number)
		}
		sent := time.Unix(0, int64(endian.BigEndian.Uint64(b[8:])))
		f.longest = max(f.longest, arrival(oob[:oobn]).Sub(sent))
		f.got.Add(1)
	}
}

// arrival is when the kernel received a datagram.
func arrival(oob []byte) time.Time {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range msgs {
			if m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
				ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
				return time.Unix(ts.Sec, ts.Nsec)
			}
		}
	}
	return time.Now()
}

// pass waits until n more datagrams have arrived.
func (f *flow) pass(n uint64) {
	f.t.Helper()
	want := f.got.Load() + n
	f.until(fmt.Sprintf("%d more datagrams arrive", n), func() bool { return f.got.Load() >= want })
}

// until waits for something that happens by itself.
func (f *flow) until(what string, ok func() bool) {
	f.t.Helper()
	if !eventually(ok) {
		f.t.Fatalf("waited %v in vain: %s (%d sent, %d arrived)", patience, what, f.sent.Load(), f.got.Load())
	}
}

// eventually reports whether ok came true within the test's patience.
func eventually(ok func() bool) bool {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline.C:
			return false
		}
	}
	return true
}

// between runs fn at a moment when every datagram sent has arrived, and none is
// sent.
func (f *flow) between(fn func()) {
	f.t.Helper()
	done := make(chan bool, 1)
	step := func() {
		ok := eventually(func() bool { return f.got.Load() == f.sent.Load() })
		if ok {
			fn()
		}
		done <- ok
	}
	select {
	case f.do <- step:
	case <-time.After(patience):
		f.t.Fatalf("the flow no longer sends: %d datagrams were sent, %d arrived", f.sent.Load(), f.got.Load())
	}
	if !<-done {
		f.t.Fatalf("%d datagrams were sent, %d arrived", f.sent.Load(), f.got.Load())
	}
}

// stop ends the sending.
func (f *flow) stop() {
	f.once.Do(func() { close(f.quit) })
	f.over.Wait()
}

// finish stops the flow and demands that everything has arrived, in order. It
// returns how long the slowest datagram was on its way.
func (f *flow) finish() time.Duration {
	f.t.Helper()
	f.stop()
	all := eventually(func() bool { return f.got.Load() >= f.sent.Load() })
	f.conn.Close()
	f.done.Wait()
	if !all || f.got.Load() != f.sent.Load() {
		f.t.Errorf("%d datagrams sent, %d arrived", f.sent.Load(), f.got.Load())
	}
	if f.late != 0 {
		f.t.Errorf("%d of %d datagrams arrived out of order or twice", f.late, f.sent.Load())
	}
	return f.longest
}

// settle stops the flow and returns how many of its datagrams are lost. It
// demands that the last one comes, and all others in order.
func (f *flow) settle() (lost uint64) {
	f.t.Helper()
	f.stop()
	f.until("the last datagram arrives", func() bool { return f.last.Load() == f.sent.Load() })
	f.conn.Close()
	f.done.Wait()
	if f.late != 0 {
		f.t.Errorf("%d of %d datagrams arrived out of order or twice", f.late, f.sent.Load())
	}
	return f.sent.Load() - f.got.Load()
}

// linkEvents counts the changes of interfaces in a container from now on.
func linkEvents(t *testing.T, ns *netnstest.NS) func() []string {
	t.Helper()
	var mu sync.Mutex
	var seen []string
	var w *link.Watcher
	ns.Do(func() (err error) {
		w, err = link.Watch(func(c link.Change) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, fmt.Sprintf("%+v", c))
		})
		return err
	})
	t.Cleanup(func() { w.Close() })
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

// eavesdrop counts the frames to a station that are heard in a container, where
// that station isn't.
func eavesdrop(t *testing.T, ns *netnstest.NS, station net.HardwareAddr) func() int {
	t.Helper()
	netnstest.Require(t, "packet")
	all := uint16(unix.ETH_P_ALL)
	fd := -1
	ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all<<8|all>>8))
		return err
	})
	t.Cleanup(func() { unix.Close(fd) })
	return func() int {
		heard := 0
		for b := make([]byte, 2048); ; {
			n, err := unix.Read(fd, b)
			if err == unix.EAGAIN {
				return heard
			}
			if err != nil {
				t.Fatalf("listen: %v", err)
			}
			if n >= 6 && string(b[:6]) == string(station) {
				heard++
			}
		}
	}
}

// die ends a process with SIGKILL and returns when it has ended.
func die(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Errorf("open process %d: %v", pid, err)
		return
	}
	defer unix.Close(fd)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("kill %d: %v", pid, err)
		return
	}
	polls := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(polls, int(patience.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			t.Errorf("process %d doesn't end: %v", pid, err)
		}
		return
	}
}

// ifindex is the number of an interface in a container.
func ifindex(t *testing.T, ns *netnstest.NS, name string) int {
	t.Helper()
	var i *net.Interface
	ns.Do(func() (err error) {
		i, err = net.InterfaceByName(name)
		return err
	})
	return i.Index
}

// copyFile makes an executable copy.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", b, 0o755)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}
