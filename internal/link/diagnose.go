package link

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Flow is what routing looks at in a packet.
type Flow struct {
	Src      netip.Addr `json:"src"`
	Dst      netip.Addr `json:"dst"` // of the same family
	Protocol uint8      `json:"protocol,omitempty"`
	In       string     `json:"in,omitempty"` // the interface that it comes in by; empty = it is made here
	Mark     uint32     `json:"mark,omitempty"`
}

// Cause classes a Finding.
type Cause string

// Causes for which a kernel doesn't pass a packet on or answer it.
const (
	NoRoute             Cause = "no_route"
	RouteRefuses        Cause = "route_refuses" // an unreachable, prohibit or blackhole route or rule
	ForwardingOff       Cause = "forwarding_off"
	ReversePath         Cause = "reverse_path" // rp_filter
	Martian             Cause = "martian"
	NeighbourUnresolved Cause = "neighbour_unresolved"
	InterfaceDown       Cause = "interface_down"
	EchoIgnored         Cause = "echo_ignored"
)

// Finding is one reason for which a packet doesn't get through.
type Finding struct {
	Cause Cause  `json:"cause"`
	What  string `json:"what"` // a plain sentence
	Hint  string `json:"hint"` // the command that mends it, or shows more
}

// Route is where the kernel sends a packet.
type Route struct {
	Type  string       `json:"type"`          // unicast, local, broadcast, …
	To    netip.Prefix `json:"to"`            // the entry that matched
	Table uint32       `json:"table"`         // 254 = main, 255 = local
	Via   netip.Addr   `json:"via"`           // zero = the destination is a neighbour, or this host
	Out   string       `json:"out,omitempty"` // interface
	Index int          `json:"index,omitempty"`
	Up    bool         `json:"up"` // the interface is on and has carrier
}

// Diagnosis is what the kernel would do with a packet, and what it has counted.
type Diagnosis struct {
	Route    *Route    `json:"route,omitempty"` // nil = none
	Findings []Finding `json:"findings"`        // none = routing doesn't refuse it; a firewall may
	// Counters that move when a packet is discarded, by the kernel's names, as
	// Ip.InNoRoutes or eth0.rx_dropped. What moved between two diagnoses has
	// counted the packets in between, others than the probe among them.
	Counters map[string]uint64 `json:"counters"`
}

// diagnosis is one under way.
type diagnosis struct {
	Diagnosis
	c  *Conn
	f  Flow
	in Link // zero for a packet that is made here
}

// Diagnose says what the calling thread's namespace would do with a packet of f,
// without sending one: it asks the routing tables, the settings in their way,
// the neighbour cache and the counters. A f that can be no packet's is an
// ordinary error, and one that wraps ErrNotFound means that there is no
// interface f.In. It needs no privilege.
func Diagnose(f Flow) (Diagnosis, error) {
	if !f.Src.IsValid() || f.Src.BitLen() != f.Dst.BitLen() || f.Src.Is4In6() || f.Dst.Is4In6() {
		return Diagnosis{}, fmt.Errorf("diagnose packet from %v to %v: want two IPv4 or two IPv6 addresses", f.Src, f.Dst)
	}
	c, err := Open(nil)
	if err != nil {
		return Diagnosis{}, err
	}
	defer c.Close()
	f.Src, f.Dst = f.Src.WithZone(""), f.Dst.WithZone("")
	d := &diagnosis{c: c, f: f, Diagnosis: Diagnosis{Findings: []Finding{}, Counters: make(map[string]uint64)}}
	if f.In != "" {
		if d.in, err = c.ByName(f.In); err != nil {
			return Diagnosis{}, err
		}
	}
	if err := d.look(); err != nil {
		return Diagnosis{}, fmt.Errorf("diagnose packet from %v to %v: %w", f.Src, f.Dst, err)
	}
	return d.Diagnosis, nil
}

