package nftrace_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/nftrace"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// holdVar names the namespace that this binary, as a process of its own, opens
// a trace in and then waits to be killed.
const holdVar = "NFTRACE_TEST_HOLD"

func TestMain(m *testing.M) {
	if os.Getenv(holdVar) != "" {
		os.Exit(hold())
	}
	os.Exit(netnstest.Main(m))
}

func hold() int {
	if _, _, err := nftrace.Open(echo("10.1.0.1", "10.1.0.2")); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("open")
	_ = unix.Pause()
	return 0
}

func echo(src, dst string) nftrace.Probe {
	p := nftrace.Probe{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: unix.IPPROTO_ICMP, ID: 0x1234}
	if p.Src.Is6() {
		p.Protocol = unix.IPPROTO_ICMPV6
	}
	return p
}

// namespace is one with a loopback, nft and more addresses.
func namespace(t *testing.T) *netnstest.NS {
	t.Helper()
	netnstest.Require(t, "netns", "nft", "ip")
	ns := netnstest.New(t)
	ns.Run("ip", "addr", "add", "10.1.0.1/24", "dev", "lo")
	ns.Run("ip", "addr", "add", "10.1.0.2/24", "dev", "lo")
	ns.Run("ip", "addr", "add", "fd00::1/64", "dev", "lo", "nodad")
	ns.Run("ip", "addr", "add", "fd00::2/64", "dev", "lo", "nodad")
	return ns
}

func rules(t *testing.T, ns *netnstest.NS, text string) {
	t.Helper()
	path := t.TempDir() + "/rules"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Run("nft", "-f", path)
}

func open(t *testing.T, ns *netnstest.NS, p nftrace.Probe) *nftrace.Listener {
	t.Helper()
	var l *nftrace.Listener
	ns.Do(func() error {
		fd, table, err := nftrace.Open(p)
		if err != nil {
			return err
		}
		l, err = nftrace.New(fd, table, p)
		return err
	})
	t.Cleanup(func() { l.Close() })
	return l
}

// send sends p's packet from a raw socket in ns.
func send(t *testing.T, ns *netnstest.NS, p nftrace.Probe) {
	t.Helper()
	b := []byte{8, 0, 0, 0, byte(p.ID >> 8), byte(p.ID), 0, 1}
	family := unix.AF_INET
	var to unix.Sockaddr = &unix.SockaddrInet4{}
	var from unix.Sockaddr = &unix.SockaddrInet4{}
	switch {
	case p.Protocol == unix.IPPROTO_UDP:
		b = binary.BigEndian.AppendUint16(nil, p.SrcPort)
		b = binary.BigEndian.AppendUint16(b, p.DstPort)
		b = append(b, 0, 8, 0, 0)
	case p.Protocol == unix.IPPROTO_TCP:
		b = make([]byte, 20)
		binary.BigEndian.PutUint16(b, p.SrcPort)
		binary.BigEndian.PutUint16(b[2:], p.DstPort)
		b[12], b[13] = 5<<4, 2 // five words, SYN
	case p.Src.Is6():
		b[0] = 128
	default:
		binary.BigEndian.PutUint16(b[2:], ^(8<<8 + p.ID + 1)) // Internet checksum: the kernel answers no other
	}
	if p.Src.Is6() {
		family = unix.AF_INET6
		to, from = &unix.SockaddrInet6{Addr: p.Dst.As16()}, &unix.SockaddrInet6{Addr: p.Src.As16()}
	} else {
		to, from = &unix.SockaddrInet4{Addr: p.Dst.As4()}, &unix.SockaddrInet4{Addr: p.Src.As4()}
	}
	ns.Do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(p.Protocol))
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, from); err != nil {
			return err
		}
		if err := unix.Sendto(fd, b, 0, to); err != nil && !errors.Is(err, unix.EPERM) { // EPERM: dropped on the way out
			return err
		}
		return nil
	})
}

// patience bounds every wait for the kernel and for other processes.
const patience = 20 * time.Second

// until reads until one step satisfies last, and returns all as lines.
func until(t *testing.T, l *nftrace.Listener, last func(nftrace.Step) bool) (lines []string, end nftrace.Step) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		steps, err := l.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range steps {
			line := s.String()
			if s.Reply {
				line = "reply " + line
			}
			if lines = append(lines, line); last(s) {
				return lines, s
			}
		}
	}
}

