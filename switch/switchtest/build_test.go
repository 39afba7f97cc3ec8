package switchtest_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// recorder is a testing.TB that keeps what a checker says.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

var (
	a4, b4 = switchtest.Station4(1), switchtest.Station4(2)
	a6, b6 = switchtest.Station6(1), switchtest.Station6(2)
)

// TestBuildersAgreeWithGopacket decodes what was built and looks for the layer.
func TestBuildersAgreeWithGopacket(t *testing.T) {
	tests := []struct {
		name string
		data []byte
		want gopacket.LayerType
	}{
		{"UDP4", switchtest.UDPFrame(a4, b4, []byte("x")), layers.LayerTypeUDP},
		{"UDP6", switchtest.UDPFrame(a6, b6, []byte("x")), layers.LayerTypeUDP},
		{"TCP4", switchtest.TCPFrame(a4, b4, switchtest.Segment{Seq: 9, SYN: true}, nil), layers.LayerTypeTCP},
		{"TCP6", switchtest.TCPFrame(a6, b6, switchtest.Segment{Seq: 9, PSH: true}, []byte("x")), layers.LayerTypeTCP},
		{"echo", switchtest.EchoFrame(a4, b4, 1, 2, []byte("x")), layers.LayerTypeICMPv4},
		{"echo6", switchtest.EchoFrame(a6, b6, 1, 2, []byte("x")), layers.LayerTypeICMPv6Echo},
		{"ARP request", switchtest.ARPFrame(a4, b4.Addr), layers.LayerTypeARP},
		{"ARP reply", switchtest.ARPReply(a4, b4), layers.LayerTypeARP},
		{"solicitation", switchtest.NeighbourSolicitation(a6, b6.Addr), layers.LayerTypeICMPv6NeighborSolicitation},
		{"advertisement", switchtest.NeighbourAdvertisement(a6, b6), layers.LayerTypeICMPv6NeighborAdvertisement},
		{"LLDP", switchtest.LLDP(a4.MAC), layers.LayerTypeLinkLayerDiscovery},
		{"BPDU", switchtest.BPDU(a4.MAC), layers.LayerTypeSTP},
		{"C-tag", switchtest.Tagged(10, 3, switchtest.UDPFrame(a4, b4, nil)), layers.LayerTypeDot1Q},
		{"padded", switchtest.Padded(switchtest.ARPFrame(a4, b4.Addr)), layers.LayerTypeARP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := gopacket.NewPacket(tt.data, layers.LayerTypeEthernet, gopacket.Default)
			if p.Layer(tt.want) == nil || p.ErrorLayer() != nil {
				t.Errorf("got %v, want a layer %v", p, tt.want)
			}
		})
	}
}

func TestCheckPasses(t *testing.T) {
	data := switchtest.Tagged(10, 3, switchtest.UDPFrame(a4, b4, []byte("hello")))
	want := []switchtest.Checker{
		switchtest.Eth(b4.MAC, a4.MAC), switchtest.VLAN(10, 3), switchtest.IP(a4.Addr, b4.Addr),
		switchtest.UDP(a4.Port, b4.Port), switchtest.Payload([]byte("hello")),
	}
	switchtest.Check(t, frame.Frame{Data: switchtest.Padded(data)}, want...)
	switchtest.Check(t, switchtest.Partial(data), want...)
	s := switchtest.STagged(100, 1, switchtest.TCPFrame(a6, b6, switchtest.Segment{}, switchtest.Pattern(5000)))
	switchtest.Check(t, switchtest.Super(s, 1000), switchtest.Eth(b6.MAC, a6.MAC), switchtest.SVLAN(100, 1),
		switchtest.IP(a6.Addr, b6.Addr), switchtest.TCP(a6.Port, b6.Port), switchtest.Payload(switchtest.Pattern(5000)))
	switchtest.Check(t, frame.Frame{Data: switchtest.EchoFrame(a6, b6, 1, 2, []byte("x"))},
		switchtest.Eth(b6.MAC, a6.MAC), switchtest.IP(a6.Addr, b6.Addr))
	switchtest.Check(t, frame.Frame{Data: switchtest.EchoFrame(a4, b4, 1, 2, []byte("x"))},
		switchtest.Eth(b4.MAC, a4.MAC), switchtest.IP(a4.Addr, b4.Addr))
}

