package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/packet"
	"github.com/tapestry-net/tapestry/switch/port/tap"
)

// Answer is the outcome of one probe.
type Answer uint8

// Answers.
const (
	Unknown Answer = iota // the probe could not be made
	No
	Yes
)

// String returns unknown, no or yes.
func (a Answer) String() string { return [...]string{"unknown", "no", "yes"}[min(a, Yes)] }

// Finding is one fact with a sentence for a person.
type Finding struct {
	Answer Answer
	Text   string // what it means
	Cure   string // the command or step that mends it; empty when there is nothing to mend
}

// Result is what this kernel allows this process.
type Result struct {
	Namespace  Finding // make network namespaces
	UserNS     Finding // make user namespaces without privilege
	NetAdmin   Finding // CAP_NET_ADMIN is effective
	NetRaw     Finding // CAP_NET_RAW is effective
	SysAdmin   Finding // CAP_SYS_ADMIN is effective
	TUN        Finding // TAPs
	VNetHdr    Finding // TAPs with vnet header
	GSOWrite   Finding // TAPs take a GSO frame
	TC         Finding // clsact with u32 and mirred: the veth splice
	PacketVNet Finding // packet sockets with vnet header

	Offloads frame.Offloads // that a TAP accepts
}

// Findings are the result's findings in the order of their weight.
func (r *Result) Findings() []Finding {
	return []Finding{r.NetAdmin, r.SysAdmin, r.NetRaw, r.Namespace, r.UserNS, r.TUN, r.VNetHdr, r.GSOWrite, r.TC, r.PacketVNet}
}

// Conclusive reports whether no probe was left unanswered.
func (r *Result) Conclusive() bool {
	for _, f := range r.Findings() {
		if f.Answer == Unknown {
			return false
		}
	}
	return true
}

var (
	mu    sync.Mutex
	known *Result
)

// Run probes, or returns what an earlier Run has found for certain.
func Run() Result {
	mu.Lock()
	defer mu.Unlock()
	if known != nil {
		return *known
	}
	r := run()
	if r.Conclusive() {
		known = &r
	}
	return r
}

func run() Result {
	var r Result
	r.capabilities()
	r.UserNS = userNS()
	r.TUN, r.VNetHdr, r.GSOWrite = unprobed("TAP"), unprobed("vnet header on a TAP"), unprobed("GSO write")
	r.TC, r.PacketVNet = unprobed("tc splice"), unprobed("vnet header on a packet socket")
	ns, err := netns.New()
	r.Namespace = finding(err, "network namespaces can be made", "run as root or in a user namespace")
	if err != nil {
		return r
	}
	defer ns.Close()
	// Everything happens inside, so that the devices vanish with the namespace.
	_ = ns.Do(func() error {
		r.tun()
		r.packet()
		return nil
	})
	return r
}

func unprobed(what string) Finding {
	return Finding{Text: what + ": not tried, since that needs a namespace of its own", Cure: "run as root or in a user namespace"}
}

// finding judges an attempt: a missing privilege says nothing about the kernel.
func finding(err error, yes, cure string) Finding {
	switch {
	case err == nil:
		return Finding{Answer: Yes, Text: yes}
	case errors.Is(err, fs.ErrPermission):
		return Finding{Answer: Unknown, Text: "not permitted: " + err.Error(), Cure: cure}
	}
	return Finding{Answer: No, Text: err.Error(), Cure: cure}
}

