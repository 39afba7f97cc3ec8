package watch_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/watch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// experimental is an EtherType that no kernel sends by itself (IEEE 802 clause 9.2.4).
const experimental = 0x88b5

// ours passes so many octets of packets of that type.
func ours(t *testing.T, snap uint32) []bpf.RawInstruction {
	t.Helper()
	p, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: experimental, SkipFalse: 1},
		bpf.RetConstant{Val: snap}, bpf.RetConstant{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// veth makes a namespace with the two ends of a pair, v0 and v1.
func veth(t *testing.T) *netnstest.NS {
	t.Helper()
	netnstest.Require(t, "netns", "packet", "ip")
	ns := netnstest.New(t)
	ns.Run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	ns.Run("ip", "link", "set", "v0", "up")
	ns.Run("ip", "link", "set", "v1", "up")
	return ns
}

func open(t *testing.T, ns *netnstest.NS, ifname string, o watch.Options) *watch.Socket {
	t.Helper()
	var s *watch.Socket
	ns.Do(func() error {
		fd, err := watch.Open(ifname)
		if err != nil {
			return err
		}
		s, err = watch.New(fd, o)
		return err
	})
	t.Cleanup(func() { s.Close() })
	return s
}

func end(t *testing.T, ns *netnstest.NS, ifname string) *switchtest.RawEnd {
	t.Helper()
	r, err := switchtest.OpenRawEnd(ifname, ns.Handle.Do)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func send(t *testing.T, r *switchtest.RawEnd, f []byte) {
	t.Helper()
	if err := r.Send(frame.Frame{Data: f}); err != nil {
		t.Fatal(err)
	}
}

// one reads until there is a packet, and wants no other.
func one(t *testing.T, s *watch.Socket) watch.Packet {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := s.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 {
		t.Fatalf("got %d packets, want one", len(got))
	}
	return got[0]
}

func test(payload string) []byte {
	return switchtest.EthFrame(switchtest.Station4(2).MAC, switchtest.Station4(1).MAC, experimental, []byte(payload))
}

func TestReadTellsDirectionTimeAndTag(t *testing.T) {
	ns := veth(t)
	s := open(t, ns, "v0", watch.Options{Filter: ours(t, 1<<16)})
	near, far := end(t, ns, "v0"), end(t, ns, "v1")
	plain := test("payload")
	group := switchtest.EthFrame(frame.Broadcast, switchtest.Station4(1).MAC, experimental, []byte("to all"))
	for _, c := range []struct {
		name   string
		from   *switchtest.RawEnd
		f      []byte
		want   watch.Direction
		tagged bool
	}{
		{"received", far, plain, watch.ToOther, false},
		{"broadcast", far, group, watch.ToBroadcast, false},
		{"sent", near, plain, watch.Outgoing, false},
		{"tagged", far, switchtest.Tagged(7, 3, plain), watch.ToOther, true},
		{"service tag", far, switchtest.STagged(8, 0, plain), watch.ToOther, true},
	} {
		before := time.Now().UnixNano()
		send(t, c.from, c.f)
		p := one(t, s)
		if !bytes.Equal(p.Data, c.f) || p.Length != len(c.f) || p.Direction != c.want || p.Tagged != c.tagged ||
			!p.Ethernet || p.EtherType != experimental || p.Ifindex == 0 {
			t.Errorf("%s: got %+v, want % x %v", c.name, p, c.f, c.want)
		}
		if p.Time < before || p.Time > time.Now().UnixNano() {
			t.Errorf("%s: time %d, want one after %d", c.name, p.Time, before)
		}
	}
}

func TestEveryInterfaceAndChecksums(t *testing.T) {
	ns := veth(t)
	netnstest.Require(t, "ping")
	p, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16}, bpf.RetConstant{},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, ns, "", watch.Options{Filter: p})
	ns.Run("ping", "-c1", "127.0.0.1")
	var seen []string
	for len(seen) < 4 {
		got, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range got {
			seen = append(seen, p.Direction.String())
		}
	}
	if got := strings.Join(seen, " "); got != "outgoing to_host outgoing to_host" {
		t.Errorf("a ping by the loopback: %s, want each packet to go out and in", got)
	}
	ns.Do(func() error {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(c)
		return unix.Sendto(c, []byte("x"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})
	})
	got, err := s.Read(t.Context())
	if err != nil || got[0].Checksum != watch.ChecksumMissing {
		t.Errorf("got %+v, %v, want a checksum that nobody has computed", got, err)
	}
}

func TestSnapLen(t *testing.T) {
	ns := veth(t)
	far := end(t, ns, "v1")
	f := switchtest.Tagged(7, 0, test(strings.Repeat("x", 200)))
	for _, c := range []struct {
		filter uint32
		snap   int
		want   int
	}{{1 << 16, 40, 44}, {50, 0, 54}, {10, 0, 10}} {
		s := open(t, ns, "v0", watch.Options{Filter: ours(t, c.filter), SnapLen: c.snap})
		send(t, far, f)
		p := one(t, s)
		if len(p.Data) != c.want || p.Tagged && !bytes.Equal(p.Data, f[:c.want]) {
			t.Errorf("%+v: got % x, want %d octets of the frame", c, p.Data, c.want)
		}
		if wantLen := len(f); p.Tagged && p.Length != wantLen {
			t.Errorf("%+v: got length %d, want %d", c, p.Length, wantLen)
		}
		s.Close()
	}
}

