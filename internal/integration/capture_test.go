package integration_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// recording is a running `tapestry capture`.
type recording struct {
	n   *node
	cmd *exec.Cmd
	err *syncBuffer
}

// record starts a capture with -w into file and waits until it watches.
func (n *node) record(file string, args ...string) *recording {
	n.t.Helper()
	r := &recording{n: n, err: &syncBuffer{}}
	r.cmd = background(n.t, append([]string{n.bin, "--socket", n.socket, "capture", "-w", file}, args...)...)
	r.cmd.Stderr = r.err
	if err := r.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.until("the capture has begun", func() bool {
		st, err := os.Stat(file)
		return err == nil && st.Size() > 0
	})
	return r
}

// stop ends the capture as Ctrl-C does and demands success.
func (r *recording) stop() string {
	r.n.t.Helper()
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	if err := ends(r.cmd); err != nil {
		r.n.t.Fatalf("tapestry capture: %v\n%s", err, r.err)
	}
	return r.err.String()
}

// following is a command that prints lines until it is done.
type following struct {
	n         *node
	cmd       *exec.Cmd
	out, errs syncBuffer
	ended     chan error
}

// follow starts a command.
func (n *node) follow(args ...string) *following {
	n.t.Helper()
	f := &following{n: n, ended: make(chan error, 1)}
	f.cmd = background(n.t, append([]string{n.bin, "--socket", n.socket}, args...)...)
	f.cmd.Stdout, f.cmd.Stderr = &f.out, &f.errs
	if err := f.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	go func() { f.ended <- f.cmd.Wait() }()
	return f
}

// done reports whether the command has ended, and demands that it did well.
func (f *following) done() bool {
	f.n.t.Helper()
	select {
	case err := <-f.ended:
		if err != nil {
			f.n.t.Fatalf("%v: %v %s", f.cmd.Args, err, f.errs.String())
		}
		return true
	default:
		return false
	}
}

// grows waits until the file ends with n packets or more.
func (n *node) grows(file string, filter string, packets int) {
	n.t.Helper()
	n.until(fmt.Sprintf("%d packets are in the file", packets), func() bool {
		out, _ := netnstest.Command(n.t, "tshark", "-n", "-r", file, "-Y", filter).Output()
		return bytes.Count(out, []byte("\n")) >= packets
	})
}

// TestCaptureInterop: each frame stands in the file as it came and as each copy
// left, with its tag, its direction, its time and the decision about it.
func TestCaptureInterop(t *testing.T) {
	netnstest.Require(t, "tshark")
	a, b, trunk := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := start(t, "host: h128\n"+pair(a, b)+`  up: {tap: {netns: `+trunk.Name()+`}, trunk: [blue]}
`)
	file := filepath.Join(n.dir, "f.pcapng")
	r := n.record(file, "--filter", "arp or icmp or (vlan and (arp or icmp))")
	ping(t, a, "10.1.0.3", 3)
	n.grows(file, "icmp", 12)
	if out := r.stop(); !strings.Contains(out, "packets captured to "+file+", 0 lost") {
		t.Errorf("the command says %q", out)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v", st.Mode(), err)
	}
	got := switchtest.TShark(t, file, "frame.interface_name", "frame.packet_flags_direction", "vlan.id", "arp.opcode", "icmp.type", "icmp.seq", "frame.comment")
	const in, out = "0x00000001", "0x00000002"
	for _, want := range []string{
		"h128/c1|" + in + "||1|||flood blue broadcast → c2,up",
		"h128/c2|" + out + "||1|||flood blue broadcast → c2,up",
		"h128/up|" + out + "|10|1|||flood blue broadcast → c2,up",
		"h128/c2|" + in + "||2|||forward blue known_unicast → c1",
		"h128/c1|" + in + "|||8|1|forward blue known_unicast → c2",
		"h128/c2|" + out + "|||8|1|forward blue known_unicast → c2",
		"h128/c2|" + in + "|||0|3|forward blue known_unicast → c1",
		"h128/c1|" + out + "|||0|3|forward blue known_unicast → c1",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("not in the file: %s", want)
		}
	}
	if t.Failed() {
		t.Logf("the file:\n%s", strings.Join(got, "\n"))
	}
	for i, ns := range switchtest.TShark(t, file, "frame.time_epoch") {
		if _, frac, _ := strings.Cut(ns, "."); len(frac) != 9 {
			t.Errorf("packet %d has the time %s, want nanoseconds", i, ns)
		}
	}
	if out, err := netnstest.Try("capinfos", file); err != nil || !strings.Contains(out, "Number of interfaces in file: 3") {
		t.Errorf("capinfos: %v\n%s", err, out)
	}
}

