package tracer

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	// defaultTTL is what hosts send with (RFC 1700).
	defaultTTL = 64
	// traceWait is how long an answer may take unless the user says otherwise, and
	// maxTraceWait the longest that it may.
	traceWait    = 2 * time.Second
	maxTraceWait = 10 * time.Second
	// maxTraceroute is as far as a traceroute goes unless the user says otherwise.
	maxTraceroute = 30
)

// journey is a trace whose names are resolved.
type journey struct {
	t    *Tracer
	host string
	req  api.TraceRequest
	from origin
	to   target
	key  trace.Key // the ID is the probe's of the moment
	ttl  uint8
	wait time.Duration

	secrecy secrecy
}

// origin is the port that a probe starts at.
type origin struct {
	name  string
	id    frame.PortID
	place keeper.Place
	mac   frame.MAC
	tag   frame.Tag // that an injected probe needs
	raw   bool      // it leaves from the namespace, not from the switch's ingress
}

// target is what a probe is to reach.
type target struct {
	addr netip.Addr
	port string // here; empty = elsewhere
	mac  frame.MAC

	secret bool // elsewhere: in an encrypted network
}

// Trace validates r, resolves its names and readies a trace; see api.Backend.
func (t *Tracer) Trace(ctx context.Context, r api.TraceRequest) (api.TraceRun, error) {
	if r.Watch != "" {
		return t.live(r)
	}
	j := &journey{t: t, req: r}
	if err := j.check(); err != nil {
		return nil, err
	}
	if err := j.resolve(ctx); err != nil {
		return nil, err
	}
	j.key.ID = trace.ID(rand.Uint64())
	if err := j.key.Check(); err != nil {
		return nil, api.Errorf(api.CodeInvalid, "trace: %v", err)
	}
	return j.run, nil
}

// check reads what needs no names.
func (j *journey) check() error {
	r := &j.req
	j.key.Proto = trace.Proto(cmp.Or(r.Proto, string(trace.ICMP)))
	switch {
	case r.From == "" || r.To == "":
		return api.Errorf(api.CodeInvalid, "trace: from and to: name the port where the probe starts, and where it shall go")
	case !slices.Contains([]trace.Proto{trace.ICMP, trace.UDP, trace.TCP}, j.key.Proto):
		return api.Errorf(api.CodeInvalid, "proto %q: want icmp, udp or tcp", clip(r.Proto))
	case r.Port < 0 || r.Port > 65535:
		return api.Errorf(api.CodeInvalid, "port %d: want 1 to 65535", r.Port)
	case r.Port != 0 && j.key.Proto == trace.ICMP:
		return api.Errorf(api.CodeInvalid, "port %d: ICMP has no ports", r.Port).WithHint("add --proto udp or --proto tcp")
	case r.TTL < 0 || r.TTL > 255:
		return api.Errorf(api.CodeInvalid, "ttl %d: want 1 to 255", r.TTL)
	case r.WaitMS < 0 || time.Duration(r.WaitMS)*time.Millisecond > maxTraceWait:
		return api.Errorf(api.CodeInvalid, "wait %d ms: want up to %v", r.WaitMS, maxTraceWait)
	case r.MAC != "" && !r.Inject:
		return api.Errorf(api.CodeInvalid, "mac %s: the namespace chooses the destination of what leaves from it", clip(r.MAC)).
			WithHint("add --inject to put the probe into the switch instead")
	}
	j.key.Port = cmp.Or(uint16(r.Port), j.key.Proto.DefaultPort())
	j.ttl = cmp.Or(uint8(r.TTL), defaultTTL)
	if r.Traceroute {
		j.ttl = cmp.Or(uint8(r.TTL), maxTraceroute)
	}
	j.wait = cmp.Or(time.Duration(r.WaitMS)*time.Millisecond, traceWait)
	return nil
}

// resolve finds the ports, addresses and the way of sending.
func (j *journey) resolve(ctx context.Context) error {
	here := j.t.host.Here()
	j.host = here.Host
	from, err := here.originOf(strings.TrimPrefix(j.req.From, j.host+"/"))
	if err != nil {
		return err
	}
	j.from = from
	if j.req.Inject {
		j.from.raw = false
	}
	own := j.t.addressesOf(&here, from.name)
	if j.req.Source != "" {
		a, err := netip.ParseAddr(j.req.Source)
		if err != nil {
			return api.Errorf(api.CodeInvalid, "source: %v", err)
		}
		own = []netip.Prefix{netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())}
	}
	if j.to, err = j.t.targetOf(ctx, &here, j.req.To, own); err != nil {
		return err
	}
	src, ok := sourceFor(own, j.to.addr)
	if !ok {
		return api.Errorf(api.CodeFailed, "port %s has no %s address to send to %v from", from.name, familyOf(j.to.addr), j.to.addr).
			WithHint("give it one (tapestry port set %s …), or name one with --source", from.name)
	}
	j.key.Src, j.key.Dst = src, j.to.addr
	j.secrecy.vids = here.encrypted(slices.Concat(here.Ports[from.name].VIDs, here.Ports[j.to.port].VIDs))
	j.secrecy.on = j.to.secret || len(j.secrecy.vids) > 0
	if !j.from.raw {
		return j.resolveMAC(&here)
	}
	return nil
}