func TestReadEnds(t *testing.T) {
	ns := veth(t)
	s := open(t, ns, "v0", watch.Options{Filter: ours(t, 100)})
	for range 3 { // an ended context leaves nothing behind for the next Read
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		if _, err := s.Read(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want the context's error", err)
		}
	}
	far := end(t, ns, "v1")
	send(t, far, test("still there"))
	one(t, s)
	// Off and on again is no end.
	ns.Run("ip", "link", "set", "v0", "down")
	ns.Run("ip", "link", "set", "v0", "up")
	send(t, end(t, ns, "v0"), test("up again"))
	one(t, s)
	ns.Run("ip", "link", "del", "v0")
	if _, err := s.Read(t.Context()); !errors.Is(err, watch.ErrGone) {
		t.Errorf("got %v, want %v", err, watch.ErrGone)
	}
	all := open(t, ns, "", watch.Options{Filter: ours(t, 100)})
	go all.Close()
	if _, err := all.Read(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v, want %v", err, fs.ErrClosed)
	}
	if err := all.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

func TestDropped(t *testing.T) {
	ns := veth(t)
	s := open(t, ns, "v0", watch.Options{Filter: ours(t, 1<<16)})
	far := end(t, ns, "v1")
	const sent = 20000
	f := test(strings.Repeat("x", 1400))
	for range sent {
		send(t, far, f)
	}
	dropped, err := s.Dropped()
	if err != nil || dropped == 0 {
		t.Fatalf("got %d dropped, %v, want some of %d that nobody read", dropped, err, sent)
	}
	ctx, cancel := context.WithCancel(t.Context())
	read := uint64(0)
	for read+dropped < sent {
		got, err := s.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		read += uint64(len(got))
	}
	cancel()
	if again, err := s.Dropped(); err != nil || again != dropped {
		t.Errorf("got %d dropped, %v, want %d as before", again, err, dropped)
	}
}

func TestReadDoesNotAllocateWhilePacketsWait(t *testing.T) {
	ns := veth(t)
	s := open(t, ns, "v0", watch.Options{Filter: ours(t, 200), SnapLen: 1 << 17})
	far := end(t, ns, "v1")
	const runs = 50
	for range 16 * (runs + 2) {
		send(t, far, test("x"))
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(runs, func() {
		if _, err := s.Read(ctx); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a Read, want 0", n)
	}
}

func TestRefusals(t *testing.T) {
	netnstest.Require(t, "netns", "packet")
	if _, err := watch.Open("nosuch"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	for _, o := range []watch.Options{
		{SnapLen: -1}, {SnapLen: watch.MaxSnapLen + 1}, {Filter: []bpf.RawInstruction{}},
		{Filter: make([]bpf.RawInstruction, unix.BPF_MAXINSNS+1)}, {Filter: []bpf.RawInstruction{{Op: unix.BPF_JMP}}},
	} {
		fd, err := watch.Open("lo")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.New(fd, o); err == nil {
			t.Errorf("%d instructions, snap length %d: got no error", len(o.Filter), o.SnapLen)
		}
	}
	udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.New(udp, watch.Options{}); err == nil {
		t.Error("a socket of another family: got no error")
	}
}

func TestRawSendsWhatItIsGiven(t *testing.T) {
	ns := netnstest.New(t)
	s := open(t, ns, "lo", watch.Options{})
	ip4 := append([]byte{
		0x45, 0, 0, 24, 0x12, 0x34, 0x40, 0, 61, 253, 0, 0, // TTL 61, protocol 253 (RFC 3692)
		127, 0, 0, 9, 127, 0, 0, 1,
	}, "ping"...)
	ip6 := append([]byte{
		0x60, 0, 0, 0, 0, 4, 253, 61, 15: 0, 23: 1, 39: 1,
	}, "ping"...)
	for _, c := range []struct {
		ipv6 bool
		ip   []byte
		to   unix.Sockaddr
		same int // octets that arrive as they were
	}{
		{false, ip4, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, 10},
		{true, ip6, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}, 44},
	} {
		ns.Do(func() error {
			fd, err := watch.OpenRaw(c.ipv6)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, c.ip, 0, c.to)
		})
		for {
			got, err := s.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := got[0].Data; bytes.Equal(d[14:14+c.same], c.ip[:c.same]) {
				break
			}
		}
	}
}

// FuzzAssemble: whatever the kernel says beside a packet, what is made of it
// lies inside the memory that it was read into.
func FuzzAssemble(f *testing.F) {
	f.Add([]byte("................................"), 20, make([]byte, watch.ControlLen), uint16(1))
	aux := []byte{36, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 8, 0, 0, 0, 0x51, 0, 0, 0, 20, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0xa8, 0x88}
	f.Add([]byte("................................"), 20, aux, uint16(1))
	f.Fuzz(func(t *testing.T, room []byte, n int, control []byte, hatype uint16) {
		if len(room) < frame.TagLen || len(control) > watch.ControlLen {
			return
		}
		p := watch.Assemble(room, n, hatype, control)
		if len(p.Data) > len(room) || p.Length < len(p.Data) && !p.Tagged || p.Tagged && len(p.Data) < 16 {
			t.Errorf("got %d octets of %d in room for %d", len(p.Data), p.Length, len(room))
		}
		_ = p.Direction.String() + p.Checksum.String()
	})
}