// TestCaptureText: without -w one line a frame, drops with their reason, and
// frame events by the same way.
func TestCaptureText(t *testing.T) {
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	wait := func(args ...string) (string, string) {
		c := n.follow(append([]string{"capture"}, args...)...)
		n.until("the capture to end", func() bool {
			_, _ = a.Try("ping", "-c1", "-W1", "10.1.0.3")
			inject(t, a, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 20, 0x88, 0xb5, 27, '[', '2', 'J'})
			return c.done()
		})
		return c.out.String(), c.errs.String()
	}
	out, errs := wait("--port", "c1", "--direction", "in", "--filter", "icmp", "--count", "1")
	if !strings.Contains(out, " c1       in   02:00:00:00:00:01 > 02:00:00:00:00:02 IPv4 10.1.0.2 > 10.1.0.3 ttl 64 ICMP echo request") ||
		!strings.Contains(out, "forward blue known_unicast → c2\n") || !strings.Contains(errs, "1 packet captured, 0 lost") {
		t.Errorf("got %s%s", out, errs)
	}
	out, _ = wait("--drops", "--count", "1")
	if !strings.Contains(out, "drop tag_not_accepted") || strings.ContainsRune(out, 27) {
		t.Errorf("drops: got %q", out)
	}
	out, _ = wait("--json", "--filter", "icmp", "--count", "2")
	if strings.Count(out, "\n") != 2 || !strings.Contains(out, `"kind":"packet"`) || !strings.Contains(out, `"frame":"02:`) {
		t.Errorf("JSON: got %s", out)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--filter", "hots 1"}, 2, "  hots 1\n  ^\nhint: did you mean host?"},
		{[]string{"--port", "nobody"}, 5, `no port "nobody"`},
		{[]string{"--port", "tunnel/unknown"}, 5, "no tunnel"},
		{[]string{"--snaplen", "20"}, 2, "at least 64 octets"},
		{[]string{"--direction", "up"}, 2, "want in, out or both"},
		{[]string{"--rotate-size", "1MB"}, 2, "only files are rotated"},
		{[]string{"-w", filepath.Join(n.dir, "f"), "--rotate-files", "3"}, 2, "add --rotate-size or --rotate-time"},
		{[]string{"-w", n.config}, 6, "is no capture\nhint: name another file"},
		{[]string{"-w", "/proc/nowhere/f"}, 5, "create capture file"},
	} {
		_, errs, code := n.try(append([]string{"capture"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%v: exit %d, %s; want %d and %q", c.args, code, errs, c.code, c.want)
		}
	}
}

// inject sends frames out of the container's eth0, whatever they hold.
func inject(t *testing.T, ns *netnstest.NS, frames ...[]byte) {
	t.Helper()
	index := ifindex(t, ns, "eth0")
	ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, f := range frames {
			err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: index})
			for end := time.Now().Add(patience); errors.Is(err, unix.ENOBUFS) && time.Now().Before(end); {
				err = unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: index})
			}
			// The kernel refuses what is shorter than a header or longer than the MTU.
			if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EMSGSIZE) {
				return err
			}
		}
		return nil
	})
}

