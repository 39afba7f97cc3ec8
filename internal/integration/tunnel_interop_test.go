package integration_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
)

// TestInteropFabric is two tapestries and the kernel's VXLAN device with a
// bridge on one network.
func TestInteropFabric(t *testing.T) {
	for _, c := range []struct {
		name    string
		v6      bool
		port    int
		options []string
	}{
		{"ipv4", false, 4789, []string{"udpcsum"}},
		{"ipv4 without checksum", false, 8472, []string{"noudpcsum"}},
		{"ipv6", true, 8472, nil},
		{"ipv6 without checksum", true, 4789, []string{"udp6zerocsumtx", "udp6zerocsumrx"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			netnstest.Require(t, "bridge")
			f := newFabric(t, 3)
			config := f.file(c.v6, c.port, 1, 2, 3)
			one, two := f.up(1, config), f.up(2, config)
			f.kernelHost(3, c.v6, c.port, c.options...)
			f.meet(1, 2)
			f.meet(3, 1)
			f.meet(3, 2)
			f.exchange(3, 1)
			f.exchange(1, 3)
			f.exchange(2, 3)
			for _, n := range []*node{one, two} {
				n.until("the kernel's VTEP is up, and known to answer nothing", func() bool {
					p := n.peers()["h3"]
					return p.State == "up" && p.Passive && p.Established >= 0
				})
				var s struct {
					Refused uint64 `json:"tunnel_refused"`
				}
				n.json(&s, "stats")
				if s.Refused != 0 {
					t.Errorf("%d datagrams refused", s.Refused)
				}
			}
			f.conserved()
		})
	}
}

// kernelHost makes host i the kernel's VXLAN device and bridge, which flood to
// the hosts before it.
func (f *fabric) kernelHost(i int, v6 bool, port int, options ...string) {
	f.t.Helper()
	h, bare := f.hosts[i-1], func(i int) string { return strings.Trim(underlayAddr(i, v6), "[]") }
	h.underlay.Run(append([]string{"ip", "link", "add", "vx0", "type", "vxlan", "id", "10010", "local", bare(i), "dstport", fmt.Sprint(port)}, options...)...)
	h.underlay.Run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	for to := 1; to < i; to++ {
		h.underlay.Run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vx0", "dst", bare(to))
	}
	f.wire(i, "br0")
	h.underlay.Run("ip", "link", "set", "vx0", "master", "br0", "up")
	h.underlay.Run("ip", "link", "set", "br0", "up")
}

// wire puts the container of host i on a veth whose other end, v0, belongs to a
// bridge, unless that is "".
func (f *fabric) wire(i int, bridge string) {
	f.t.Helper()
	h := f.hosts[i-1]
	h.underlay.Run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", h.container.Name())
	if bridge != "" {
		h.underlay.Run("ip", "link", "set", "v0", "master", bridge)
	}
	h.underlay.Run("ip", "link", "set", "v0", "up")
	h.container.Run("ip", "link", "set", "eth0", "address", fmt.Sprintf("02:00:00:00:00:%02x", i), "mtu", "1430", "up")
	h.container.Run("ip", "addr", "add", fmt.Sprintf("10.1.0.%d/24", i), "dev", "eth0")
	h.container.Run("ip", "-6", "addr", "add", fmt.Sprintf("fd00::%d/64", i), "dev", "eth0", "nodad")
}