func TestCheckFailsAndSaysWhy(t *testing.T) {
	data := switchtest.UDPFrame(a4, b4, []byte("hello"))
	flip := func(at int) frame.Frame {
		d := bytes.Clone(data)
		d[at] ^= 1
		return frame.Frame{Data: d}
	}
	eth, ip := switchtest.Eth(b4.MAC, a4.MAC), switchtest.IP(a4.Addr, b4.Addr)
	wrongStart := switchtest.Partial(data)
	wrongStart.GSO.CsumStart++
	unannounced := switchtest.Partial(data)
	unannounced.GSO = frame.GSO{}
	tests := []struct {
		name   string
		f      frame.Frame
		checks []switchtest.Checker
		want   string
	}{
		{"destination", flip(0), []switchtest.Checker{eth}, "destination: got 03:00"},
		{"source", flip(6), []switchtest.Checker{eth}, "source: got 03:00"},
		{"cut", frame.Frame{Data: data[:9]}, []switchtest.Checker{eth}, "addresses: got 9 octets"},
		{"no tag", frame.Frame{Data: data}, []switchtest.Checker{eth, switchtest.VLAN(10, 0)}, "EtherType: got 0x0800, want 0x8100"},
		{"tag", frame.Frame{Data: switchtest.Tagged(9, 1, data)}, []switchtest.Checker{eth, switchtest.VLAN(10, 0)}, "got VID 9 PCP 1, want VID 10 PCP 0"},
		{"header checksum", flip(14 + 8), []switchtest.Checker{eth, ip}, "IPv4 header checksum"},
		{"L4 checksum", flip(len(data) - 1), []switchtest.Checker{eth, ip}, "L4 checksum"},
		{"addresses", frame.Frame{Data: data}, []switchtest.Checker{eth, switchtest.IP(b4.Addr, a4.Addr)}, "got 10.1.0.1 to 10.1.0.2"},
		{"partial unannounced", unannounced, []switchtest.Checker{eth, ip}, "L4 checksum"},
		{"partial elsewhere", wrongStart, []switchtest.Checker{eth, ip}, "checksum said to be at 35+6, is at 34+6"},
		{"ports", frame.Frame{Data: data}, []switchtest.Checker{eth, ip, switchtest.UDP(1, 2)}, "UDP ports: got 5001 to 5002, want 1 to 2"},
		{"TCP cut", frame.Frame{Data: data}, []switchtest.Checker{eth, ip, switchtest.TCP(1, 2)}, "TCP header: got 13 octets"},
		{"payload", frame.Frame{Data: data}, []switchtest.Checker{eth, ip, switchtest.UDP(a4.Port, b4.Port), switchtest.Payload([]byte("help"))}, "got 5 octets, want 4; they differ from octet 3 on"},
		{"cut inside IP", frame.Frame{Data: data[:30]}, []switchtest.Checker{eth, ip}, "ends inside"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &recorder{TB: t}
			switchtest.Check(r, tt.f, tt.checks...)
			if len(r.said) != 1 || !strings.Contains(r.said[0], tt.want) {
				t.Errorf("got %q, want one failure that says %q", r.said, tt.want)
			}
		})
	}
}

func TestWireJoinsTwoEnds(t *testing.T) {
	a, b := switchtest.Wire(t, mem.Options{Depth: 4})
	out, in := frame.NewBatch(0), frame.NewBatch(1<<18)
	data := switchtest.UDPFrame(a4, b4, []byte("over the wire"))
	out.Frames = append(out.Frames, frame.Frame{Data: data})
	for _, end := range [][2]*mem.Port{{a, b}, {b, a}} {
		if sent, err := end[0].Transmit(out); sent != 1 || err != nil {
			t.Fatalf("transmit: got %d, %v, want 1, nil", sent, err)
		}
		in.Reset()
		if err := end[1].Receive(in); err != nil || in.Len() != 1 || !bytes.Equal(in.Frames[0].Data, data) {
			t.Fatalf("receive: got %d frames, %v, want the one sent", in.Len(), err)
		}
	}
}