// flood pings with 18 MB in all, counted at four ports: more than all buffers of
// a capture hold.
func flood(t *testing.T, from *netnstest.NS, addr string) {
	t.Helper()
	if out, err := from.Try("ping", "-n", "-q", "-f", "-c", "3000", "-s", "1400", addr); err != nil {
		t.Fatalf("ping: %v\n%s", err, out)
	}
}

// first reads the first n octets that come out of a pipe.
func first(t *testing.T, pipe *os.File, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	err := pipe.SetReadDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = io.ReadFull(pipe, b)
	}
	if err == nil {
		err = pipe.SetReadDeadline(time.Time{})
	}
	if err != nil {
		t.Fatalf("read from a pipe: %v", err)
	}
	return b
}

// TestCaptureStalledReader: a reader that doesn't read loses packets and is told
// how many; the stream it watches is whole.
func TestCaptureStalledReader(t *testing.T) {
	netnstest.Require(t, "tshark")
	x, y := newEnd(t, "tap", 2, "access: blue", ""), newEnd(t, "tap", 3, "access: blue", "")
	n := start(t, file("vlan: 10", x, y))
	stuck := n.stall()
	r, err := receive(y, y.v4)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := streamTCP(x, r.addr, 64<<20); err != nil {
		t.Error(err)
	}
	whole := filepath.Join(n.dir, "f.pcapng")
	out, err := os.Create(whole)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	go func() {
		_, _ = out.Write(stuck.head)
		_, _ = out.ReadFrom(stuck.pipe)
	}()
	lost := 0
	n.until("the reader is told", func() bool {
		ping(t, x.ns, y.v4, 1)
		text, _ := netnstest.Command(t, "tshark", "-n", "-r", whole, "-Y", "frame.drop_count", "-T", "fields", "-e", "frame.drop_count").Output()
		for _, w := range strings.Fields(string(text)) {
			v, _ := strconv.Atoi(w)
			lost += v
		}
		return lost > 0
	})
	t.Logf("%d packets lost by the stalled reader", lost)
}

// TestCaptureStalledEnd: a capture whose reader has stopped ends when it is told
// to, says what is lost, and costs the switch not a frame.
func TestCaptureStalledEnd(t *testing.T) {
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	f := startFlow(t, a, b, "10.1.0.3")
	stuck := n.stall()
	flood(t, a, "10.1.0.3")
	stuck.end()
	f.finish()
	conserved(t, n)
}

// TestCaptureFullDisk: the command says what is wrong and fails, and what it
// wrote is a capture.
func TestCaptureFullDisk(t *testing.T) {
	netnstest.Require(t, "tshark", "root")
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	file := filepath.Join(dir, "f.pcapng")
	r := n.record(file)
	f := startFlow(t, a, b, "10.1.0.3")
	flood(t, a, "10.1.0.3")
	err := ends(r.cmd)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(r.err.String(), "no space left on device") ||
		!strings.Contains(r.err.String(), "hint: what was written so far is whole") {
		t.Errorf("tapestry capture: %v\n%s", err, r.err)
	}
	if got := switchtest.TShark(t, file, "frame.len"); len(got) < 10 {
		t.Errorf("%d packets in the file", len(got))
	}
	if out, err := netnstest.Try("capinfos", file); err != nil {
		t.Errorf("capinfos: %v\n%s", err, out)
	}
	f.finish()
}

