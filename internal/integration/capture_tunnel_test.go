package integration_test

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// sayFrom sends one datagram from an address of a namespace.
func sayFrom(t *testing.T, ns *netnstest.NS, from, to string, b []byte) {
	t.Helper()
	ns.Do(func() error {
		src, err := net.ResolveUDPAddr("udp", from)
		if err != nil {
			return err
		}
		dst, err := net.ResolveUDPAddr("udp", to)
		if err != nil {
			return err
		}
		c, err := net.DialUDP("udp", src, dst)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(b)
		return err
	})
}

// TestCaptureTunnelDrops: what a tunnel refuses, before it is a frame or on the
// way out, stands in the file with its reason, and tshark takes the datagram
// apart.
func TestCaptureTunnelDrops(t *testing.T) {
	netnstest.Require(t, "tshark")
	under, c := netnstest.New(t), netnstest.New(t)
	under.Run("ip", "link", "set", "lo", "mtu", "1400") // less than the network's packets need
	n := prepare(t, `
host: h1
networks: {blue: {vlan: 10, vni: 10010, mtu: 1450}, red: {vlan: 20, vni: 10020}}
tunnel: {listen: "127.0.0.1:4789", peers: {h2: {address: 127.0.0.2, networks: [blue]}}}
ports: {c1: {tap: {netns: `+c.Name()+`, address: [10.1.0.2/24], mac: "02:00:00:00:00:01"}, access: blue}}
`)
	n.ns = under
	n.up()
	file := filepath.Join(n.dir, "f.pcapng")
	r := n.record(file, "--drops")

	inner := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9}, 0x88, 0xb5, 1, 2, 3)
	datagram := func(flags, vni byte, inner []byte) []byte {
		return append([]byte{flags, 0, 0, 0, 0, 0x27, vni, 0}, inner...)
	}
	const to, peer, stranger = "127.0.0.1:4789", "127.0.0.2:50000", "127.0.0.3:50000"
	sayFrom(t, under, stranger, to, datagram(8, 0x1a, inner))                             // VNI 10010
	sayFrom(t, under, peer, to, datagram(0, 0x1a, inner))                                 // no I flag
	sayFrom(t, under, peer, to, datagram(8, 0x99, inner))                                 // VNI 10137
	sayFrom(t, under, peer, to, datagram(8, 0x24, inner))                                 // VNI 10020: red
	sayFrom(t, under, peer, to, datagram(8, 0x1a, append(inner[:12:12], 0x81, 0, 0, 10))) // tagged
	inject(t, c, append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}, make([]byte, 1440)...))
	n.grows(file, "", 6)
	r.stop()

	got := switchtest.TShark(t, file, "frame.interface_name", "frame.packet_flags_direction", "ip.src", "udp.dstport", "vxlan.vni", "eth.src", "frame.comment")
	slices.Sort(got)
	const in, out, none, station = "0x00000001", "0x00000002", "00:00:00:00:00:00", "02:00:00:00:00:09"
	for _, want := range []string{
		"h1/peer/h2|" + in + "|127.0.0.2|4789|10010|" + none + "," + station + "|drop blue inner_tagged",
		"h1/peer/h2|" + in + "|127.0.0.2|4789|10010|" + none + "," + station + "|drop vxlan_flags",
		"h1/peer/h2|" + in + "|127.0.0.2|4789|10020|" + none + "," + station + "|drop red vni_not_allowed",
		"h1/peer/h2|" + in + "|127.0.0.2|4789|10137|" + none + "," + station + "|drop unknown_vni",
		"h1/peer/h2|" + out + "||||02:00:00:00:00:01|flood blue broadcast → peer/h2(mtu_exceeded)",
		"h1/tunnel/unknown|" + in + "|127.0.0.3|4789|10010|" + none + "," + station + "|drop unknown_peer",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("not in the file: %s", want)
		}
	}
	if t.Failed() {
		t.Logf("the file:\n%s", strings.Join(got, "\n"))
	}
	conserved(t, n)

	// The same by name, and as a line.
	live := n.follow("capture", "--port", "tunnel/unknown", "--filter", "vxlan 10010", "--count", "1")
	n.until("the line", func() bool {
		sayFrom(t, under, stranger, to, datagram(8, 0x1a, inner))
		return live.done()
	})
	if want := "tunnel/unknown in   00:00:00:00:00:00 > 00:00:00:00:00:00 IPv4 127.0.0.3 > 127.0.0.1 ttl 64 UDP 50000 > 4789 length 25 VXLAN VNI 10010 | 02:00:00:00:00:09 > ff:ff:ff:ff:ff:ff type 0x88b5  (67 octets)  drop unknown_peer\n"; !strings.Contains(live.out.String(), want) {
		t.Errorf("got  %swant %s", live.out.String(), want)
	}
}

