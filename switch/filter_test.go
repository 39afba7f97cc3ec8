package vswitch_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

func TestBadFrames(t *testing.T) {
	long := append(eth(mac(2), mac(1)), make([]byte, 65536-46)...)
	big := frame.GSO{Type: frame.GSOTCPv4, HdrLen: 54, Size: 65535}
	tests := []struct {
		name string
		f    frame.Frame
		want frame.Reason
	}{
		{"group source", frame.Frame{Data: eth(mac(2), multicast)}, frame.BadSource},
		{"zero source", frame.Frame{Data: eth(mac(2), frame.MAC{})}, frame.BadSource},
		{"header only", frame.Frame{Data: eth(mac(2), mac(1))[:14]}, frame.ReasonNone},
		{"tag cut off", frame.Frame{Data: tagged(eth(mac(2), mac(1)), frame.MakeTag(10, 0, false))[:16]}, frame.TooShort},
		{"longer than IP can be", frame.Frame{Data: long}, frame.TooLong},
		{"segment longer than IP can be", frame.Frame{Data: eth(mac(2), mac(1)), GSO: big}, frame.TooLong},
		{"header longer than the frame", frame.Frame{Data: eth(mac(2), mac(1)), GSO: frame.GSO{Type: frame.GSOUDP, HdrLen: 61, Size: 1}}, frame.TooShort},
		{"segments of nothing", frame.Frame{Data: eth(mac(2), mac(1)), GSO: frame.GSO{Type: frame.GSOUDP, HdrLen: 42}}, frame.TooShort},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, bridge(2))
			r.sendFrames(1, tt.f)
			s, _ := r.sw.PortStats(1)
			for why, n := range s.Drops {
				if want := tt.want == frame.Reason(why) && tt.want != frame.ReasonNone; (n == 1) != want {
					t.Errorf("%v drops: got %d, want %v", frame.Reason(why), n, want)
				}
			}
			if r.table.Len() != 0 && tt.want != frame.ReasonNone {
				t.Error("the source of a dropped frame was learned")
			}
			r.conserve()
		})
	}
}

func TestReservedAddresses(t *testing.T) {
	const lldp = 0x0e
	for _, tt := range []struct {
		name string
		mask uint16
		lab  bool
	}{{"strict", 0, false}, {"LLDP relayed", 1 << lldp, false}, {"lab", 0, true}} {
		t.Run(tt.name, func(t *testing.T) {
			spec := bridge(2)
			spec.Networks[0].ForwardReserved, spec.Lab = tt.mask, tt.lab
			r := start(t, spec)
			for n := range 17 {
				var want []int
				if n == 16 || tt.lab || tt.mask&(1<<n) != 0 {
					want = []int{2}
				}
				r.expect("to a reserved address", 1, eth(frame.MAC{0x01, 0x80, 0xc2, 0, 0, byte(n)}, mac(1)), want...)
			}
			r.conserve()
		})
	}
}

// pinned has station 1 of switchtest on port 1, by MAC and addresses.
func pinned() vswitch.Spec {
	spec := bridge(2)
	spec.Ports[0].MACPin = switchtest.Station4(1).MAC
	spec.Ports[0].Sources = []netip.Addr{switchtest.Station4(1).Addr, switchtest.Station6(1).Addr}
	return spec
}

// snap puts an LLC/SNAP header in place of the EtherType of f.
func snap(f []byte) []byte {
	n := binary.BigEndian.AppendUint16(nil, uint16(len(f)-12+6))
	return slices.Concat(f[:12], n, []byte{0xaa, 0xaa, 3, 0, 0, 0}, f[12:])
}

