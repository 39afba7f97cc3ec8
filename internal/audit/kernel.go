package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Interface is one interface as the kernel has it.
type Interface struct {
	Index     int
	Name      string
	MAC       frame.MAC
	MTU       int
	Up        bool
	Carrier   bool
	Master    int // index of the bridge or bond that it belongs to
	Addresses []netip.Prefix
	Gateways  []netip.Addr // of its default routes, outside the daemon's namespace
	Redirect  int          // index of the interface that tc splices it to
}

// Port is a port as it was opened, and the interfaces where it is.
type Port struct {
	Name  string
	Netns string // as configured; empty = the daemon's own

	Device    string // the interface that frames come from
	Index     int
	MAC       frame.MAC // zero = any
	MTU       int       // 0 = any
	Least     bool      // the interface is another's: a larger MTU is as good, addresses are no business of ours
	Addresses []netip.Prefix
	Gateway   netip.Addr // invalid = none

	HostEnd string // of a veth: its end in the daemon's namespace …
	Splice  string // … and the TAP that tc joins it to

	Inside []Interface // all of the namespace that Device is in
}

// Kernel compares ports that are up with their interfaces. own are those of the
// daemon's namespace.
func Kernel(ports []Port, own []Interface) []Finding {
	var out list
	for _, p := range ports {
		p.check(&out, own)
	}
	return out.told()
}

func (p *Port) check(out *list, own []Interface) {
	subject := "port " + p.Name
	at := slices.IndexFunc(p.Inside, func(i Interface) bool { return i.Index == p.Index })
	if at < 0 {
		got := "it is not there"
		if i := find(p.Inside, p.Device); i != nil {
			got = fmt.Sprintf("interface number %d bears that name", i.Index)
		}
		out.note(AreaKernel, subject, fmt.Sprintf("interface %s with number %d", p.Device, p.Index), got,
			"tapestry port history "+p.Name+" tells what happened; the port is opened again within seconds of its namespace being there",
			"its interface %s has gone: %s", p.Device, got)
		return
	}
	i := p.Inside[at]
	if i.Name != p.Device {
		out.note(AreaKernel, subject, p.Device, i.Name, inside(p.Netns, "ip link set "+i.Name+" name "+p.Device),
			"its interface is called %s, it was opened as %s: a restarted switch won't find it", i.Name, p.Device)
	}
	p.settings(out, subject, i)
	p.splice(out, subject, own)
}

// settings compares what an interface is set to.
func (p *Port) settings(out *list, subject string, i Interface) {
	switch {
	case !i.Up:
		out.note(AreaKernel, subject, "up", "down", inside(p.Netns, "ip link set "+i.Name+" up"), "interface %s is set down", i.Name)
	case !i.Carrier:
		out.note(AreaKernel, subject, "carrier", "no carrier", "plug in the cable, or set the other end up", "interface %s has no carrier", i.Name)
	}
	if p.MTU != 0 && i.MTU != p.MTU && !(p.Least && i.MTU > p.MTU) {
		out.note(AreaKernel, subject, strconv.Itoa(p.MTU), strconv.Itoa(i.MTU), inside(p.Netns, fmt.Sprintf("ip link set %s mtu %d", i.Name, p.MTU)),
			"interface %s has MTU %d, its network wants %d", i.Name, i.MTU, p.MTU)
	}
	if !p.MAC.IsZero() && i.MAC != p.MAC {
		out.note(AreaKernel, subject, p.MAC.String(), i.MAC.String(), inside(p.Netns, "ip link set "+i.Name+" address "+p.MAC.String()),
			"interface %s has the address %s, it was given %s", i.Name, i.MAC, p.MAC)
	}
	if i.Master != 0 {
		master := fmt.Sprintf("interface %d", i.Master)
		if at := slices.IndexFunc(p.Inside, func(m Interface) bool { return m.Index == i.Master }); at >= 0 {
			master = p.Inside[at].Name
		}
		out.note(AreaKernel, subject, "no bridge", master, inside(p.Netns, "ip link set "+i.Name+" nomaster"),
			"interface %s belongs to %s, which takes its frames", i.Name, master)
	}
	if gone := missing(p.Addresses, i.Addresses); len(gone) > 0 && !p.Least {
		out.note(AreaKernel, subject, fmt.Sprint(p.Addresses), fmt.Sprint(i.Addresses), inside(p.Netns, fmt.Sprintf("ip address add %v dev %s", gone[0], i.Name)),
			"interface %s lacks the address %v", i.Name, gone[0])
	}
	if p.Gateway.IsValid() && p.Netns != "" && !slices.Contains(i.Gateways, p.Gateway) {
		got := "none by it"
		if len(i.Gateways) > 0 {
			got = fmt.Sprint(i.Gateways)
		}
		out.note(AreaKernel, subject, "default via "+p.Gateway.String(), got, inside(p.Netns, fmt.Sprintf("ip route add default via %v dev %s", p.Gateway, i.Name)),
			"the default route by %v has gone", p.Gateway)
	}
}

// splice looks at what joins a veth to its TAP, in both directions.
func (p *Port) splice(out *list, subject string, own []Interface) {
	if p.HostEnd == "" || p.Splice == "" {
		return
	}
	const hint = "the splice is made anew when the port is: tapestry port rm and add it, or restart the switch"
	a, b := find(own, p.HostEnd), find(own, p.Splice)
	for _, x := range []struct {
		name string
		it   *Interface
	}{{p.HostEnd, a}, {p.Splice, b}} {
		if x.it == nil {
			out.note(AreaKernel, subject, x.name, "it is not there", hint, "interface %s, a part of it in the switch's namespace, has gone", x.name)
		} else if !x.it.Up {
			out.note(AreaKernel, subject, "up", "down", "ip link set "+x.name+" up", "interface %s, a part of it in the switch's namespace, is set down", x.name)
		}
	}
	if a == nil || b == nil {
		return
	}
	for _, d := range [][2]*Interface{{a, b}, {b, a}} {
		if d[0].Redirect != d[1].Index {
			out.note(AreaKernel, subject, "tc redirects to "+d[1].Name, "no such filter", hint,
				"the tc filter that takes frames from %s to %s has gone", d[0].Name, d[1].Name)
		}
	}
}

func find(list []Interface, name string) *Interface {
	if at := slices.IndexFunc(list, func(i Interface) bool { return i.Name == name }); at >= 0 {
		return &list[at]
	}
	return nil
}