// originOf is where a probe from a port starts.
func (h *Here) originOf(name string) (origin, error) {
	p, ok := h.Ports[name]
	if !ok {
		return origin{}, noPort(name)
	}
	if p.Down != "" {
		return origin{}, api.Errorf(api.CodeFailed, "port %s is down: %s", name, p.Down).WithHint("%s", p.Hint)
	}
	return origin{
		name: name, id: p.ID, place: keeper.Place{Port: name}, mac: p.Reply.MAC, tag: p.Tag,
		raw: p.Request.Kind != keeper.KindDevice && p.Request.Adopt == "",
	}, nil
}

// addressesOf are the addresses of a port's interface as they are now, or as
// they were asked for when it can't be looked at.
func (t *Tracer) addressesOf(h *Here, name string) []netip.Prefix {
	p := h.Ports[name]
	all, err := t.keeper.Interfaces(keeper.Place{Port: name})
	if err != nil {
		return p.Request.Addresses
	}
	for _, i := range all {
		if i.Name == p.Reply.Device && len(i.Addresses) > 0 {
			return i.Addresses
		}
	}
	return p.Request.Addresses
}

// targetOf reads where a probe shall go: an address, a port of this host, or
// HOST/PORT of another. own are the source's addresses.
func (t *Tracer) targetOf(ctx context.Context, h *Here, to string, own []netip.Prefix) (target, error) {
	if a, err := netip.ParseAddr(to); err == nil {
		a = a.Unmap()
		if a.IsMulticast() || a.IsUnspecified() || a.Zone() != "" {
			return target{}, api.Errorf(api.CodeInvalid, "to %v: want the unicast address of one host, without a zone", a)
		}
		return target{addr: a, port: h.portWith(a)}, nil
	}
	host, name, remote := strings.Cut(to, "/")
	if remote && host != h.Host {
		return t.askTarget(ctx, h, host, name, own)
	}
	if !remote {
		name = to
	}
	p, ok := h.Ports[name]
	if !ok {
		return target{}, noPort(name)
	}
	a, err := pickAddress(to, t.addressesOf(h, name), own)
	return target{addr: a, port: name, mac: p.Reply.MAC}, err
}

// pickAddress chooses one of a destination's addresses that the source has one
// of the same family for; IPv4 where there are both.
func pickAddress(to string, theirs, own []netip.Prefix) (netip.Addr, error) {
	var found netip.Addr
	for _, p := range theirs {
		a := p.Addr()
		if _, ok := sourceFor(own, a); ok && !a.IsLinkLocalUnicast() && (!found.IsValid() || found.Is6() && a.Is4()) {
			found = a
		}
	}
	switch {
	case found.IsValid():
		return found, nil
	case len(theirs) == 0:
		return found, api.Errorf(api.CodeFailed, "port %s has no address", clip(to)).WithHint("name the address instead of the port")
	}
	return found, api.Errorf(api.CodeFailed, "port %s has no address of a family that the source has too", clip(to)).
		WithHint("give both an IPv4 or both an IPv6 address, or name one with --source")
}

// sourceFor picks the address to send to dst from: one in the same subnet, else
// the first of the family that isn't link-local.
func sourceFor(own []netip.Prefix, dst netip.Addr) (netip.Addr, bool) {
	var first netip.Addr
	for _, p := range own {
		a := p.Addr()
		if a.Is4() != dst.Is4() || a.IsLinkLocalUnicast() != dst.IsLinkLocalUnicast() {
			continue
		}
		if p.Contains(dst) {
			return a, true
		}
		if !first.IsValid() {
			first = a
		}
	}
	return first, first.IsValid()
}

func familyOf(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// portWith is the port here that was given address a; empty for none.
func (h *Here) portWith(a netip.Addr) string {
	for _, name := range slices.Sorted(maps.Keys(h.Ports)) {
		if slices.ContainsFunc(h.Ports[name].Request.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return name
		}
	}
	return ""
}

// resolveMAC finds the station that an injected probe is sent to: the
// destination if it is in the source's subnet, else the gateway.
func (j *journey) resolveMAC(h *Here) error {
	if j.req.MAC != "" {
		m, err := frame.ParseMAC(j.req.MAC)
		if err != nil {
			return api.Errorf(api.CodeInvalid, "mac: %v", err)
		}
		j.to.mac = m
		return nil
	}
	next, asked := j.key.Dst, h.Ports[j.from.name].Request
	near := slices.ContainsFunc(asked.Addresses, func(x netip.Prefix) bool { return x.Contains(next) })
	if !near && asked.Gateway.IsValid() {
		next = asked.Gateway
	}
	if p, ok := h.Ports[h.portWith(next)]; ok && !p.Reply.MAC.IsZero() {
		j.to.mac = p.Reply.MAC
		return nil
	}
	if next == j.key.Dst && !j.to.mac.IsZero() {
		return nil
	}
	return api.Errorf(api.CodeFailed, "no port has the address %v: its MAC address isn't known, and an injected probe asks nobody", next).
		WithHint("name it with --mac: `ip neigh` in the namespace, or `tapestry fdb ls`, shows it")
}
