package vswitch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// view is a spec compiled for the loops. It is immutable; what changes while
// frames flow hangs off it by pointer and is carried from view to view.
type view struct {
	ports []*port    // by ID, nil where there is none
	heard []*hearer  // the receivers
	stray *port      // stands for ports that receivers name and that don't exist
	list  []*network // in the spec's order
	nets  [4096]*network
	lab   bool

	tagged *[64]uint64 // that of the port compiled last: ports with the same one share it
}

// network is a broadcast domain with its member set.
type network struct {
	name     string
	vid      frame.VID
	mtu      int
	ageing   time.Duration
	reserved uint16
	members  []member // by port ID
	uplinks  []*port
	// reflects is set when a sibling's frames may come back by the uplink: one
	// of them is in VEPA, private or passthru mode, whose neighbours reflect.
	reflects bool
}

// member is a port in the member set, untagged or tagged.
type member struct {
	port   *port
	tagged bool
}

// port is a Port ready for use.
type port struct {
	id       frame.PortID
	name     string
	queue    Queue
	can      frame.Offloads
	fan      frame.Fan // that the queue belongs to, nil for none
	mtu      int
	ownMTU   bool // the queue checks it
	bare     bool // the queue takes the tag off
	native   frame.VID
	tagged   *[64]uint64 // a bit for each VID; nil on an access port
	isolated bool
	hairpin  bool
	uplink   bool
	coalesce bool
	guarded  bool
	mode     Mode
	group    uint8
	pin      frame.MAC
	v4       []uint32
	v6       [][16]byte
	sourced  bool // v4 and v6 are the only sources
	storm    [numClasses]uint32
	fdbLimit int

	loop  int       // the loop that receives from it
	line  *line     // as long as the queue is the same
	state *state    // as long as the ID is configured
	count portCount // likewise
}

// line is what the loops know of one queue.
type line struct {
	queue Queue
	dead  atomic.Bool // Receive has failed for good
	cause error       // why; written before dead is set
	empty int         // wake-ups in a row that brought nothing; for the receiving loop only
}

// state is what outlives a change of the spec. Only the receiving loop uses it,
// except fence.
type state struct {
	buckets   [numClasses]bucket
	stormTold time.Duration
	moveTold  time.Duration
	moves     uint64 // not told since
	echo      echoScore
	fence     fence
}

// hearer is a Receiver ready for use.
type hearer struct {
	from Receiver
	line *line // as long as the receiver is the same
}

func (v *view) port(id frame.PortID) *port {
	if int(id) < len(v.ports) {
		return v.ports[id]
	}
	return nil
}

func (v *view) lineOf(id frame.PortID) *line {
	if p := v.port(id); p != nil {
		return p.line
	}
	return nil
}

// polled reports whether p has a queue with a descriptor of its own.
func (p *port) polled() bool { return p != nil && p.queue != nil && p.queue.FD() >= 0 }

// carries reports whether p is a member of v, and whether tagged.
func (p *port) carries(v frame.VID) (tagged, ok bool) {
	if v == p.native {
		return false, true
	}
	if p.tagged != nil && p.tagged[v>>6]&(1<<(v&63)) != 0 {
		return true, true
	}
	return false, false
}

// limit is the greatest L3 length that may leave by p in n, 0 for no limit.
func (p *port) limit(n *network) int {
	if p.ownMTU {
		return 0
	}
	if p.mtu != 0 && (n.mtu == 0 || p.mtu < n.mtu) {
		return p.mtu
	}
	return n.mtu
}

