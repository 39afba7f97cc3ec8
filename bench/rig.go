package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/bench/baseline"
	"github.com/tapestry-net/tapestry/bench/pktgen"
	"github.com/tapestry-net/tapestry/internal/netns"
)

// Every subject has namespaces of its own, so all may use the same addresses.
var (
	addrA = netip.MustParsePrefix("10.77.0.1/24")
	addrB = netip.MustParsePrefix("10.77.0.2/24")
)

const (
	namedDir  = "/run/netns"
	ifname    = "eth0"
	idlePorts = 1000
)

// subject is a network of two namespaces, and the processes that carry it.
type subject struct {
	ends   pktgen.Ends
	daemon *daemon // nil for the kernel
}

// rig holds what the measurements run on. Subjects are built when they are first
// asked for.
type rig struct {
	program  string // the executable
	dir      string // for sockets, state and configuration; private to the rig
	subjects map[string]*subject
	spaces   map[string]*netns.Handle
}

func newRig(program, dir string) (*rig, error) {
	for _, d := range []string{dir, namedDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("make %s: %w", d, err)
		}
	}
	return &rig{program: program, dir: dir, subjects: map[string]*subject{}, spaces: map[string]*netns.Handle{}}, nil
}

// close stops the switches. Namespaces end with the process.
func (r *rig) close() {
	for _, s := range r.subjects {
		if s.daemon != nil {
			s.daemon.stop()
		}
	}
	for _, ns := range r.spaces {
		_ = ns.Close()
	}
}

// space makes a namespace that is known under /run/netns. IPv6 is off, so that
// nothing flows when nobody sends: for every subject alike.
func (r *rig) space(name string) (*netns.Handle, error) {
	if ns, ok := r.spaces[name]; ok {
		return ns, nil
	}
	fresh, err := netns.New()
	if err != nil {
		return nil, err
	}
	defer fresh.Close()
	path := filepath.Join(namedDir, name)
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return nil, fmt.Errorf("name namespace: %w", err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fresh.FD), path, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("name namespace %s: %w", name, err)
	}
	err = fresh.Do(func() error {
		for _, which := range []string{"all", "default"} {
			err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("switch IPv6 off in namespace %s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ns, err := netns.Open(name)
	if err != nil {
		return nil, err
	}
	r.spaces[name] = ns
	return ns, nil
}

// pair makes the two namespaces of a subject.
func (r *rig) pair(name string) (pktgen.Ends, error) {
	a, err := r.space(name + "-a")
	if err != nil {
		return pktgen.Ends{}, err
	}
	b, err := r.space(name + "-b")
	return pktgen.Ends{From: a, To: b, Addr: addrB.Addr()}, err
}

// Names of subjects.
const (
	onKernel = "kernel" // bridge and veth
	onTAP    = "tap"    // two TAP ports
	onVeth   = "veth"   // two veth ports
	onWide   = "wide"   // two TAP ports and 1,000 idle ones
)

// subject returns a network that is up.
func (r *rig) subject(ctx context.Context, name string) (*subject, error) {
	if s, ok := r.subjects[name]; ok {
		return s, nil
	}
	ends, err := r.pair(name)
	if err != nil {
		return nil, err
	}
	s := &subject{ends: ends}
	switch {
	case name == onKernel:
		err = r.buildKernel(ends)
	case strings.HasPrefix(name, "vxlan"), strings.HasPrefix(name, "fabric"):
		s.daemon, err = r.buildTwoHosts(ctx, name)
	default:
		s.daemon, err = r.buildSwitch(ctx, name)
	}
	if err != nil {
		if s.daemon != nil {
			s.daemon.stop()
		}
		return nil, err
	}
	r.subjects[name] = s
	return s, nil
}

func (r *rig) buildKernel(e pktgen.Ends) error {
	bridge, err := r.space("kernel-bridge")
	if err != nil {
		return err
	}
	return baseline.Build(bridge,
		baseline.End{NS: e.From, Ifname: ifname, Address: addrA},
		baseline.End{NS: e.To, Ifname: ifname, Address: addrB})
}

func (r *rig) buildSwitch(ctx context.Context, name string) (*daemon, error) {
	kind, idle := "tap", 0
	switch name {
	case onVeth:
		kind = "veth"
	case onWide:
		idle = idlePorts
		if _, err := r.space(name + "-idle"); err != nil {
			return nil, err
		}
	}
	return startDaemon(ctx, r.program, filepath.Join(r.dir, name), configText(name, kind, idle), 2+idle)
}

// configText is a configuration file of two ports with addresses, and idle ports
// without. Everything else is the default.
func configText(name, kind string, idle int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "host: bench-%s\nnetworks:\n  bench: {vlan: 10, mtu: 1500}\nports:\n", name)
	for _, p := range []struct {
		port string
		addr netip.Prefix
	}{{"a", addrA}, {"b", addrB}} {
		fmt.Fprintf(&b, "  %s: {%s: {netns: %s-%s, ifname: %s, address: [%s]}, access: bench}\n",
			p.port, kind, name, p.port, ifname, p.addr)
	}
	for i := range idle {
		fmt.Fprintf(&b, "  t%d: {tap: {netns: %s-idle, ifname: t%d}, access: bench}\n", i, name, i)
	}
	return b.String()
}