// TestInteropTsharkVXLAN has tshark take apart what leaves for a peer.
func TestInteropTsharkVXLAN(t *testing.T) {
	netnstest.Require(t, "tshark")
	f := newFabric(t, 2)
	config := f.file(false, 4789, 1, 2)
	f.up(1, config)
	f.up(2, config)
	f.meet(1, 2)
	pcap := filepath.Join(t.TempDir(), "x.pcap")
	c := background(t, "tshark", "-q", "-i", wiretest.Interface, "-F", "pcap", "-w", pcap, "-f", "udp port 4789")
	f.hosts[1].underlay.Start(c)
	f.hosts[0].node.until("tshark captures", func() bool {
		f.meet(1, 2)
		out, err := netnstest.Command(t, "tshark", "-r", pcap, "-c", "1").Output()
		return err == nil && len(out) > 0
	})
	f.exchange(1, 2)
	for _, s := range []string{"0", "1", "1400"} {
		ping(t, f.hosts[0].container, "10.1.0.2", 1, "-s", s, "-t", "7", "-Q", "0x48")
	}
	const sent, echo = "ip.src == 192.0.2.1 && ", "vxlan.vni == 10010 && icmp.type == 8"
	// The last ping is written last.
	f.hosts[0].node.until("all is written", func() bool {
		out, _ := netnstest.Command(t, "tshark", "-n", "-r", pcap, "-Y", sent+echo+" && ip.ttl == 7 && ip.len > 1400").Output()
		return len(out) > 0
	})
	_ = c.Process.Signal(syscall.SIGINT)
	if err := ends(c); err != nil {
		t.Errorf("tshark: %v", err)
	}
	tshark := func(filter string, more ...string) string {
		out, err := netnstest.Command(t, append([]string{"tshark", "-n", "-r", pcap, "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE",
			"-o", "tcp.check_checksum:TRUE", "-Y", filter}, more...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for what, filter := range map[string]string{
		"malformed or a wrong checksum": sent + "(_ws.malformed || ip.checksum.status == 0 || udp.checksum.status == 0 || tcp.checksum.status == 0)",
		"no VXLAN":                      sent + "!vxlan",
		"other flags":                   sent + "vxlan && udp.payload[0:4] != 08:00:00:00",
		"a fragment":                    sent + "(ip.flags.mf == 1 || ip.frag_offset > 0)",
		"a port that isn't dynamic":     sent + "udp.srcport#1 < 49152",
	} {
		if out := tshark(filter); out != "" {
			t.Errorf("%s:\n%s", what, out)
		}
	}
	if out := tshark(sent+echo, "-T", "fields", "-e", "ip.ttl", "-e", "ip.dsfield"); !strings.Contains(out, "64,7\t0x48,0x48") {
		t.Errorf("TTLs and TOS of pings, outer and inner: %q, want 64 outside and 7 inside", out)
	}
}

// TestInteropOVS is Open vSwitch's userspace VTEP as a second host: bridge phy
// is the underlay's own, bridge int has the container and the tunnel.
func TestInteropOVS(t *testing.T) {
	netnstest.Require(t, "ovs", "ethtool")
	f := newFabric(t, 2)
	one := f.up(1, f.file(false, 4789, 1, 2))
	f.openVSwitch(2)
	f.meet(1, 2)
	f.meet(2, 1)
	f.exchange(1, 2)
	f.exchange(2, 1)
	one.until("its VTEP is up, and known to answer nothing", func() bool {
		p := one.peers()["h2"]
		return p.State == "up" && p.Passive
	})
	f.conserved()
}

// openVSwitch runs Open vSwitch with a database of its own on host i.
func (f *fabric) openVSwitch(i int) {
	f.t.Helper()
	h := f.hosts[i-1]
	dir, err := os.MkdirTemp("", "ovs") // a socket's path is short
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { os.RemoveAll(dir) })
	in := func(name string) string { return filepath.Join(dir, name) }
	run := func(program string, args ...string) {
		f.t.Helper()
		h.underlay.Run(append([]string{"env", "OVS_RUNDIR=" + dir, "OVS_DBDIR=" + dir, "OVS_LOGDIR=" + dir, program}, args...)...)
	}
	serve := func(program string, args ...string) {
		c := exec.Command(program, args...)
		c.Env = append(os.Environ(), "OVS_RUNDIR="+dir, "OVS_DBDIR="+dir, "OVS_LOGDIR="+dir)
		h.underlay.Start(c)
	}
	run("ovsdb-tool", "create", in("db"), "/usr/share/openvswitch/vswitch.ovsschema")
	serve("ovsdb-server", in("db"), "--remote=punix:"+in("sock"), "--unixctl="+in("ctl"))
	f.hosts[0].node.until("the database answers", func() bool { _, err := os.Stat(in("sock")); return err == nil })
	vsctl := func(args ...string) {
		run("ovs-vsctl", append([]string{"--timeout=20", "--db=unix:" + in("sock")}, args...)...)
	}
	vsctl("--no-wait", "init")
	serve("ovs-vswitchd", "unix:"+in("sock"), "--disable-system", "--unixctl="+in("vctl"))

	v4, _ := wiretest.Addr(i - 1)
	var mac net.HardwareAddr
	h.underlay.Do(func() error {
		under, err := net.InterfaceByName(wiretest.Interface)
		if err == nil {
			mac = under.HardwareAddr
		}
		return err
	})
	f.wire(i, "")
	h.container.Run("ethtool", "-K", "eth0", "tx", "off")
	vsctl("add-br", "phy", "--", "set", "bridge", "phy", "datapath_type=netdev", "other_config:hwaddr="+strings.ReplaceAll(mac.String(), ":", "\\:"), "--", "add-port", "phy", wiretest.Interface)
	h.underlay.Run("ip", "addr", "flush", "dev", wiretest.Interface)
	h.underlay.Run("ip", "addr", "add", v4, "dev", "phy")
	h.underlay.Run("ip", "link", "set", "phy", "up")
	vsctl("add-br", "int", "--", "set", "bridge", "int", "datapath_type=netdev", "--", "add-port", "int", "v0",
		"--", "add-port", "int", "vx0", "--", "set", "interface", "vx0", "type=vxlan", "options:remote_ip="+underlayAddr(1, false), "options:key=10010")
}