// compile checks spec and makes it a view, taking over from old what goes on.
func compile(spec Spec, old *view, loops int) (*view, error) {
	v := &view{lab: spec.Lab, stray: newStray(old, loops)}
	for _, n := range spec.Networks {
		if err := v.addNetwork(n); err != nil {
			return nil, fmt.Errorf("network %q: %w", n.Name, err)
		}
	}
	fds := make(map[int]string)
	names := make(map[string]bool)
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if names[p.Name] {
			return nil, fmt.Errorf("port %q: two ports have this name", p.Name)
		}
		names[p.Name] = true
		if p.Queue != nil && p.Queue.FD() >= 0 {
			fd := p.Queue.FD()
			if other, ok := fds[fd]; ok {
				return nil, fmt.Errorf("port %q: shares descriptor %d with port %q", p.Name, fd, other)
			}
			fds[fd] = p.Name
		}
		if err := v.addPort(p, old, loops); err != nil {
			return nil, fmt.Errorf("port %q: %w", p.Name, err)
		}
	}
	if err := v.addReceivers(spec.Receivers, old, fds); err != nil {
		return nil, err
	}
	v.join()
	return v, v.checkPassthru()
}

func (v *view) addNetwork(n Network) error {
	if !n.VID.Valid() {
		return fmt.Errorf("VID %d: want 1 to 4094", n.VID)
	}
	if other := v.nets[n.VID]; other != nil {
		return fmt.Errorf("VID %d: network %q has it already", n.VID, other.name)
	}
	for _, other := range v.list {
		if other.name == n.Name {
			return errors.New("two networks have this name")
		}
	}
	if n.MTU < 0 || n.MTU > maxL3 {
		return fmt.Errorf("MTU %d: want 0 to %d octets", n.MTU, maxL3)
	}
	if n.Ageing < 0 {
		return fmt.Errorf("ageing time %v: want 0 for never, or more", n.Ageing)
	}
	c := &network{name: n.Name, vid: n.VID, mtu: n.MTU, ageing: n.Ageing, reserved: n.ForwardReserved}
	if v.lab {
		c.reserved = 0xffff
	}
	v.nets[n.VID] = c
	v.list = append(v.list, c)
	return nil
}

func (v *view) addPort(p *Port, old *view, loops int) error {
	if p.ID == 0 || p.ID > frame.MaxPortID {
		return fmt.Errorf("ID %d: want 1 to %d", p.ID, frame.MaxPortID)
	}
	if other := v.port(p.ID); other != nil {
		return fmt.Errorf("ID %d: port %q has it already", p.ID, other.name)
	}
	if p.MTU < 0 || p.MTU > maxL3 {
		return fmt.Errorf("MTU %d: want 0 to %d octets", p.MTU, maxL3)
	}
	if p.Mode > ModePassthru {
		return fmt.Errorf("mode %d: want bridge, vepa, private or passthru", p.Mode)
	}
	if p.MACPin.IsGroup() {
		return fmt.Errorf("pinned address %v: a group address is no source", p.MACPin)
	}
	c := &port{
		id: p.ID, name: p.Name, queue: p.Queue, mtu: p.MTU, ownMTU: p.OwnMTU, bare: p.Bare,
		isolated: p.Isolated, hairpin: p.Hairpin, uplink: p.Uplink, mode: p.Mode, group: p.Group,
		pin: p.MACPin, coalesce: !p.NoCoalesce, guarded: p.LoopGuard && !v.lab,
		fdbLimit: max(p.FDBLimit, 0), loop: int(p.ID) % loops,
	}
	if !v.lab {
		c.storm = [numClasses]uint32{p.Storm.Broadcast, p.Storm.Unknown, p.Storm.Multicast}
	}
	if err := v.addMembership(c, p); err != nil {
		return err
	}
	if err := c.addSources(p); err != nil {
		return err
	}
	c.inherit(old.port(p.ID), loops)
	if n := int(p.ID) + 1; n > len(v.ports) {
		v.ports = append(v.ports, make([]*port, n-len(v.ports))...)
	}
	v.ports[p.ID] = c
	return nil
}

// newStray makes the port that unknown ones are taken for, a member of nothing.
func newStray(old *view, loops int) *port {
	if old.stray != nil {
		return old.stray
	}
	return &port{name: "unknown", native: frame.VIDReserved, state: new(state), count: make(portCount, loops)}
}

