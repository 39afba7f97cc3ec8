package integration_test

import (
	bits "encoding/binary" // binary is the program under test
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TestInteropTshark captures in both containers while they talk by ports
// without GSO: the same octets on either side, and nothing that Wireshark calls
// malformed or wrongly summed.
func TestInteropTshark(t *testing.T) {
	netnstest.Require(t, "tshark")
	a, b := newEnd(t, "tap-plain", 2, "access: blue", ""), newEnd(t, "tap-plain", 3, "access: blue", "")
	// Without coalescing there is nothing that could be taken apart differently.
	n := start(t, "offload: {coalesce: off}\n"+file("vlan: 10", a, b))
	ping(t, a.ns, b.v4, 1)
	ping(t, a.ns, b.v6, 1)
	left, right := captureAt(t, n, a, b), captureAt(t, n, b, a)
	for _, pair := range [][2]*end{{a, b}, {b, a}} {
		for _, addr := range []string{pair[1].v4, pair[1].v6} {
			r, err := receive(pair[1], addr)
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int{1, 1461, 100_000} {
				if err := streamTCP(pair[0], r.addr, size); err != nil {
					t.Error(err)
				}
			}
			for _, size := range []int{1, 1472, 9000} {
				if err := datagram(pair[0], r.addr, size); err != nil {
					t.Error(err)
				}
			}
			if err := r.close(); err != nil {
				t.Error(err)
			}
		}
	}
	one, two := left.stop(), right.stop()
	if len(one) < 200 || strings.Join(one, "") != strings.Join(two, "") {
		t.Errorf("%d frames on one side, %d on the other, or not the same octets", len(one), len(two))
	}
	for _, c := range []*tsharkRun{left, right} {
		bad := here(t, "tshark", "-n", "-r", c.pcap, "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE",
			// The payload is ours, whatever protocol a port that came up by chance belongs to.
			"-d", "tcp.port==1-65535,data", "-d", "udp.port==1-65535,data",
			"-Y", "ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0 || _ws.malformed")
		for line := range strings.Lines(bad) {
			if !strings.HasPrefix(line, "Running as user") {
				t.Errorf("tshark complains: %s", line)
			}
		}
	}
}

// tsharkRun is a running capture.
type tsharkRun struct {
	t    *testing.T
	n    *node
	e    *end
	to   string // whom marks are sent to
	cmd  *exec.Cmd
	pcap string
}

// captureAt starts tshark in e's namespace and waits until it captures.
func captureAt(t *testing.T, n *node, e, peer *end) *tsharkRun {
	t.Helper()
	dir, err := os.MkdirTemp("", "tshark")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &tsharkRun{t: t, n: n, e: e, to: net.JoinHostPort(peer.v4, "7999"), pcap: filepath.Join(dir, "x.pcap")}
	c.cmd = background(t, "tshark", "-i", e.dev, "-F", "pcap", "-B", "16", "-w", c.pcap, "-f", "tcp or udp or ip[6:2] & 0x1fff != 0 or ip6[6] == 44")
	e.ns.Start(c.cmd)
	c.mark()
	return c
}

// mark sends datagrams to nobody until tshark has written one more.
func (c *tsharkRun) mark() {
	c.t.Helper()
	size := func() int64 {
		fi, err := os.Stat(c.pcap)
		if err != nil {
			return 0
		}
		return max(fi.Size(), 24)
	}
	before := size()
	c.n.until("tshark captures", func() bool {
		conn, err := dial(c.e, "udp", c.to)
		if err != nil {
			c.t.Fatal(err)
		}
		_, _ = conn.Write([]byte("mark"))
		_ = conn.Close()
		return size() > before && size() > 24
	})
}

// stop ends the capture and returns its frames, sorted, without the marks.
func (c *tsharkRun) stop() []string {
	c.t.Helper()
	c.mark()
	_ = c.cmd.Process.Signal(syscall.SIGINT)
	if err := ends(c.cmd); err != nil {
		c.t.Fatalf("tshark: %v", err)
	}
	b, err := os.ReadFile(c.pcap)
	if err != nil {
		c.t.Fatal(err)
	}
	var frames []string
	for b = b[min(len(b), 24):]; len(b) >= 16; {
		n := int(bits.NativeEndian.Uint32(b[8:]))
		f := string(b[16 : 16+n])
		b = b[16+n:]
		if !strings.Contains(f, "mark") {
			frames = append(frames, f)
		}
	}
	sort.Strings(frames)
	return frames
}

// TestInteropKernelBridge joins a switch to the kernel's bridge by a host port.
func TestInteropKernelBridge(t *testing.T) {
	netnstest.Require(t, "ip", "ping")
	a := newEnd(t, "tap", 2, "access: blue", "")
	up := &end{port: "up", conf: "{host: {ifname: tap-up}, access: blue}"}
	n := start(t, file("vlan: 10", a, up))
	here(t, "ip", "link", "add", "br-test", "type", "bridge")
	t.Cleanup(func() { _, _ = netnstest.Try("ip", "link", "delete", "br-test") })
	b := &end{port: "b", ns: netnstest.New(t), dev: "eth0", v4: "10.1.0.9", v6: "fd00::9"}
	veth := cable(t, b.ns, "eth0")
	b.ns.Run("ip", "address", "add", b.v4+"/24", "dev", "eth0")
	b.ns.Run("ip", "address", "add", b.v6+"/64", "dev", "eth0", "nodad")
	for _, dev := range []string{"tap-up", veth} {
		here(t, "ip", "link", "set", dev, "master", "br-test")
	}
	here(t, "ip", "link", "set", "br-test", "up")
	ping(t, a.ns, b.v4, 5)
	ping(t, b.ns, a.v6, 5)
	fullMatter(t, a, b)
	fullMatter(t, b, a)
	conserved(t, n)
}

// TestInteropIperf runs four TCP streams and UDP for a second each.
func TestInteropIperf(t *testing.T) {
	netnstest.Require(t, "iperf3")
	a, b := newEnd(t, "tap", 2, "access: blue", ""), newEnd(t, "veth", 3, "access: blue", "")
	n := start(t, file("vlan: 10", a, b))
	for _, args := range [][]string{{"-P", "4"}, {"-u", "-b", "100M", "-l", "1400"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			server := exec.Command("iperf3", "-s", "-1", "-B", b.v4, "--forceflush") // for one client: it may be busy with it for long
			out := &syncBuffer{}
			server.Stdout = out
			b.ns.Start(server)
			n.until("iperf3 listens", func() bool { return strings.Contains(out.String(), "listening") })
			text := a.ns.Run(append([]string{"iperf3", "-c", b.v4, "-t", "1", "-J"}, args...)...)
			var r struct {
				Error string `json:"error"`
				End   struct {
					Received struct {
						Bytes float64 `json:"bytes"`
					} `json:"sum_received"`
					Sum struct {
						Bytes float64 `json:"bytes"`
						Lost  float64 `json:"lost_percent"`
					} `json:"sum"`
				} `json:"end"`
			}
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			got := max(r.End.Received.Bytes, r.End.Sum.Bytes)
			if r.Error != "" || got < 1<<20 || r.End.Sum.Lost > 50 {
				t.Errorf("error %q, %v octets, %v %% lost", r.Error, got, r.End.Sum.Lost)
			}
			t.Logf("%.0f Mbit/s, %.1f %% lost", got*8/1e6, r.End.Sum.Lost)
			if err := ends(server); err != nil {
				t.Errorf("iperf3 -s: %v", err)
			}
		})
	}
	conserved(t, n)
}