const ruleset = `
table ip filter {
	chain guard {
		icmp type echo-request counter drop comment "no ping"
		udp dport 53 drop
		tcp dport { 22, 80 } reject with tcp reset
	}
	chain input {
		type filter hook input priority 0; policy accept;
		ip protocol igmp accept
		jump guard
	}
}
table inet closed {
	chain out {
		type filter hook output priority 0; policy drop;
		ip daddr 10.1.0.2 accept
		oifname "lo" ip saddr 10.1.0.2 accept
		meta l4proto { tcp, udp } accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
	}
}
`

func TestNamesTheRule(t *testing.T) {
	ns := namespace(t)
	rules(t, ns, ruleset)
	udp := nftrace.Probe{
		Src: netip.MustParseAddr("10.1.0.1"), Dst: netip.MustParseAddr("10.1.0.2"), Protocol: unix.IPPROTO_UDP, SrcPort: 4000, DstPort: 53,
	}
	tcp := udp
	tcp.Protocol, tcp.DstPort = unix.IPPROTO_TCP, 80
	for _, c := range []struct {
		name   string
		p      nftrace.Probe
		table  string
		chain  string
		policy bool
		text   string // of the rule
	}{
		{"rule", echo("10.1.0.1", "10.1.0.2"), "filter", "guard", false, `icmp type echo-request counter packets 1 bytes 28 drop`},
		{"udp", udp, "filter", "guard", false, `udp dport 53 drop`},
		{"reject", tcp, "filter", "guard", false, `tcp dport`},
		{"policy", echo("10.1.0.1", "10.1.0.1"), "closed", "out", true, ""},
		{"policy, IPv6", echo("fd00::1", "fd00::2"), "closed", "out", true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := open(t, ns, c.p)
			send(t, ns, c.p)
			lines, end := until(t, l, nftrace.Step.Final)
			if end.Verdict != nftrace.Drop || end.Table != c.table || end.Chain != c.chain || end.Handle == 0 != c.policy || end.Reply {
				t.Fatalf("got %s, want a drop in %s %s", strings.Join(lines, "\n"), c.table, c.chain)
			}
			r := nftrace.Describe(fetch(t, ns, end.At))
			if !strings.Contains(r.Text, c.text) {
				t.Errorf("got %+v, want the text %q", r, c.text)
			}
			if c.name == "rule" && (r.Comment != "no ping" || r.Packets != 1) {
				t.Errorf("got %+v, want comment and counter", r)
			}
			if c.policy && (r.Hook != "output" || r.Policy != "drop") {
				t.Errorf("got %+v, want the chain at output with policy drop", r)
			}
			listed := ns.Run("nft", "-a", "list", "chain", end.Family.String(), end.Table, end.Chain)
			if !c.policy && !strings.Contains(listed, "# handle "+strconv.FormatUint(end.Handle, 10)) {
				t.Errorf("nft lists no handle %d:\n%s", end.Handle, listed)
			}
		})
	}
}

