package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// view is a Spec compiled for the hot paths. It is immutable.
type view struct {
	nets  [4096]*network // by VID
	vnis  []*network     // open addressing by VNI, a power of two
	peers []*carrier     // open addressing by address, a power of two
	list  []*carrier     // in the spec's order
	ports []*Peer        // by port ID

	reserved   vxlan.Mode
	noCoalesce bool

	// Of compile alone.
	closed  map[frame.VID]*network // which nets and vnis don't have
	carried *[64]uint64            // that of the carrier compiled last
}

// network is a Network ready for use.
type network struct {
	Network
	own [2]netip.Addr // IPv4 and IPv6, zero = none
}

// carrier is a peer and what it may carry.
type carrier struct {
	peer *Peer
	addr netip.Addr
	nets *[64]uint64 // a bit for each VID; peers that carry the same share it
	link *dtls.Link  // nil = none
	// frames is what came from addr and was admitted, in this view and in those
	// before in which the peer had the address.
	frames *count

	encrypts bool // one of the networks is encrypted
	only     bool // all of them are
}

func (c *carrier) carries(v frame.VID) bool { return c.nets[v>>6]&(1<<(v&63)) != 0 }

// places is the size of a table of n things: at most half full.
func places(n int) int {
	size := 8
	for size < 2*n {
		size *= 2
	}
	return size
}

const spread = 0x9e3779b97f4a7c15 // 2^64 / golden ratio

func vniPlace(v vxlan.VNI) uint64 { return uint64(v) * spread >> 32 }

func addrPlace(a netip.Addr) uint64 {
	b := a.As16()
	h := (binary.LittleEndian.Uint64(b[:8])*spread ^ binary.LittleEndian.Uint64(b[8:])) * spread
	return h >> 32
}

// network returns the network of a VNI, nil when there is none.
//
// Hot path: no allocation.
func (v *view) network(n vxlan.VNI) *network {
	mask := uint64(len(v.vnis) - 1)
	for i := vniPlace(n) & mask; v.vnis[i] != nil; i = (i + 1) & mask {
		if v.vnis[i].VNI == n {
			return v.vnis[i]
		}
	}
	return nil
}

// carrier returns the peer with an address, nil when there is none.
//
// Hot path: no allocation.
func (v *view) carrier(a netip.Addr) *carrier {
	mask := uint64(len(v.peers) - 1)
	for i := addrPlace(a) & mask; v.peers[i] != nil; i = (i + 1) & mask {
		if v.peers[i].addr == a {
			return v.peers[i]
		}
	}
	return nil
}

// port returns the peer with a port ID, nil when there is none.
//
// Hot path: no allocation.
func (v *view) port(id frame.PortID) *Peer {
	if int(id) < len(v.ports) {
		return v.ports[id]
	}
	return nil
}

// compile checks s. The carriers have no peer yet.
func compile(s Spec) (*view, error) {
	v := &view{
		vnis: make([]*network, places(len(s.Networks))), peers: make([]*carrier, places(len(s.Peers))),
		reserved: s.Reserved, noCoalesce: s.NoCoalesce, closed: make(map[frame.VID]*network),
	}
	for _, n := range s.Networks {
		if err := v.addNetwork(n); err != nil {
			return nil, fmt.Errorf("network with VID %d: %w", n.VID, err)
		}
	}
	ids, names := make(map[frame.PortID]bool), make(map[string]bool)
	for _, p := range s.Peers {
		if ids[p.ID] || names[p.Name] {
			return nil, fmt.Errorf("peer %q: port %d or the name is another peer's too", p.Name, p.ID)
		}
		ids[p.ID], names[p.Name] = true, true
		if err := v.addPeer(p); err != nil {
			return nil, fmt.Errorf("peer %q: %w", p.Name, err)
		}
	}
	v.closed = nil
	return v, nil
}

// known is the network of a VID, be it closed; nil when there is none. It is for
// compile alone.
func (v *view) known(vid frame.VID) *network {
	switch n := v.closed[vid]; {
	case n != nil:
		return n
	case vid.Valid():
		return v.nets[vid]
	}
	return nil
}

func (v *view) addNetwork(n Network) error {
	switch {
	case !n.VID.Valid():
		return errors.New("want a VID of 1 to 4094")
	case v.known(n.VID) != nil:
		return errors.New("another network has this VID")
	case !n.VNI.Valid():
		return fmt.Errorf("VNI %d: want 1 to %d", n.VNI, vxlan.MaxVNI)
	case v.network(n.VNI) != nil:
		return fmt.Errorf("VNI %d: another network has it", n.VNI)
	case n.MTU < 0:
		return fmt.Errorf("MTU %d: want 0 or more octets", n.MTU)
	}
	c := &network{Network: n}
	for _, a := range n.Addresses {
		if a = a.Unmap(); a.Is4() {
			c.own[0] = a
		} else {
			c.own[1] = a
		}
	}
	if n.Closed {
		v.closed[n.VID] = c
		return nil
	}
	v.nets[n.VID] = c
	mask := uint64(len(v.vnis) - 1)
	i := vniPlace(n.VNI) & mask
	for v.vnis[i] != nil {
		i = (i + 1) & mask
	}
	v.vnis[i] = c
	return nil
}

func (v *view) addPeer(p PeerSpec) error {
	a := p.Address.Addr().Unmap()
	switch {
	case p.ID == 0 || p.ID > frame.MaxPortID:
		return fmt.Errorf("port ID %d: want 1 to %d", p.ID, frame.MaxPortID)
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || p.Address.Port() == 0:
		return fmt.Errorf("address %v: want a unicast address without zone, and a port", p.Address)
	case v.carrier(a) != nil:
		return fmt.Errorf("address %v: peer %q has it already", a, v.carrier(a).peer.name)
	}
	var nets [64]uint64
	encrypts, only := false, len(p.VIDs) > 0
	for _, vid := range p.VIDs {
		n := v.known(vid)
		if n == nil {
			return fmt.Errorf("VID %d: no network with a VNI has it", vid)
		}
		nets[vid>>6] |= 1 << (vid & 63)
		encrypts, only = encrypts || n.Encrypt, only && n.Encrypt
	}
	if to := p.DTLS; encrypts && (to.Addr().Unmap() != a || to.Port() == 0) && to.IsValid() {
		return fmt.Errorf("DTLS address %v: want %v and a port", to, a)
	}
	if v.carried == nil || *v.carried != nets {
		v.carried = &[64]uint64{}
		*v.carried = nets
	}
	c := &carrier{peer: newPeer(p), addr: a, nets: v.carried, frames: &count{}, encrypts: encrypts && p.DTLS.IsValid(), only: only}
	mask := uint64(len(v.peers) - 1)
	i := addrPlace(a) & mask
	for v.peers[i] != nil {
		i = (i + 1) & mask
	}
	v.peers[i] = c
	v.list = append(v.list, c)
	if n := int(p.ID) + 1; n > len(v.ports) {
		v.ports = append(v.ports, make([]*Peer, n-len(v.ports))...)
	}
	v.ports[p.ID] = c.peer
	return nil
}
