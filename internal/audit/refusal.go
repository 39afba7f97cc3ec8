package audit

import (
	"cmp"
	"encoding/binary"
	"net/netip"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// Refusal is a kind of datagram that the tunnel refused.
type Refusal struct {
	Peer   frame.PortID // 0 = of no peer
	From   netip.Addr   // read from the datagram; invalid when it wasn't seen
	Reason frame.Reason
	VNI    vxlan.VNI // 0 = unknown
}

// What Refusals tells apart for each reason. Who sends datagrams chooses their VNI
// and their sender's address.
const (
	KindsOfPeer      = 16 // VNIs of one peer
	KindsOfStrangers = 64 // addresses and VNIs of all who are no peer
)

// refusedAs is a reason for which datagrams of a peer, 0 for strangers, are refused.
type refusedAs struct {
	peer   frame.PortID
	reason frame.Reason
}

// Refusals counts refused datagrams by kind. Behind the first kinds of a peer and
// reason there is only a sum for both.
type Refusals struct {
	kinds map[Refusal]uint64
	of    map[refusedAs]*refused
}

// refused is what a Refusals has of one peer and reason.
type refused struct {
	kinds int
	rest  uint64 // datagrams of no kind of theirs
}

// NewRefusals returns one that has seen nothing.
func NewRefusals() *Refusals {
	return &Refusals{kinds: map[Refusal]uint64{}, of: map[refusedAs]*refused{}}
}

// Add counts n datagrams.
func (r *Refusals) Add(k Refusal, n uint64) {
	if k.Reason != frame.UnknownVNI && k.Reason != frame.VNINotAllowed {
		k.VNI = 0 // has nothing to do with it
	}
	as := refusedAs{k.Peer, k.Reason}
	if r.of[as] == nil {
		r.of[as] = &refused{}
	}
	most := KindsOfPeer
	if k.Peer == 0 {
		most = KindsOfStrangers
	}
	switch of := r.of[as]; {
	case r.kinds[k] > 0:
		r.kinds[k] += n
	case of.kinds < most:
		of.kinds++
		r.kinds[k] = n
	default:
		of.rest += n
	}
}

// Has reports whether datagrams of a peer were counted for a reason.
func (r *Refusals) Has(peer frame.PortID, why frame.Reason) bool {
	return r.of[refusedAs{peer, why}] != nil
}

// Outer reads sender and VNI of a refused datagram, which the tunnel shows with
// its outer headers. What is not there is zero.
func Outer(b []byte) (from netip.Addr, vni vxlan.VNI) {
	h, ok := frame.Parse(b)
	if !ok {
		return from, 0
	}
	ip, udp := b[h.Len:], 0
	switch {
	case h.EtherType == frame.EtherTypeIPv4 && len(ip) >= 20:
		from, udp = netip.AddrFrom4([4]byte(ip[12:16])), 20
	case h.EtherType == frame.EtherTypeIPv6 && len(ip) >= 40:
		from, udp = netip.AddrFrom16([16]byte(ip[8:24])), 40
	default:
		return from, 0
	}
	if len(ip) >= udp+8+vxlan.HeaderLen {
		vni = vxlan.VNI(binary.BigEndian.Uint32(ip[udp+8+4:]) >> 8)
	}
	return from, vni
}

// strangersLast compares peers: 0, of whom anyone makes many findings, comes behind
// all others.
func strangersLast(a, b frame.PortID) int { return cmp.Compare(a-1, b-1) }

func (as refusedAs) compare(o refusedAs) int {
	return cmp.Or(strangersLast(as.peer, o.peer), cmp.Compare(as.reason, o.reason))
}

func (r Refusal) compare(o Refusal) int {
	return cmp.Or(strangersLast(r.Peer, o.Peer), r.From.Compare(o.From), cmp.Compare(r.Reason, o.Reason), cmp.Compare(r.VNI, o.VNI))
}