// A probe that gets through is followed to its end, and so is its answer.
func TestFollowsAnswer(t *testing.T) {
	ns := namespace(t)
	rules(t, ns, "table ip t {\n chain i {\n type filter hook input priority 0\n ip saddr 10.1.0.2 drop comment \"answers\"\n }\n }\n")
	p := echo("10.1.0.1", "10.1.0.2")
	l := open(t, ns, p)
	send(t, ns, echo("10.1.0.1", "10.1.0.1")) // somebody else's
	send(t, ns, p)
	lines, end := until(t, l, nftrace.Step.Final)
	got := strings.Join(lines, "\n")
	if want := `ip "t" "i" end: accept` + "\n" + `reply ip "t" "i" handle ` + strconv.FormatUint(end.Handle, 10) + ": drop"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A packet that only passes through is followed from the interface on.
func TestFollowsForwarded(t *testing.T) {
	ns := namespace(t)
	for _, c := range []string{
		"ip link add near type veth peer name far", "ip link set near up", "ip link set far up",
		"ip addr add 10.3.0.1/24 dev far", "ip route add 10.9.0.0/24 dev far",
	} {
		ns.Run(strings.Fields(c)...)
	}
	ns.Run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	rules(t, ns, "table inet t {\n chain f {\n type filter hook forward priority 0\n oifname far counter reject with icmp type admin-prohibited\n }\n }\n")
	mac, err := frame.ParseMAC(strings.Fields(ns.Run("ip", "-br", "link", "show", "far"))[2])
	if err != nil {
		t.Fatal(err)
	}
	p := echo("10.3.0.2", "10.9.0.9")
	l := open(t, ns, p)
	near, err := switchtest.OpenRawEnd("near", ns.Handle.Do)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	src, dst := switchtest.Station{MAC: frame.MAC{2, 0, 0, 0, 0, 7}, Addr: p.Src}, switchtest.Station{MAC: mac, Addr: p.Dst}
	if err := near.Send(frame.Frame{Data: switchtest.EchoFrame(src, dst, p.ID, 1, nil)}); err != nil {
		t.Fatal(err)
	}
	lines, end := until(t, l, nftrace.Step.Final)
	r := nftrace.Describe(fetch(t, ns, end.At))
	if end.Chain != "f" || end.Verdict != nftrace.Drop || end.In == 0 || end.Out != end.In || r.Hook != "forward" {
		t.Errorf("got %s, %+v, %+v, want a drop in forward", strings.Join(lines, "\n"), end, r)
	}
	if want := `meta nfproto ipv4 oifname "far" counter packets 1 bytes 28 reject`; r.Text != want {
		t.Errorf("got %s, want %s", r.Text, want)
	}
}

func TestJumpAndReturn(t *testing.T) {
	ns := namespace(t)
	rules(t, ns, `
table inet t {
	chain sub {
		meta mark set 7
		return
	}
	chain i {
		type filter hook input priority 0
		icmp type echo-request jump sub
		meta mark 7 drop
	}
}
`)
	p := echo("10.1.0.1", "10.1.0.2")
	l := open(t, ns, p)
	send(t, ns, p)
	lines, end := until(t, l, nftrace.Step.Final)
	got := strings.Join(lines, "\n")
	for _, want := range []string{`inet "t" "i" handle 5: jump "sub"`, `inet "t" "sub" handle 3: continue`, `handle 4: return`, `inet "t" "i" handle 6: drop`} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant %s", got, want)
		}
	}
	if end.Mark != 7 {
		t.Errorf("got %+v, want mark 7", end)
	}
}

func TestReadEnds(t *testing.T) {
	ns := namespace(t)
	l := open(t, ns, echo("10.1.0.1", "10.1.0.2"))
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		if _, err := l.Read(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
	}
	go l.Close()
	if _, err := l.Read(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v, want %v", err, fs.ErrClosed)
	}
}

// Nothing stays behind, neither after Close nor after kill -9.
func TestLeavesNothingBehind(t *testing.T) {
	ns := namespace(t)
	rules(t, ns, ruleset)
	before := ns.Run("nft", "list", "ruleset")
	l := open(t, ns, echo("10.1.0.1", "10.1.0.2"))
	l6 := open(t, ns, echo("fd00::1", "fd00::2"))
	during := ns.Run("nft", "list", "ruleset")
	if strings.Count(during, "nftrace set 1") != 8 {
		t.Errorf("got %s, want four rules of each trace", during)
	}
	for _, l := range []*nftrace.Listener{l, l6} {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if after := ns.Run("nft", "list", "ruleset"); after != before {
		t.Errorf("after Close: got %s, want %s", after, before)
	}

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), holdVar+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ns.Start(cmd)
	line := make([]byte, 100)
	if err := out.(*os.File).SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := out.Read(line); err != nil || string(line[:n]) != "open\n" {
		t.Fatalf("got %q, %v", line[:n], err)
	}
	if during := ns.Run("nft", "list", "ruleset"); !strings.Contains(during, "nftrace set 1") {
		t.Errorf("got %s, want the trace of another process", during)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if after := ns.Run("nft", "list", "ruleset"); after != before {
		t.Errorf("after kill -9: got %s, want %s", after, before)
	}
}

func TestFetchOfARuleThatHasGone(t *testing.T) {
	ns := namespace(t)
	rules(t, ns, ruleset)
	for _, at := range []nftrace.At{
		{Family: nftrace.IPv4, Table: "filter", Chain: "guard", Handle: 9999}, {Family: nftrace.IPv4, Table: "filter", Chain: "nosuch"},
		{Family: nftrace.IPv6, Table: "filter", Chain: "guard"},
	} {
		ns.Do(func() error {
			if _, err := nftrace.Fetch(at); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%+v: got %v, want %v", at, err, fs.ErrNotExist)
			}
			return nil
		})
	}
}

