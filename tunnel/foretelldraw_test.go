package tunnel_test

import (
	"fmt"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/fdb"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
	"github.com/tapestry-net/tapestry/tunnel"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

var foretoldVIDs = []frame.VID{10, 20, 30}

// configure draws a configuration and puts it into force.
func (o *oracle) configure(t *rapid.T) {
	s := vswitch.Spec{Lab: rapid.IntRange(0, 7).Draw(t, "lab") == 7}
	o.nets, o.peers, o.up, o.last = nil, nil, nil, frame.Frame{}
	for _, vid := range foretoldVIDs {
		mtu := rapid.SampledFrom([]int{0, 1500, 1450, 80}).Draw(t, "mtu")
		s.Networks = append(s.Networks, vswitch.Network{Name: fmt.Sprint("n", vid), VID: vid, MTU: mtu,
			ForwardReserved: rapid.SampledFrom([]uint16{0, 1 << 14}).Draw(t, "reserved")})
		if rapid.IntRange(0, 3).Draw(t, "local") < 3 {
			o.nets = append(o.nets, tunnel.Network{VID: vid, VNI: vniOf(vid), MTU: mtu, Encrypt: rapid.IntRange(0, 5).Draw(t, "encrypt") == 5})
		}
	}
	modes, spoofs := rapid.Bool().Draw(t, "modes"), rapid.Bool().Draw(t, "spoofs")
	if modes && rapid.IntRange(0, 5).Draw(t, "passthru") == 5 {
		s.Ports = []vswitch.Port{
			{ID: 1, Name: "p1", Queue: o.ports[0], Native: 10, Mode: vswitch.ModePassthru}, {ID: 2, Name: "p2", Queue: o.ports[1], Native: 10, Uplink: true},
		}
	} else {
		for i := range rapid.IntRange(1, len(o.ports)).Draw(t, "ports") {
			s.Ports = append(s.Ports, o.drawPort(t, frame.PortID(i+1), modes, spoofs))
		}
		o.drawPeers(t)
	}
	for _, p := range s.Ports {
		if p.Queue != nil {
			o.up = append(o.up, p.ID)
		}
	}
	reserved := rapid.SampledFrom([]vxlan.Mode{vxlan.DropReserved, vxlan.IgnoreReserved}).Draw(t, "tolerate")
	if err := o.tun.Apply(tunnel.Spec{Networks: o.nets, Peers: o.peers, Reserved: reserved}); err != nil {
		t.Fatal(err)
	}
	for _, p := range o.peers {
		o.tun.Assume(p.ID, rapid.IntRange(0, 7).Draw(t, "down") == 7, rapid.SampledFrom([]int{1450, 1450, 1400, 100}).Draw(t, "path"))
		s.Ports = append(s.Ports, vswitch.Port{
			ID: p.ID, Name: "peer/" + p.Name, Queue: o.tun.Peer(p.ID), Tagged: p.VIDs, Group: tunnel.Group, OwnMTU: true,
		})
	}
	for _, r := range o.tun.Receivers() {
		s.Receivers = append(s.Receivers, r)
	}
	if err := o.sw.Apply(s); err != nil {
		t.Fatal(err)
	}
	for range rapid.IntRange(0, 2).Draw(t, "statics") {
		k := fdb.MakeKey(rapid.SampledFrom(foretoldVIDs).Draw(t, "vid"), stationMAC(rapid.IntRange(1, 6).Draw(t, "station")))
		if err := o.table.AddStatic(k, s.Ports[rapid.IntRange(0, len(s.Ports)-1).Draw(t, "port")].ID); err != nil {
			t.Fatal(err)
		}
	}
}

func vniOf(v frame.VID) vxlan.VNI { return 10000 + vxlan.VNI(v) }

func stationMAC(n int) frame.MAC { return switchtest.Station4(byte(n)).MAC }

// drawPort draws a local port. About one in six is down.
func (o *oracle) drawPort(t *rapid.T, id frame.PortID, modes, spoofs bool) vswitch.Port {
	p := vswitch.Port{ID: id, Name: fmt.Sprint("p", id), Native: rapid.SampledFrom([]frame.VID{10, 10, 10, 20, 0}).Draw(t, "native")}
	for _, v := range foretoldVIDs {
		if rapid.IntRange(0, 3).Draw(t, "tagged") == 3 {
			p.Tagged = append(p.Tagged, v)
		}
	}
	d := throw(rapid.Uint64().Draw(t, "policy"), int(id))
	if id == 1 || d.pick(6) > 0 {
		p.Queue = o.ports[id-1]
	}
	p.Isolated, p.Hairpin, p.NoCoalesce = d.pick(5) == 4, d.pick(8) == 7, d.pick(4) == 3
	p.LoopGuard = d.pick(2) == 1
	p.MTU = []int{0, 0, 0, 100}[d.pick(4)]
	p.FDBLimit = []int{0, 0, 0, 1, 3}[d.pick(5)]
	if d.pick(8) == 7 {
		p.Group = uint8(1 + d.pick(2))
	}
	limit := func() uint32 { return []uint32{0, 0, 0, 5, 80}[d.pick(5)] }
	p.Storm = vswitch.Storm{Broadcast: limit(), Unknown: limit(), Multicast: limit()}
	if modes {
		p.Uplink, p.Mode = d.pick(4) == 3, vswitch.Mode(d.pick(3))
	}
	if spoofs && d.pick(3) == 2 {
		p.MACPin = stationMAC(int(id))
	}
	if spoofs && d.pick(3) == 2 {
		p.Sources = []netip.Addr{switchtest.Station4(byte(id)).Addr, switchtest.Station6(byte(id)).Addr}
	}
	return p
}

// drawPeers draws up to three peers, which may carry any of the networks.
func (o *oracle) drawPeers(t *rapid.T) {
	for i := range rapid.IntRange(0, len(o.far)-1).Draw(t, "peers") {
		p := tunnel.PeerSpec{ID: frame.PortID(firstPeer + i), Name: fmt.Sprint("h", i), Address: o.far[i].at}
		for _, n := range o.nets {
			if rapid.IntRange(0, 3).Draw(t, "carries") < 3 {
				p.VIDs = append(p.VIDs, n.VID)
			}
		}
		o.peers = append(o.peers, p)
	}
}

// payload is what a frame carries, addresses of Ethernet apart.
type payload struct {
	kind, src, size int
}

// octets builds a payload in an Ethernet frame, once.
func (o *oracle) octets(p payload) []byte {
	if b := o.made[p]; b != nil {
		return b
	}
	src, dst := switchtest.Station4(byte(p.src)), switchtest.Station4(byte(p.src%6+1))
	if p.kind%2 == 1 {
		src, dst = switchtest.Station6(byte(p.src)), switchtest.Station6(byte(p.src%6+1))
	}
	var b []byte
	switch data := switchtest.Pattern(p.size); p.kind {
	case 0:
		b = switchtest.EthFrame(dst.MAC, src.MAC, 0x88b5, append(data, make([]byte, 46)...))
	case 1:
		b = switchtest.EchoFrame(src, dst, 1, 1, data)
	case 2, 3:
		b = switchtest.UDPFrame(src, dst, data)
	case 4, 5:
		b = switchtest.TCPFrame(src, dst, switchtest.Segment{}, data)
	case 6:
		b = switchtest.ARPFrame(src, dst.Addr)
	default:
		b = switchtest.NeighbourAdvertisement(src, dst)
	}
	o.made[p] = b
	return b
}

// plain draws an untagged frame without offload metadata.
func (o *oracle) plain(d *dice) (b []byte, p payload) {
	p = payload{kind: d.pick(8), src: 1 + d.pick(6), size: []int{0, 0, 0, 40, 1340, 1414, 1460, 3000}[d.pick(8)]}
	b = slices.Clone(o.octets(p))
	src, dst := stationMAC(p.src), stationMAC(1+d.pick(6))
	if d.pick(4) == 3 {
		src = stationMAC(1 + d.pick(6))
	}
	if d.pick(40) == 39 {
		src = []frame.MAC{{}, {1, 2, 3, 4, 5, 6}}[d.pick(2)]
	}
	switch d.pick(9) {
	case 6:
		dst = frame.Broadcast
	case 7:
		dst = frame.MAC{1, 0, 0x5e, 1, 2, 3}
	case 8:
		dst = []frame.MAC{frame.Broadcast, {1, 0x80, 0xc2, 0, 0, 0x0e}, {1, 0x80, 0xc2}, {}}[d.pick(4)]
	}
	copy(b, dst[:])
	copy(b[6:], src[:])
	return b, p
}

// draw draws a frame for a local port; one in four is the last one again, as a
// loop brings it.
func (o *oracle) draw(d *dice) frame.Frame {
	if o.last.Data != nil && d.pick(4) == 3 {
		return o.last
	}
	b, p := o.plain(d)
	if d.pick(3) == 2 {
		tci := []uint16{10, 10, 20, 30, 0, 0xa000, 0x700a, 40, 4095}[d.pick(9)]
		b = switchtest.Tagged(frame.VID(tci&0xfff), frame.PCP(tci>>13), b)
		if d.pick(16) == 15 {
			b = switchtest.Tagged(10, 3, b)
		}
		if d.pick(16) == 15 {
			b = b[:14+d.pick(4)]
			p.kind = 0
		}
	}
	f := frame.Frame{Data: b}
	if p.kind >= 2 && p.kind <= 5 && d.pick(3) == 2 {
		if f = switchtest.Partial(b); p.size > 0 && d.pick(2) == 1 {
			f = switchtest.Super(b, []int{20, 500, 1340, 1460}[d.pick(4)])
		}
		switch d.pick(24) {
		case 21:
			f.GSO.Size = 0
		case 22:
			f.GSO.HdrLen = 2
		case 23:
			f.GSO.CsumStart += 2
		}
	}
	o.last = f
	return f
}

// drawDatagram draws what a VTEP might send.
func (o *oracle) drawDatagram(d *dice) []byte {
	b, _ := o.plain(d)
	if d.pick(12) == 11 {
		b = switchtest.Tagged(10, 0, b)
	}
	if d.pick(16) == 15 {
		b = b[:d.pick(15)]
	}
	b = in([]vxlan.VNI{10010, 10010, 10010, 10020, 10030, 77, 0}[d.pick(7)], b)
	switch d.pick(24) {
	case 21:
		b[0] = 0
	case 22:
		b[1+d.pick(3)] |= 1 << d.pick(8)
	case 23:
		b = b[:d.pick(9)]
	}
	return b
}
