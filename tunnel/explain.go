package tunnel

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/tapestry-net/tapestry/internal/udpio"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// stage is that of all steps of this package.
const stage = "tunnel"

// Explain tells what Transmit would do with f, by the functions that it runs.
// Nothing is sent, and no socket opened for the flow. What the kernel says of a
// datagram is not foreseen. Any goroutine may call it.
func (p *Peer) Explain(f *frame.Frame) (x frame.Fate) {
	add := func(what, result string) {
		x.Steps = append(x.Steps, frame.Step{Stage: stage, What: what, Result: result})
	}
	c, why := p.judge(p.t.view.Load(), f)
	x.Refused = why
	switch {
	case c.net == nil:
		add("network", "no VNI: "+why.String())
		return x
	case why == frame.NotEncryptedYet:
		add(fmt.Sprintf("VNI %v is of an encrypted network", c.net.VNI), "no encrypted link: "+why.String())
		return x
	case why == frame.EgressDown:
		add("peer", "answers no more: "+why.String())
		return x
	}
	add("network", fmt.Sprintf("VNI %v", c.net.VNI))
	size := fmt.Sprintf("packet of %d octets, the path takes %d", c.packet, c.limit)
	if why == frame.MTUExceeded {
		add(size, why.String()+"; "+p.complain(f, &c))
		return x
	}
	add(size, "pass")
	if why == frame.InnerTagged {
		add("802.1Q tag inside", why.String()+": the far side would refuse it")
		return x
	}
	if c.net.Encrypt {
		p.explainSealed(&x, f, &c)
		return x
	}
	d := p.dest.Load()
	hash, tos := flow(f.Data, f.Data[c.after:])
	sock, own := p.t.pool(d).Peek(hash)
	if sock == nil {
		x.Refused = frame.EgressDown
		add("sending socket", "none is open: "+x.Refused.String())
		return x
	}
	x.Outer = &frame.Outer{
		VNI: uint32(c.net.VNI), Source: sock.Addr(), Destination: d.Addr(), TTL: udpio.OuterTTL, TOS: tos,
		Len: p.outer().UnderlayMTU(c.packet),
	}
	port := "the flow's own port"
	if !own {
		port = "until the flow has its own port"
	}
	add("datagram", fmt.Sprintf("%s, %s", outerText(x.Outer), port))
	return x
}

// explainSealed adds what leaves of a frame of an encrypted network. How many
// records the keys may seal still is not foreseen.
func (p *Peer) explainSealed(x *frame.Fate, f *frame.Frame, c *parcel) {
	_, tos := flow(f.Data, f.Data[c.after:])
	to := p.sealedTo.Load().Addr()
	x.Outer = &frame.Outer{
		VNI: uint32(c.net.VNI), Source: p.t.secure.listen, Destination: to, TTL: udpio.OuterTTL, TOS: tos,
		Len: vxlan.Link{IPv6: to.Addr().Is6(), DTLS: true}.UnderlayMTU(c.packet),
	}
	x.Steps = append(x.Steps, frame.Step{Stage: stage, What: "datagram", Result: outerText(x.Outer) + ", sealed as one DTLS record"})
}

func outerText(o *frame.Outer) string {
	from := o.Source.String()
	if o.Source.Addr().IsUnspecified() {
		from = fmt.Sprintf("port %d", o.Source.Port())
	}
	return fmt.Sprintf("%s > %v, %d octets, TTL %d, DSCP %d, ECN %d", from, o.Destination, o.Len, o.TTL, o.TOS>>2, o.TOS&ecnMask)
}

// complain says who tells the sender of a packet that is too long, and what.
func (p *Peer) complain(f *frame.Frame, c *parcel) string {
	var b []byte
	if answerable(f.Data[:12], f.Data[c.after:]) {
		var q complaint
		q.quote(p, c.net, f, c.after, c.limit)
		b = answerTooBig(&q)
	}
	switch {
	case f.Data[0]&1 != 0:
		return "no ICMP answers a group"
	case b == nil:
		return "no ICMP is due: the packet may be fragmented, or is an ICMP error or not IP"
	}
	from := netip.AddrFrom4([4]byte(b[frame.HeaderLen+12:]))
	what := "ICMP fragmentation needed"
	if b[frame.HeaderLen]>>4 == 6 {
		from, what = netip.AddrFrom16([16]byte(b[frame.HeaderLen+8:])), "ICMPv6 packet too big"
	}
	return fmt.Sprintf("the sender hears %s, MTU %d, from %v", what, c.limit, from)
}

// Arrival is what the tunnel would make of a datagram.
type Arrival struct {
	Steps   []frame.Step
	Refused frame.Reason // ReasonNone when it becomes a frame
	// Frame is what the switch would hear: In and VID are set.
	Frame frame.Frame
}

// Explain tells what would become of a datagram, UDP header excluded, with outer
// TOS tos from that address, by the functions that the receivers run. Nothing is
// counted, and datagram is not changed. A message between tunnels is refused as
// what any other VTEP takes it for, unknown_vni. With sealed, datagram is what the
// peer's encrypted link has opened.
func (t *Tunnel) Explain(from netip.Addr, datagram []byte, tos uint8, sealed bool) (x Arrival) {
	add := func(what, result string) {
		x.Steps = append(x.Steps, frame.Step{Stage: stage, What: what, Result: result})
	}
	v := t.view.Load()
	c := v.carrier(from.Unmap())
	if c == nil {
		x.Refused = frame.UnknownPeer
		if n := v.exposed(datagram); n != nil {
			x.Refused = frame.PlaintextRefused
			add(fmt.Sprintf("VNI %v is of an encrypted network", n.VNI), "drop: "+x.Refused.String())
			return x
		}
		add(fmt.Sprintf("datagram from %v", from), "drop: "+x.Refused.String())
		return x
	}
	add(fmt.Sprintf("datagram from %v", from), "peer "+c.peer.name)
	if sealed {
		add("encrypted link", "opened")
	}
	a, why := t.arrive(v, c, slices.Clone(datagram), tos, sealed)
	x.Refused = why
	switch why {
	case frame.ReasonNone:
		add(fmt.Sprintf("VNI %v", a.vni), fmt.Sprintf("VLAN %v, admitted", a.net.VID))
		x.Frame = a.made(c, 0)
	case frame.VXLANFlags, frame.VXLANReserved:
		add(fmt.Sprintf("header %x", datagram[:vxlan.HeaderLen]), "drop: "+why.String())
	case frame.InnerShort:
		add(fmt.Sprintf("datagram of %d octets, a header and an Ethernet header have %d", len(datagram), vxlan.HeaderLen+frame.HeaderLen), "drop: "+why.String())
	case frame.UnknownVNI, frame.VNINotAllowed, frame.PlaintextRefused:
		add(fmt.Sprintf("VNI %v", a.vni), "drop: "+why.String())
	case frame.BadHeader:
		add(fmt.Sprintf("VNI %v, outer ECN %d over a packet that isn't ECN-capable", a.vni, tos&ecnMask), "drop: "+why.String())
	default:
		add(fmt.Sprintf("frame inside VNI %v", a.vni), "drop: "+why.String())
	}
	return x
}