// TestCaptureUpgrade: a capture goes on with the next worker, and one that
// nobody reads holds nothing up.
func TestCaptureUpgrade(t *testing.T) {
	netnstest.Require(t, "tshark")
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	file, stalled := filepath.Join(n.dir, "f.pcapng"), filepath.Join(n.dir, "fifo")
	if err := unix.Mkfifo(stalled, 0o600); err != nil {
		t.Fatal(err)
	}
	hold, err := os.OpenFile(stalled, os.O_RDWR, 0) // open, so that the writer starts, and never read
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	stuck := background(t, n.bin, "--socket", n.socket, "capture", "-w", stalled)
	if err := stuck.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stuck.Process.Kill(); _ = ends(stuck) }()
	n.until("the first capture has begun", func() bool {
		flood(t, a, "10.1.0.3")
		queued, err := unix.IoctlGetInt(int(hold.Fd()), unix.TIOCINQ) // of the pipe: FIONREAD
		return err == nil && queued > 32<<10
	})
	r := n.record(file, "--filter", "udp port 7000")
	f := startFlow(t, a, b, "10.1.0.3")
	n.grows(file, "udp", 20)
	n.cli("upgrade")
	f.pass(250)
	longest := f.finish()
	n.grows(file, "udp", 2*250)
	if out := r.stop(); !strings.Contains(out, "the worker was replaced") {
		t.Errorf("the command says %q", out)
	}
	t.Logf("the longest wait was %v", longest)
}

// TestCaptureExtcap: Wireshark's own list of interfaces has the ports, and what
// it starts captures.
func TestCaptureExtcap(t *testing.T) {
	netnstest.Require(t, "tshark")
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, "host: h128\n"+pair(a, b))
	// Where Wireshark looks: until 4.2, and from then on.
	var dirs []string
	for _, d := range []string{".config/wireshark/extcap", ".local/lib/wireshark/extcap"} {
		dirs = append(dirs, filepath.Join(n.dir, d))
	}
	wrapper := fmt.Sprintf("#!/bin/sh\nexec %s --socket %s extcap \"$@\"\n", n.bin, n.socket)
	for _, dir := range dirs {
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "tapestry"), []byte(wrapper), 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	env := append(os.Environ(), "HOME="+n.dir, "XDG_CONFIG_HOME=")
	list := netnstest.Command(t, "tshark", "-D")
	list.Env = env
	out, err := list.CombinedOutput()
	for _, want := range []string{"tapestry (h128: all ports)", "tapestry-c1 (h128/c1)"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("tshark -D lists no %q: %v\n%s", want, err, out)
		}
	}
	live := background(t, "tshark", "-n", "-l", "-i", "tapestry-c1", "-f", "icmp", "-c", "2", "-T", "fields", "-e", "frame.comment")
	live.Env = env
	var seen, errs syncBuffer
	live.Stdout, live.Stderr = &seen, &errs
	if err := live.Start(); err != nil {
		t.Fatal(err)
	}
	n.until("tshark shows a packet", func() bool {
		ping(t, a, "10.1.0.3", 1)
		return strings.Contains(seen.String(), "forward blue known_unicast → c")
	})
	if t.Failed() {
		t.Log(errs.String())
	}
	// Each call as Wireshark makes it.
	for _, c := range []struct{ args, want string }{
		{"--extcap-interfaces --extcap-version=4.2", "interface {value=tapestry-dev:lo}{display=h128/dev/lo}"},
		{"--extcap-interface tapestry-c1 --extcap-dlts", "dlt {number=1}{name=EN10MB}{display=Ethernet}"},
		{"--extcap-interface tapestry-c1 --extcap-config", ""},
		{"--extcap-interface tapestry --extcap-capture-filter hots", "column 1"},
		{"--extcap-interface tapestry --extcap-capture-filter tcp", ""},
	} {
		if out := n.cli(append([]string{"extcap"}, strings.Fields(c.args)...)...); c.want == "" && out != "" || !strings.Contains(out, c.want) {
			t.Errorf("extcap %s: got %q, want %q", c.args, out, c.want)
		}
	}
	fifo := filepath.Join(n.dir, "wireshark.fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(fifo, os.O_RDWR, 0) // for reading alone it would wait for a writer
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	c := n.follow("extcap", "--capture", "--extcap-interface", "tapestry-dev:lo", "--fifo", fifo, "--extcap-capture-filter", "udp")
	if head := first(t, reader, 4); string(head) != "\x0a\x0d\x0d\x0a" {
		t.Errorf("the FIFO begins with % x; want a pcapng's section header", head)
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // as Wireshark ends it
	n.until("the extcap to end", c.done)
}