func (d *diagnosis) look() error {
	d.count(d.in)
	if d.f.In != "" && !d.in.Up {
		d.find(InterfaceDown, ipCommand("link set %s up", Word(d.in.Name)), "interface %s is switched off", d.in.Name)
	}
	match, err := d.lookUp(true)
	if err != nil {
		return d.refused(err)
	}
	hop, err := d.lookUp(false)
	if err != nil {
		return d.refused(err)
	}
	d.Route = routeOf(match, hop, d.f.Dst)
	if d.Route.Type == "local" {
		d.checkEcho()
		return nil
	}
	d.checkForwarding()
	return d.checkWayOut()
}

func (d *diagnosis) find(c Cause, hint, format string, a ...any) {
	d.Findings = append(d.Findings, Finding{Cause: c, What: fmt.Sprintf(format, a...), Hint: hint})
}

// refused finds out what the error of a route lookup stands for. The kernel has
// one error for several causes.
func (d *diagnosis) refused(err error) error {
	switch {
	case errors.Is(err, unix.ENETUNREACH):
		d.findNoRoute()
	case errors.Is(err, unix.EACCES):
		return d.findRefusal(unix.RTN_PROHIBIT)
	case errors.Is(err, unix.EHOSTUNREACH):
		if d.checkForwarding() {
			return d.refusedAnyway()
		}
		return d.findRefusal(unix.RTN_UNREACHABLE)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EXDEV):
		_, plain := d.lookUpPlain(d.f.Dst)
		if d.f.In == "" || errors.Is(plain, unix.EINVAL) {
			return d.findRefusal(unix.RTN_BLACKHOLE)
		}
		return d.findSource()
	default:
		return fmt.Errorf("look up route: %w", explain(err))
	}
	return nil
}

// refusedAnyway says whether the tables would have had a route, had the setting
// that was found not kept the kernel from looking.
func (d *diagnosis) refusedAnyway() error {
	match, err := d.lookUpPlain(d.f.Dst)
	switch {
	case err == nil:
		d.Route = routeOf(match, match, d.f.Dst)
		d.nameOut()
	case errors.Is(err, unix.ENETUNREACH):
		d.findNoRoute()
	case errors.Is(err, unix.EACCES):
		return d.findRefusal(unix.RTN_PROHIBIT)
	case errors.Is(err, unix.EHOSTUNREACH):
		return d.findRefusal(unix.RTN_UNREACHABLE)
	case errors.Is(err, unix.EINVAL):
		return d.findRefusal(unix.RTN_BLACKHOLE)
	}
	return nil
}

func (d *diagnosis) findNoRoute() {
	d.find(NoRoute, ipCommand("route add %v via NEXT-HOP", netip.PrefixFrom(d.f.Dst, d.f.Dst.BitLen())),
		"there is no route to %v", d.f.Dst)
}

// findRefusal names the route or the rule that refuses the destination.
func (d *diagnosis) findRefusal(kind uint8) error {
	name := routeType(int(kind))
	r, ok, err := d.c.mostSpecific(d.f.Dst, int(kind))
	if err != nil {
		return err
	}
	if ok {
		to := prefixTo(r, d.f.Dst)
		d.find(RouteRefuses, ipCommand("route del %s %v table %d", name, to, r.Table),
			"the route `%s %v` of table %d refuses %v", name, to, r.Table, d.f.Dst)
		return nil
	}
	family := "-4"
	if d.f.Dst.Is6() {
		family = "-6"
	}
	d.find(RouteRefuses, ipCommand("%s rule show", family), "a policy rule of kind %s refuses %v", name, d.f.Dst)
	return nil
}

