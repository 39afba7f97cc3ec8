package netnstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns"
)

// capability is one thing that a test may need of the machine.
type capability struct {
	probe func() error
	cure  string
}

var capabilities = map[string]capability{
	"netns":  {probeNetns, "run as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"},
	"tun":    {probeTUN, "modprobe tun; as an ordinary user also: chmod 0666 /dev/net/tun"},
	"tc":     {probeTC, "install iproute2 and a kernel with sch_ingress, cls_u32 and act_mirred"},
	"packet": {probePacket, "a kernel with AF_PACKET, and CAP_NET_RAW"},
	"root":   {probeRoot, "run the tests as root"},
}

// programs maps a program that tests call to the Debian package that holds it.
var programs = map[string]string{
	"tshark": "tshark", "iperf3": "iperf3", "ip": "iproute2", "bridge": "iproute2", "ethtool": "ethtool",
	"nft": "nftables", "openssl": "openssl", "ping": "iputils-ping",
	"ovs": "openvswitch-switch", "tcpdump": "tcpdump", "docker": "docker.io",
}

// binaries are the programs whose file isn't called as the capability is.
var binaries = map[string]string{"ovs": "ovs-vswitchd"}

var (
	probedMu sync.Mutex
	probed   = map[string]error{}
)

// Require skips the test unless each capability is there: netns, tun, tc,
// packet, root, or a program: tshark, iperf3, ip, bridge, ethtool, nft, ovs,
// openssl, ping, tcpdump, docker. The skip is a failure when
// TAPESTRY_TEST_REQUIRE names the capability.
func Require(t testing.TB, capability ...string) {
	t.Helper()
	for _, c := range capability {
		cure, err := probe(c)
		if err == nil {
			continue
		}
		must := strings.Split(os.Getenv("TAPESTRY_TEST_REQUIRE"), ",")
		if slices.Contains(must, c) || cure == "" {
			t.Fatalf("needs %s: %v; %s", c, err, cure)
		}
		t.Skipf("needs %s: %v; %s", c, err, cure)
	}
}

func probe(name string) (cure string, err error) {
	if pkg, ok := programs[name]; ok {
		bin := name
		if b, ok := binaries[name]; ok {
			bin = b
		}
		_, err := exec.LookPath(bin)
		return "apt-get install " + pkg, err
	}
	c, ok := capabilities[name]
	if !ok {
		return "", errors.New("unknown capability")
	}
	probedMu.Lock()
	defer probedMu.Unlock()
	err, ok = probed[name]
	if !ok {
		err = c.probe()
		probed[name] = err
	}
	return c.cure, err
}

func probeNetns() error {
	switch s := os.Getenv(stageEnv); s {
	case stageOK:
	case "":
		return errors.New("the package's TestMain doesn't call netnstest.Main")
	default:
		return errors.New(s)
	}
	h, err := netns.New()
	if err != nil {
		return err
	}
	return h.Close()
}

func probeTUN() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	return unix.Close(fd)
}

func probeTC() error {
	if err := probeNetns(); err != nil {
		return err
	}
	h, err := netns.New()
	if err != nil {
		return err
	}
	defer h.Close()
	return h.Do(func() error {
		for _, args := range []string{
			"qdisc add dev lo clsact",
			"filter add dev lo ingress protocol all u32 match u32 0 0 action mirred egress redirect dev lo",
		} {
			out, err := Try(append([]string{"tc"}, strings.Fields(args)...)...)
			if err != nil {
				return fmt.Errorf("tc %s: %w: %s", args, err, strings.TrimSpace(out))
			}
		}
		return nil
	})
}

func probePacket() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	return unix.Close(fd)
}

func probeRoot() error {
	// Inside a user namespace everybody is root; what counts is the outer one.
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	f := strings.Fields(string(b))
	if os.Geteuid() != 0 || len(f) != 3 || f[1] != "0" {
		return errors.New("not root")
	}
	return nil
}