// Tables of iptables-legacy come into being when somebody asks for them.
func TestLegacy(t *testing.T) {
	ns := namespace(t)
	ns.Do(func() error {
		if got := nftrace.Legacy(); len(got) != 0 {
			t.Errorf("got %v in a new namespace", got)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		const getInfo = 64 // IPT_SO_GET_INFO; struct ipt_getinfo begins with the table's name
		info := make([]byte, 84)
		copy(info, "filter")
		if err := getsockopt(fd, unix.IPPROTO_IP, getInfo, info); err != nil {
			t.Logf("a kernel without iptables-legacy: %v", err)
			return nil
		}
		if got := nftrace.Legacy(); len(got) != 1 || got[0] != "ip filter" {
			t.Errorf("got %v, want ip filter", got)
		}
		return nil
	})
}

func getsockopt(fd, level, opt int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// nft itself is the reference of what a rule is called.
func TestDescribeSpeaksNft(t *testing.T) {
	ns := namespace(t)
	want := []string{
		`tcp dport 22 accept`,
		`udp sport 53 udp dport != 1024 counter packets 0 bytes 0 drop`,
		`ip saddr 10.1.2.3 ip daddr 10.0.0.0/8 drop`,
		`ip saddr != 192.168.16.0/20 reject`,
		`ip6 saddr fd00::1 ip6 daddr fd00::/12 drop`,
		`ip6 daddr 2001:db8::/32 return`,
		`iifname "eth0" oifname != "br-*" drop`,
		`ct state established,related accept`,
		`ct state invalid drop`,
		`icmp type echo-request icmp id 7 drop`,
		`icmpv6 type packet-too-big accept`,
		`ip protocol gre drop`,
		`ip ttl < 5 drop`,
		`tcp dport 1000-2000 log prefix "a b" goto other`,
		`ether saddr 02:00:00:00:00:01 drop`,
		`ip saddr @blocked drop`,
		`ip daddr != @blocked jump other`,
		`meta l4proto tcp ip saddr 10.0.0.1 notrack`,
		`meta mark set 7`,
		`limit rate 10 per second`,
	}
	var b strings.Builder
	b.WriteString("table inet t {\n set blocked {\n type ipv4_addr\n }\n chain other {\n }\n chain c {\n type filter hook prerouting priority -300\n")
	for _, rule := range want {
		rule = strings.ReplaceAll(rule, "limit rate 10 per second", "limit rate 10/second")
		b.WriteString(strings.ReplaceAll(rule, "counter packets 0 bytes 0", "counter") + "\n")
	}
	b.WriteString("}\n}\n")
	rules(t, ns, b.String())
	i := 0
	for line := range strings.Lines(ns.Run("nft", "-a", "list", "chain", "inet", "t", "c")) {
		_, number, ok := strings.Cut(strings.TrimSpace(line), "# handle ")
		if !ok || strings.Contains(line, "{ #") {
			continue
		}
		handle, err := strconv.ParseUint(number, 10, 64)
		if err != nil || i == len(want) {
			t.Fatalf("nft lists %q, %v", line, err)
		}
		r := nftrace.Describe(fetch(t, ns, nftrace.At{Family: nftrace.Inet, Table: "t", Chain: "c", Handle: handle}))
		// In an inet table nft asks for the family first, and doesn't say so.
		got := strings.NewReplacer("meta nfproto ipv4 ", "", "meta nfproto ipv6 ", "", "meta iiftype 1 ", "").Replace(r.Text)
		if got != want[i] {
			t.Errorf("got  %s\nwant %s", got, want[i])
		}
		if r.Hook != "prerouting" || r.Priority != -300 || r.Policy != "accept" {
			t.Errorf("got chain %+v, want prerouting at -300 with policy accept", r)
		}
		i++
	}
	if i != len(want) {
		t.Errorf("%d rules compared, want %d", i, len(want))
	}
}

func fetch(t *testing.T, ns *netnstest.NS, at nftrace.At) nftrace.Raw {
	t.Helper()
	var raw nftrace.Raw
	ns.Do(func() (err error) {
		raw, err = nftrace.Fetch(at)
		return err
	})
	return raw
}
