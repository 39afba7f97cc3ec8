package tracer

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/watch"
)

// earSnap is how many octets of a packet an ear reads: Ethernet, two tags, IPv6
// and an ICMP error that quotes all of a probe.
const earSnap = 256

// ear hears the packets of one trace on the interfaces of one namespace, beside
// the kernel that they are for.
type ear struct {
	port  string // in whose namespace; empty = the host's own
	netns string // what that is called
	names map[int]string
	far   map[string]string // interface → the port of the switch at its other end
	deaf  map[string]bool   // interfaces that the switch itself reads and writes
	sock  *watch.Socket
	stop  context.CancelFunc
	done  chan struct{}

	mu     sync.Mutex
	events []trace.Event
	lost   int
}

// maxRouters is in how many namespaces with several ports, which may route
// between them, a trace is heard besides those of its ends.
const maxRouters = 8

// earsFor are the namespaces in which a trace is to be heard: the host's own,
// those of the named ports, and those that several ports are in. Each is there
// once. More is how many are left out.
func earsFor(h *Here, ports ...string) (all []*ear, more int) {
	own := &ear{far: map[string]string{}, deaf: map[string]bool{}}
	var ownID unix.Stat_t
	_ = unix.Stat("/proc/self/ns/net", &ownID) // without it a host port's namespace is not known as ours
	all, places := []*ear{own}, map[uint64]*ear{ownID.Ino: own}
	routers := h.routers()
	for i, name := range slices.Concat(ports, routers) {
		p, ok := h.Ports[name]
		if !ok || p.Down != "" || !p.elsewhere() || places[p.Reply.NetnsID] != nil {
			continue
		}
		if i >= len(ports) && len(all) > len(ports)+maxRouters {
			more++
			continue
		}
		e := &ear{port: name, netns: p.Request.Netns, far: map[string]string{}, deaf: map[string]bool{}}
		all, places[p.Reply.NetnsID] = append(all, e), e
	}
	for name, p := range h.Ports {
		r := &p.Reply
		switch {
		case p.elsewhere():
			own.deaf[r.Splice], own.deaf[r.HostEnd] = true, true
			if e := places[r.NetnsID]; e != nil {
				e.far[r.Device] = name
			}
		case p.Request.Kind == keeper.KindHost:
			own.far[r.Device] = name
		default: // what the switch reads there it shows itself
			own.deaf[r.Device], own.deaf[p.Request.Device], own.deaf[p.Request.Adopt], own.deaf[r.Splice] = true, true, true, true
		}
	}
	return all, more
}

// routers are the ports that another port shares the namespace with, the first
// of each namespace.
func (h *Here) routers() []string {
	first, several := map[uint64]string{}, map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(h.Ports)) {
		p := h.Ports[name]
		if p.Down != "" || !p.elsewhere() {
			continue
		}
		if other, ok := first[p.Reply.NetnsID]; ok {
			several[other] = true
			continue
		}
		first[p.Reply.NetnsID] = name
	}
	return slices.Sorted(maps.Keys(several))
}

// elsewhere reports whether the port's interface is in a namespace that it was
// put into.
func (p *Port) elsewhere() bool {
	return p.Request.Kind == keeper.KindTap || p.Request.Kind == keeper.KindVeth && p.Request.Adopt == ""
}

// listen opens the ear; take is called with each packet that o lets pass.
func (t *Tracer) listen(e *ear, o watch.Options, take func(e *ear, name string, p *watch.Packet)) error {
	fd, interfaces, err := t.keeper.Watch(keeper.WatchRequest{Place: keeper.Place{Port: e.port}})
	if err != nil {
		return err
	}
	if e.sock, err = watch.New(fd, o); err != nil {
		return err
	}
	e.names = map[int]string{}
	for _, i := range interfaces {
		if !i.Loop && !e.deaf[i.Name] {
			e.names[i.Index] = i.Name
		}
	}
	var ctx context.Context
	ctx, e.stop = context.WithCancel(context.Background())
	e.done = make(chan struct{})
	go func() {
		defer close(e.done)
		e.hear(ctx, take)
	}()
	return nil
}

// hear reads until the ear is closed or its namespace has no interface left.
func (e *ear) hear(ctx context.Context, take func(*ear, string, *watch.Packet)) {
	for {
		packets, err := e.sock.Read(ctx)
		if err != nil {
			return
		}
		for i := range packets {
			if name, ok := e.names[packets[i].Ifindex]; ok {
				take(e, name, &packets[i])
			}
		}
	}
}

// note keeps p if it is of the trace that m knows.
func (e *ear) note(m *trace.Matcher, name string, p *watch.Packet) {
	var s trace.Sight
	ok := false
	if p.Ethernet {
		ok = m.Frame(p.Data, &s)
	} else {
		ok = m.Packet(p.Data, &s)
	}
	if !ok {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.events) == trace.MaxHops {
		e.lost++
		return
	}
	e.events = append(e.events, e.event(name, p, &s))
}

// event is what the ear tells of one packet.
func (e *ear) event(name string, p *watch.Packet, s *trace.Sight) trace.Event {
	at := trace.AtIn
	if p.Direction == watch.Outgoing {
		at = trace.AtOut
	}
	v := sightEvent(at, s, time.Unix(0, p.Time))
	v.Port, v.Far, v.Netns, v.Other = name, e.far[name], e.netns, p.Direction == watch.ToOther
	return v
}

// heard is what was heard so far.
func (e *ear) heard() []trace.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]trace.Event(nil), e.events...)
}

// missed is how much more was heard than is kept.
func (e *ear) missed() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lost
}

// close ends the ear's goroutine and its socket.
func (e *ear) close() {
	e.stop()
	<-e.done
	_ = e.sock.Close() // nothing was written
}