func (v *view) addReceivers(list []Receiver, old *view, fds map[int]string) error {
	for _, r := range list {
		if other, ok := fds[r.FD()]; ok || r.FD() <= 0 {
			return fmt.Errorf("receiver: descriptor %d is none or that of port %q", r.FD(), other)
		}
		fds[r.FD()] = "a receiver"
		h := &hearer{from: r}
		if was := old.hearer(r.FD()); was != nil && was.from == r {
			h.line = was.line
		} else {
			h.line = new(line)
		}
		v.heard = append(v.heard, h)
	}
	return nil
}

// hearer returns the receiver with descriptor fd.
func (v *view) hearer(fd int) *hearer {
	for _, h := range v.heard {
		if h.from.FD() == fd {
			return h
		}
	}
	return nil
}

func (v *view) addMembership(c *port, p *Port) error {
	if p.Native != 0 && (!p.Native.Valid() || v.nets[p.Native] == nil) {
		return fmt.Errorf("native VID %d: no network has it", p.Native)
	}
	c.native = p.Native
	if c.native == 0 {
		c.native = frame.VIDReserved // matches no VID that a frame is classified to
	}
	if len(p.Tagged) == 0 {
		return nil
	}
	var set [64]uint64
	for _, vid := range p.Tagged {
		if !vid.Valid() || v.nets[vid] == nil {
			return fmt.Errorf("tagged VID %d: no network has it", vid)
		}
		if set[vid>>6]&(1<<(vid&63)) != 0 {
			return fmt.Errorf("tagged VID %d: given twice", vid)
		}
		set[vid>>6] |= 1 << (vid & 63)
	}
	if v.tagged == nil || *v.tagged != set {
		v.tagged = &[64]uint64{}
		*v.tagged = set
	}
	c.tagged = v.tagged
	return nil
}

func (c *port) addSources(p *Port) error {
	for _, a := range p.Sources {
		a = a.Unmap()
		switch {
		case a.Is4():
			b := a.As4()
			c.v4 = append(c.v4, binary.BigEndian.Uint32(b[:]))
		case a.Is6() && a.Zone() == "":
			c.v6 = append(c.v6, a.As16())
		default:
			return fmt.Errorf("source %v: want an IPv4 or IPv6 address without a zone", a)
		}
	}
	c.sourced = len(p.Sources) > 0
	return nil
}

// inherit takes over what goes on from the port of the same ID.
func (c *port) inherit(old *port, loops int) {
	if old != nil {
		c.state, c.count = old.state, old.count
	} else {
		c.state, c.count = new(state), make(portCount, loops)
	}
	if c.queue == nil {
		return
	}
	c.can = c.queue.Offloads()
	if f, ok := c.queue.(frame.Fanned); ok {
		c.fan = f.Fan()
	}
	if old != nil && old.queue == c.queue {
		c.line = old.line
	} else {
		c.line = &line{queue: c.queue}
	}
}

// join builds the member sets.
func (v *view) join() {
	for _, p := range v.ports {
		if p == nil {
			continue
		}
		for _, n := range v.list {
			tagged, ok := p.carries(n.vid)
			if !ok {
				continue
			}
			n.members = append(n.members, member{p, tagged})
			if p.uplink {
				n.uplinks = append(n.uplinks, p)
			} else if p.mode != ModeBridge {
				n.reflects = true
			}
		}
	}
}

// checkPassthru makes sure that a port in passthru mode is alone with uplinks.
func (v *view) checkPassthru() error {
	for _, n := range v.list {
		var alone, other *port
		for _, m := range n.members {
			switch {
			case m.port.uplink:
			case m.port.mode == ModePassthru && alone == nil:
				alone = m.port
			default:
				other = m.port
			}
		}
		if alone != nil && other != nil {
			return fmt.Errorf("port %q: mode passthru in network %q: port %q is a member too; passthru allows one port and its uplink",
				alone.name, n.name, other.name)
		}
	}
	return nil
}