// TestCaptureUnderlay: an interface of the host beside ports and peers in one
// file, each packet at its time: inside, at the peer, on the wire, and back.
func TestCaptureUnderlay(t *testing.T) {
	netnstest.Require(t, "tshark", "packet")
	f := newFabric(t, 2)
	config := f.file(false, 4789, 1, 2)
	one := f.up(1, config)
	f.up(2, config)
	f.meet(1, 2)
	// What a point hands over later than the others wait for it stands behind them: on
	// a busy machine that may happen.
	var wrong []string
	for range 3 {
		if wrong = f.captured(); len(wrong) == 0 {
			break
		}
	}
	if len(wrong) > 0 {
		t.Error(strings.Join(wrong, "\n"))
	}
	for _, c := range []struct {
		port, want string
		code       int
	}{{"dev/none0", "hint: `ip link` in the switch's namespace", 5}, {"dev/", "want dev/NAME", 2}, {"dev/a/b", "interface name", 2}} {
		if _, errs, code := one.try("capture", "--port", c.port); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, %s; want %d and %q", c.port, code, errs, c.code, c.want)
		}
	}
}

// captured captures three pings at every point that they pass on host 1 and says
// what is wrong with the file.
func (f *fabric) captured() (wrong []string) {
	f.t.Helper()
	one, t := f.hosts[0].node, f.t
	file := filepath.Join(t.TempDir(), "f.pcapng")
	r := one.record(file, "--port", "c1", "--port", "peer/h2", "--port", "dev/"+wiretest.Interface, "--filter", "icmp or (vxlan and icmp)")
	ping(t, f.hosts[0].container, "10.1.0.2", 3)
	one.grows(file, "icmp", 18)
	if out := r.stop(); !strings.Contains(out, ", 0 lost") {
		t.Errorf("the command says %q", out)
	}
	host := switchtest.TShark(t, file, "frame.interface_name")[0]
	host, _, _ = strings.Cut(host, "/")
	const in, out = "0x00000001", "0x00000002"
	local, peer, dev := host+"/c1|", host+"/peer/h2|", host+"/dev/"+wiretest.Interface+"|"
	want := []string{
		local + in + "||8", peer + out + "||8", dev + out + "|10010|8",
		dev + in + "|10010|0", peer + in + "||0", local + out + "||0",
	}
	got := switchtest.TShark(t, file, "frame.interface_name", "frame.packet_flags_direction", "vxlan.vni", "icmp.type")
	for i, line := range got {
		if i < 18 && line != want[i%6] {
			wrong = append(wrong, fmt.Sprintf("packet %d is %s, want %s", i+1, line, want[i%6]))
		}
	}
	last := ""
	for i, at := range switchtest.TShark(t, file, "frame.time_epoch") {
		if at < last {
			wrong = append(wrong, fmt.Sprintf("packet %d has the time %s, after %s", i+1, at, last))
		}
		last = at
	}
	if len(wrong) > 0 {
		t.Logf("the file:\n%s", strings.Join(got, "\n"))
	}
	return wrong
}
