package tunnel

import (
	"encoding/binary"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// What the tunnel decides about one frame, apart from what it does with it: the
// hot paths and Explain call the same functions, so that an explanation can't
// differ from what then happens.

// parcel is a frame as it is to leave.
type parcel struct {
	net    *network
	stored bool // a tag stands in Data behind the addresses
	after  int  // where the inner frame goes on behind its addresses
	packet int  // octets of what its Ethernet header carries
	limit  int  // the longest packet that reaches the peer
}

// judge says what is to leave for f, or why nothing must. It changes nothing.
//
// Hot path: no allocation.
func (p *Peer) judge(v *view, f *frame.Frame) (c parcel, why frame.Reason) {
	vid, stored := f.Push.VID(), f.Pop
	if !f.Push.Present() && !f.Pop && len(f.Data) >= frame.HeaderLen+frame.TagLen {
		vid, stored = frame.VID(binary.BigEndian.Uint16(f.Data[frame.HeaderLen:])&0xfff), true
	}
	c = parcel{net: v.nets[vid&0xfff], stored: stored, after: 12}
	if stored {
		c.after += frame.TagLen
	}
	switch {
	case c.net == nil || len(f.Data) < c.after+2:
		return c, frame.EgressDown
	case c.net.Encrypt && !p.linked():
		return c, frame.NotEncryptedYet
	case p.down.Load():
		return c, frame.EgressDown
	}
	c.packet = 12 + len(f.Data) - c.after - frame.HeaderLen
	for _, part := range f.Frags {
		c.packet += len(part)
	}
	c.limit = p.limit(c.net)
	switch {
	case c.packet > c.limit:
		return c, frame.MTUExceeded
	case frame.EtherType(binary.BigEndian.Uint16(f.Data[c.after:])) == frame.EtherTypeCTag:
		return c, frame.InnerTagged // the far side would refuse it
	}
	return c, frame.ReasonNone
}

// limit is the longest packet of n that reaches p in one piece.
func (p *Peer) limit(n *network) int {
	limit := int(p.inner.Load())
	if n.Encrypt {
		limit = sealedMTU(limit)
	}
	if n.MTU != 0 && n.MTU < limit {
		return n.MTU
	}
	return limit
}

// sealedMTU is the longest inner packet that a link carries where a path takes
// inner packets of mtu octets in clear.
//
// Hot path: no allocation.
func sealedMTU(mtu int) int {
	return max(min(mtu-record.Overhead, record.MaxPlaintext-vxlan.HeaderLen-frame.HeaderLen), 0)
}

// arrival is a datagram of a peer, taken apart.
type arrival struct {
	net   *network // nil = none has the VNI
	inner []byte
	vni   vxlan.VNI
}

// arrive takes apart datagram b of peer c, which came in clear or has been opened,
// and says why no frame is made of it.
// The inner packet's ECN is changed in place where the outer header demands it.
//
// Hot path: no allocation.
func (t *Tunnel) arrive(v *view, c *carrier, b []byte, tos uint8, sealed bool) (a arrival, why frame.Reason) {
	if a.vni, a.inner, why = vxlan.Parse(b, v.reserved); why != frame.ReasonNone {
		return a, why
	}
	a.net = v.network(a.vni)
	return a, admission(c, a.net, a.inner, tos, sealed)
}

// admission says why an inner frame of network n, nil for none, must not come in
// from c.
//
// Hot path: no allocation.
func admission(c *carrier, n *network, inner []byte, tos uint8, sealed bool) frame.Reason {
	switch {
	case n == nil:
		return frame.UnknownVNI
	case n.Encrypt && !sealed:
		return frame.PlaintextRefused
	case !c.carries(n.VID):
		return frame.VNINotAllowed
	case frame.EtherType(binary.BigEndian.Uint16(inner[12:])) == frame.EtherTypeCTag:
		return frame.InnerTagged
	case !decapECN(inner, tos):
		return frame.BadHeader
	}
	return frame.ReasonNone
}

// exposed returns the encrypted network that datagram b, which came in clear, has a
// frame of, and nil when it has none: then it is of no concern who sent it.
//
// Hot path: no allocation.
func (v *view) exposed(b []byte) *network {
	vni, _, why := vxlan.Parse(b, v.reserved)
	if why != frame.ReasonNone {
		return nil
	}
	if n := v.network(vni); n != nil && n.Encrypt {
		return n
	}
	return nil
}

// made is the frame that an arrival becomes. A peer that is down teaches nothing:
// what would be sent to a station behind it is refused. Size is that of the inner segments
// of a super-frame, 0 otherwise.
//
// Hot path: no allocation.
func (a *arrival) made(c *carrier, size int) frame.Frame {
	mtu := a.net.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	return frame.Frame{Data: a.inner, In: c.peer.id, VID: a.net.VID, Mute: c.peer.down.Load(), GSO: restore(a.inner, size, mtu)}
}