// findSource explains why a packet from this source isn't let in: the way back
// to it leaves by another interface, or nobody can be there.
func (d *diagnosis) findSource() error {
	filter := 0 // IPv6 has none
	if d.f.Src.Is4() {
		filter = max(sysctl("ipv4/conf/all/rp_filter"), sysctl("ipv4/conf/"+d.in.Name+"/rp_filter"))
	}
	back, err := d.lookUpPlain(d.f.Src)
	const strict = 1 // RFC 3704 section 2.2; 2 is loose
	switch {
	case filter > 0 && err != nil:
		d.find(ReversePath, ipCommand("route add %v dev %s", d.f.Src, Word(d.in.Name)),
			"rp_filter refuses %v on %s: there is no route back to it", d.f.Src, d.in.Name)
	case filter == strict && back.Type == unix.RTN_UNICAST && !leavesBy(back, d.in.Index):
		d.find(ReversePath, sysctlCommand("ipv4/conf/"+d.in.Name+"/rp_filter", 2),
			"rp_filter refuses %v on %s: the route back to it, %v, leaves by another interface", d.f.Src, d.in.Name, prefixTo(back, d.f.Src))
	default:
		d.find(Martian, ipCommand("route get %v", d.f.Src),
			"a packet from %v to %v can't come in by %s: one of the addresses is this host's own, or no single station's", d.f.Src, d.f.Dst, d.in.Name)
	}
	return nil
}

// checkForwarding reports whether a packet that came in isn't forwarded at all.
func (d *diagnosis) checkForwarding() bool {
	if d.f.In == "" {
		return false
	}
	key := "ipv4/ip_forward"
	own := "ipv4/conf/" + d.in.Name + "/forwarding"
	off := sysctl(own) == 0
	if d.f.Dst.Is6() {
		// One setting for all interfaces, which newer kernels let one of them override.
		key = "ipv6/conf/all/forwarding"
		off = sysctl(key) == 0 && sysctl("ipv6/conf/"+d.in.Name+"/force_forwarding") <= 0
	} else if sysctl(key) > 0 {
		key = own
	}
	if off {
		d.find(ForwardingOff, sysctlCommand(key, 1), "this namespace doesn't forward what comes in by %s: %s is 0", d.in.Name, sysctlName(key))
	}
	return off
}

// checkEcho looks at what keeps a host from answering a ping.
func (d *diagnosis) checkEcho() {
	key := ""
	switch d.f.Protocol {
	case unix.IPPROTO_ICMP:
		key = "ipv4/icmp_echo_ignore_all"
	case unix.IPPROTO_ICMPV6:
		key = "ipv6/icmp/echo_ignore_all"
	}
	if key != "" && sysctl(key) > 0 {
		d.find(EchoIgnored, sysctlCommand(key, 0), "this namespace answers no ping: %s is 1", sysctlName(key))
	}
}

// checkWayOut looks at the interface and the neighbour that the route leads to.
func (d *diagnosis) checkWayOut() error {
	l := d.nameOut()
	if l.Index == 0 {
		return nil
	}
	d.count(l)
	switch {
	case !l.Up:
		d.find(InterfaceDown, ipCommand("link set %s up", Word(l.Name)), "interface %s, where the route leads, is switched off", l.Name)
	case !l.Alive:
		d.find(InterfaceDown, ipCommand("link show %s", Word(l.Name)), "interface %s, where the route leads, has no carrier", l.Name)
	}
	if d.Route.Type != "unicast" {
		return nil
	}
	hop := d.Route.Via
	if !hop.IsValid() {
		hop = d.f.Dst
	}
	state, err := d.c.neighbour(l.Index, hop)
	if err != nil {
		return err
	}
	if state == netlink.NUD_FAILED || state == netlink.NUD_INCOMPLETE {
		d.find(NeighbourUnresolved, ipCommand("neigh del %v dev %s", hop, Word(l.Name)),
			"%v, the next hop, doesn't answer on %s when it is asked for its MAC address", hop, l.Name)
	}
	return nil
}

// nameOut completes what is known of the route's interface.
func (d *diagnosis) nameOut() Link {
	l, err := d.c.ByIndex(d.Route.Index)
	if err != nil {
		return Link{}
	}
	d.Route.Out, d.Route.Up = l.Name, l.Up && l.Alive
	return l
}
