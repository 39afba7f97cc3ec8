package integration_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// payload is n octets that repeat nowhere near a segment's length.
func payload(n int) []byte {
	b := make([]byte, n)
	x := uint32(n)*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

const listenPort = 7007

// answerWait bounds one conversation, and megabyteWait is added for each 1 MiB of
// it. A packet that is lost or refused costs a failing test as much.
const (
	answerWait   = 5 * time.Second
	megabyteWait = time.Second
)

// receiver takes TCP streams and UDP datagrams at an end and answers each with
// its SHA-256.
type receiver struct {
	tcp  net.Listener
	udp  net.PacketConn
	addr string
}

func receive(e *end, addr string) (*receiver, error) {
	r := &receiver{addr: net.JoinHostPort(addr, strconv.Itoa(listenPort))}
	err := e.do(func() (err error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		if r.tcp, err = lc.Listen(context.Background(), "tcp", r.addr); err != nil {
			return err
		}
		r.udp, err = lc.ListenPacket(context.Background(), "udp", r.addr)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	go r.serveTCP()
	go r.serveUDP()
	return r, nil
}

func (r *receiver) close() (err error) {
	if r.tcp != nil {
		err = r.tcp.Close()
	}
	if r.udp != nil {
		err = errors.Join(err, r.udp.Close())
	}
	return err
}

func (r *receiver) serveTCP() {
	for {
		c, err := r.tcp.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			h := sha256.New()
			if _, err := io.Copy(h, c); err == nil {
				_, _ = c.Write(h.Sum(nil))
			}
		}()
	}
}

func (r *receiver) serveUDP() {
	_ = r.udp.(*net.UDPConn).SetReadBuffer(4 << 20)
	b := make([]byte, 1<<16)
	for {
		n, from, err := r.udp.ReadFrom(b)
		if err != nil {
			return
		}
		sum := sha256.Sum256(b[:n])
		_, _ = r.udp.WriteTo(sum[:], from)
	}
}

// dial connects from an end.
func dial(e *end, network, addr string) (c net.Conn, err error) {
	err = e.do(func() (err error) {
		c, err = net.DialTimeout(network, addr, answerWait)
		return err
	})
	if err == nil {
		err = c.SetDeadline(time.Now().Add(answerWait))
	}
	return c, err
}

// streamTCP sends n octets from e and demands the receiver's hash of them.
func streamTCP(e *end, to string, n int) error {
	c, err := dial(e, "tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	sent := payload(n)
	if err := c.SetDeadline(time.Now().Add(answerWait + time.Duration(n>>20)*megabyteWait)); err != nil {
		return err
	}
	if _, err := c.Write(sent); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	return sameSum(sent, got)
}

func sameSum(sent, got []byte) error {
	if want := sha256.Sum256(sent); !bytes.Equal(got, want[:]) {
		return fmt.Errorf("%d octets sent, what came has hash %x, want %x", len(sent), got, want)
	}
	return nil
}

// datagram sends one of n octets from e. More than the MTU leaves in fragments.
func datagram(e *end, to string, n int) error {
	c, err := dial(e, "udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	sent, got := payload(n), make([]byte, 100)
	if _, err := c.Write(sent); err != nil {
		return err
	}
	m, err := c.Read(got)
	if err != nil {
		return err
	}
	return sameSum(sent, got[:m])
}

// segments sends n octets by one call with UDP_SEGMENT, so that the sender's
// kernel or somebody after it cuts them into datagrams of size octets.
func segments(e *end, to string, n, size int) error {
	c, err := dial(e, "udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	var opt error
	if err := raw.Control(func(fd uintptr) {
		opt = os.NewSyscallError("UDP_SEGMENT", unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size))
	}); err != nil || opt != nil {
		return errors.Join(err, opt)
	}
	sent := payload(n)
	if _, err := c.Write(sent); err != nil {
		return err
	}
	want := map[string]int{}
	for b := sent; len(b) > 0; b = b[min(len(b), size):] {
		sum := sha256.Sum256(b[:min(len(b), size)])
		want[string(sum[:])]++
	}
	got := make([]byte, 100)
	for len(want) > 0 {
		m, err := c.Read(got)
		if err != nil {
			return fmt.Errorf("%d datagrams not answered: %w", len(want), err)
		}
		s := string(got[:m])
		if want[s]--; want[s] < 0 {
			return fmt.Errorf("a datagram that was never sent, hash %x", s)
		}
		if want[s] == 0 {
			delete(want, s)
		}
	}
	return nil
}

// errorCounters are the kernel's counters of damaged packets where e is.
func errorCounters(e *end) (map[string]uint64, error) {
	all, err := snmp(e)
	maps.DeleteFunc(all, func(k string, _ uint64) bool {
		return !strings.HasSuffix(k, "CsumErrors") && k != "Tcp.InErrs" && k != "Ip.InHdrErrors" && k != "Ip6InHdrErrors"
	})
	return all, err
}

// snmp reads the protocol counters of the namespace where e is.
func snmp(e *end) (map[string]uint64, error) {
	out := map[string]uint64{}
	return out, e.do(func() error {
		for _, name := range []string{"snmp", "netstat"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			for i := 0; i+1 < len(lines); i += 2 {
				keys, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
				for j := 1; j < len(keys) && j < len(values); j++ {
					out[strings.TrimSuffix(keys[0], ":")+"."+keys[j]], _ = strconv.ParseUint(values[j], 10, 64)
				}
			}
		}
		f, err := os.Open("/proc/thread-self/net/snmp6")
		if err != nil {
			return err
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if kv := strings.Fields(s.Text()); len(kv) == 2 {
				out[kv[0]], _ = strconv.ParseUint(kv[1], 10, 64)
			}
		}
		return nil
	})
}

// undamaged fails the test if an error counter rose where e is since before.
func undamaged(t *testing.T, e *end, before map[string]uint64) {
	t.Helper()
	after, err := errorCounters(e)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range after {
		if v != before[k] {
			t.Errorf("%s: %s rose by %d", e.port, k, v-before[k])
		}
	}
}

// fullMatter sends from a to b every length of every protocol that the offloads
// treat differently.
func fullMatter(t *testing.T, a, b *end) {
	t.Helper()
	before, err := errorCounters(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{b.v4, b.v6} {
		r, err := receive(b, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.close() })
		for _, n := range []int{1, 1460, 1461, 65536, 1 << 20} {
			if err := streamTCP(a, r.addr, n); err != nil {
				t.Fatalf("tcp %d octets to %s: %v", n, addr, err)
			}
		}
		for _, n := range []int{1, 1452, 1472, 1473, 9000, 63000} {
			if err := datagram(a, r.addr, n); err != nil {
				t.Fatalf("udp %d octets to %s: %v", n, addr, err)
			}
		}
		for _, s := range [][2]int{{40 * 1400, 1400}, {1401, 1400}, {60 * 100, 100}} {
			if err := segments(a, r.addr, s[0], s[1]); err != nil && !(a.noSegments && errors.Is(err, syscall.EIO)) {
				t.Fatalf("udp %d octets in segments of %d to %s: %v", s[0], s[1], addr, err)
			}
		}
	}
	undamaged(t, b, before)
}