func TestSources(t *testing.T) {
	me, me6 := switchtest.Station4(1), switchtest.Station6(1)
	you, you6 := switchtest.Station4(2), switchtest.Station6(2)
	lie, lie6 := me, me6
	lie.Addr, lie6.Addr = netip.MustParseAddr("10.1.0.66"), netip.MustParseAddr("fd00::66")
	thief := lie
	thief.MAC = mac(66)
	thief.Addr = me.Addr
	probe := me
	probe.Addr = netip.IPv4Unspecified()
	unset := me6
	unset.Addr = netip.IPv6Unspecified()
	priority := frame.MakeTag(0, 0, false)

	// A solicitation whose source is unset names the address it wants to have.
	dad := func(a netip.Addr) []byte { return switchtest.NeighbourSolicitation(unset, a) }
	// An advertisement from an honest source for somebody else's address.
	poison := switchtest.NeighbourAdvertisement(me6, you6)
	copy(poison[14+40+8:], lie6.Addr.AsSlice())
	forged := slices.Clone(switchtest.ARPReply(me, you))
	forged[14+8+5] ^= 0x40 // the sender's hardware address inside

	tests := []struct {
		name string
		f    []byte
		want bool
	}{
		{"IPv4", switchtest.UDPFrame(me, you, nil), true},
		{"IPv4 of another", switchtest.UDPFrame(lie, you, nil), false},
		{"another MAC", switchtest.UDPFrame(thief, you, nil), false},
		{"IPv4 cut off", switchtest.UDPFrame(me, you, nil)[:14+19], false},
		{"IPv6", switchtest.UDPFrame(me6, you6, nil), true},
		{"IPv6 of another", switchtest.UDPFrame(lie6, you6, nil), false},
		{"IPv6 cut off", switchtest.UDPFrame(me6, you6, nil)[:14+39], false},
		{"ARP", switchtest.ARPFrame(me, you.Addr), true},
		{"ARP probe", switchtest.ARPFrame(probe, me.Addr), true},
		{"ARP of another", switchtest.ARPFrame(lie, you.Addr), false},
		{"ARP reply of another", switchtest.ARPReply(lie, you), false},
		{"ARP with another sender inside", forged, false},
		{"ARP cut off", switchtest.ARPFrame(me, you.Addr)[:14+27], false},
		{"solicitation", switchtest.NeighbourSolicitation(me6, you6.Addr), true},
		{"duplicate address detection", dad(me6.Addr), true},
		{"duplicate address detection of another", dad(lie6.Addr), false},
		{"advertisement", switchtest.NeighbourAdvertisement(me6, you6), true},
		{"advertisement of another's address", poison, false},
		{"no IP at all", eth(you.MAC, me.MAC), true},
		{"lie behind a priority tag", tagged(switchtest.ARPReply(lie, you), priority), false},
		{"truth behind a priority tag", tagged(switchtest.ARPReply(me, you), priority), true},
		{"lie behind two tags", tagged(tagged(switchtest.ARPReply(lie, you), priority), priority), false},
		{"lie behind an S-tag", switchtest.STagged(0, 0, switchtest.ARPReply(lie, you)), false},
		{"lie behind SNAP", snap(switchtest.ARPReply(lie, you)), false},
		{"truth behind SNAP", snap(switchtest.ARPReply(me, you)), true},
		{"lie behind tag and SNAP", tagged(snap(switchtest.ARPReply(lie, you)), priority), false},
	}
	deep := switchtest.ARPReply(me, you)
	for range 10 {
		deep = tagged(deep, priority)
	}
	tests = append(tests, struct {
		name string
		f    []byte
		want bool
	}{"deeper than anyone looks", deep, false})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, pinned())
			r.send(1, tt.f)
			if got := r.drops(1, frame.SpoofedSource) == 0; got != tt.want {
				t.Errorf("accepted: got %v, want %v", got, tt.want)
			}
		})
	}
}

// extended puts IPv6 extension headers in front of what a frame carries.
func extended(f []byte, headers ...[]byte) []byte {
	out := slices.Clone(f[:14+40])
	at, next := 14+6, f[14+6]
	for _, h := range headers {
		h = slices.Clone(h)
		out[at], h[0], at = h[0], 0, len(out)
		out = append(out, h...)
	}
	out[at] = next
	return append(out, f[14+40:]...)
}

func TestSourcesBehindExtensionHeaders(t *testing.T) {
	me, you := switchtest.Station6(1), switchtest.Station6(2)
	poison := switchtest.NeighbourAdvertisement(me, you)
	copy(poison[14+40+8:], netip.MustParseAddr("fd00::66").AsSlice())
	options := []byte{60, 0, 1, 4, 0, 0, 0, 0}
	first := []byte{44, 0, 0, 1, 0, 0, 0, 1}
	later := []byte{44, 0, 0, 8, 0, 0, 0, 1}
	tests := []struct {
		name string
		f    []byte
		want bool
	}{
		{"truth behind options", extended(switchtest.NeighbourAdvertisement(me, you), options), true},
		{"lie behind options", extended(poison, options), false},
		{"lie in a first fragment", extended(poison, first), false},
		{"a later fragment", extended(poison, later), true},
		{"chain cut off", extended(poison, options)[:14+40+4], false},
		{"options longer than the frame", extended(poison, []byte{60, 255, 0, 0, 0, 0, 0, 0}), false},
		{"chain without end", extended(poison, slices.Repeat([][]byte{options}, 9)...), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, pinned())
			r.send(1, tt.f)
			if got := r.drops(1, frame.SpoofedSource) == 0; got != tt.want {
				t.Errorf("accepted: got %v, want %v", got, tt.want)
			}
		})
	}
}

// FuzzForward sends any octets into a switch with every check on: it must not
// fall, and the law of conservation must hold.
func FuzzForward(f *testing.F) {
	f.Add(switchtest.ARPReply(switchtest.Station4(1), switchtest.Station4(2)), uint8(0), uint16(0), uint16(0))
	f.Add(switchtest.NeighbourAdvertisement(switchtest.Station6(1), switchtest.Station6(2)), uint8(0), uint16(0), uint16(0))
	f.Add(snap(switchtest.UDPFrame(switchtest.Station4(1), switchtest.Station4(2), nil)), uint8(5), uint16(42), uint16(100))
	r := start(f, pinned())
	f.Fuzz(func(t *testing.T, b []byte, kind uint8, hdr, size uint16) {
		r.t = t
		g := frame.GSO{Type: frame.GSOType(kind % 6), HdrLen: hdr, Size: size}
		r.sw.Explain(1, frame.Frame{Data: b, GSO: g})
		if r.ports[0].InjectFrames(frame.Frame{Data: b, GSO: g}) == 1 {
			r.sent++
			r.settle()
		}
		r.heard()
		r.conserve()
	})
}