// capabilities reads the effective set of this process.
func (r *Result) capabilities() {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var set [2]unix.CapUserData
	err := unix.Capget(&hdr, &set[0])
	for _, c := range []struct {
		bit  int
		name string
		out  *Finding
	}{
		{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", &r.NetAdmin},
		{unix.CAP_NET_RAW, "CAP_NET_RAW", &r.NetRaw},
		{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", &r.SysAdmin},
	} {
		switch {
		case err != nil:
			*c.out = Finding{Text: "read capabilities: " + err.Error()}
		case set[c.bit/32].Effective&(1<<(c.bit%32)) != 0:
			*c.out = Finding{Answer: Yes, Text: c.name + " is effective"}
		default:
			*c.out = Finding{Answer: No, Text: c.name + " is missing", Cure: "run as root, or give the service AmbientCapabilities=" + c.name}
		}
	}
}

// userNS reads the settings that forbid user namespaces; making one to see
// would need another process.
func userNS() Finding {
	for _, s := range []struct{ path, bad, cure string }{
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		b, err := os.ReadFile(s.path)
		if err == nil && strings.TrimSpace(string(b)) == s.bad {
			return Finding{Answer: No, Text: "user namespaces are forbidden by " + s.path, Cure: s.cure}
		}
	}
	if _, err := os.Stat("/proc/self/ns/user"); err != nil {
		return Finding{Answer: No, Text: "this kernel has no user namespaces", Cure: "a kernel with CONFIG_USER_NS"}
	}
	return Finding{Answer: Yes, Text: "ordinary users may make user namespaces"}
}

var probeOwner = link.Owner{Instance: "probe", Port: "probe"}

// tun makes a TAP, offers it every offload, and writes a GSO frame into it.
func (r *Result) tun() {
	d, err := tap.Open(nil, tap.Request{Name: "probe0", Owner: probeOwner, Settings: link.Settings{Up: true}})
	r.TUN = finding(err, "TAPs can be made", "modprobe tun, and give this process /dev/net/tun and CAP_NET_ADMIN")
	if err != nil {
		return
	}
	r.Offloads = d.Offloads
	var vnetErr error
	if d.VNetHdr == 0 {
		vnetErr = errors.New("TAPs have no vnet header: every frame is one of the wire's size")
	}
	r.VNetHdr = finding(vnetErr, fmt.Sprintf("TAPs have a vnet header of %d octets", d.VNetHdr), "")
	q, err := tap.NewQueue(d.FD, d.VNetHdr, d.Offloads)
	if err != nil {
		_ = d.Close()
		return
	}
	defer q.Close()
	if d.VNetHdr > 0 {
		b := frame.NewBatch(0)
		b.Frames = append(b.Frames, superFrame())
		_, err = q.Transmit(b)
		r.GSOWrite = finding(err, "TAPs take GSO frames", "set offload: {gso: off}, or let the switch find out port by port")
	} else {
		r.GSOWrite = Finding{Answer: No, Text: "GSO frames need the vnet header"}
	}
	r.TC = finding(splice(d.Link), "tc splices a veth to a TAP", "a kernel with sch_ingress, cls_u32 and act_mirred; veth ports use packet sockets otherwise")
}

func splice(t link.Link) error {
	c, err := link.Open(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	lo, err := c.ByName("lo")
	if err != nil {
		return err
	}
	return c.Splice(lo, t)
}

func (r *Result) packet() {
	d, err := packet.Open("lo", false)
	if err == nil {
		defer d.Close()
		if d.VNetHdr == 0 {
			err = errors.New("packet sockets have no vnet header")
		}
	}
	r.PacketVNet = finding(err, "packet sockets carry GSO frames", "a kernel with PACKET_VNET_HDR, and CAP_NET_RAW")
}

// superFrame is a TCP segment over IPv4 that stands for two of 500 octets. Its
// addresses are for documentation (RFC 5737).
func superFrame() frame.Frame {
	const eth, ip, tcp, size = frame.HeaderLen, 20, 20, 500
	b := make([]byte, eth+ip+tcp+2*size)
	copy(b, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0})
	total := len(b) - eth
	copy(b[eth:], []byte{0x45, 0, byte(total >> 8), byte(total), 0, 0, 0x40, 0, 64, unix.IPPROTO_TCP, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2})
	b[eth+ip+12] = tcp / 4 << 4
	b[eth+ip+13] = 0x10 // ACK
	return frame.Frame{Data: b, GSO: frame.GSO{
		Type: frame.GSOTCPv4, NeedsCsum: true, Size: size,
		HdrLen: eth + ip + tcp, CsumStart: eth + ip, CsumOffset: 16,
	}}
}
