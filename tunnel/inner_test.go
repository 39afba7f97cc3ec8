package tunnel_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
	"github.com/tapestry-net/tapestry/tunnel"
)

var (
	alice6 = switchtest.Station6(1)
	bob6   = switchtest.Station6(2)
)

// withTOS returns a copy of IP frame b with its TOS or traffic class set and
// the IPv4 checksum right.
func withTOS(b []byte, tos uint8) []byte {
	b = slices.Clone(b)
	if b[14]>>4 == 6 {
		b[14], b[15] = 6<<4|tos>>4, tos<<4|b[15]&15
		return b
	}
	b[15] = tos
	b[24], b[25] = 0, 0
	binary.BigEndian.PutUint16(b[24:], ^offload.Fold(offload.Sum(b[14:34], 0)))
	return b
}

// TestDecapECN is figure 4 of RFC 6040, cell by cell. -1 is a drop.
func TestDecapECN(t *testing.T) {
	const notECT, ect1, ect0, ce, drop = 0, 1, 2, 3, -1
	outers := []uint8{notECT, ect0, ect1, ce}
	for inner, row := range map[uint8][]int{
		notECT: {notECT, notECT, notECT, drop},
		ect0:   {ect0, ect0, ect1, ce},
		ect1:   {ect1, ect1, ect1, ce},
		ce:     {ce, ce, ce, ce},
	} {
		for i, want := range row {
			for _, f := range [][]byte{hello, switchtest.UDPFrame(alice6, bob6, []byte("hello"))} {
				const dscp = 0xb8
				b := withTOS(f, dscp|inner)
				ok := tunnel.DecapECN(b, 0x20|outers[i])
				if ok != (want != drop) {
					t.Errorf("inner %d outer %d: kept %v", inner, outers[i], ok)
				}
				if want == drop {
					continue
				}
				if w := withTOS(f, dscp|uint8(want)); !slices.Equal(b, w) {
					t.Errorf("inner %d outer %d:\ngot  % x\nwant % x", inner, outers[i], b[14:34], w[14:34])
				}
			}
		}
	}
	if arp := switchtest.Padded(switchtest.ARPFrame(alice, bob.Addr)); !tunnel.DecapECN(arp, ce) {
		t.Error("ARP with outer CE is dropped")
	}
}

func TestFlow(t *testing.T) {
	hash := func(b []byte) uint32 { h, _ := tunnel.Flow(b, b[12:]); return h }
	udp := func(port uint16, payload string) []byte {
		a := alice
		a.Port = port
		return switchtest.UDPFrame(a, bob, []byte(payload))
	}
	if hash(udp(5000, "a")) != hash(udp(5000, "another")) {
		t.Error("two datagrams of one flow differ")
	}
	seen := make(map[uint32]bool)
	for port := range uint16(1000) {
		seen[hash(udp(port, "x"))] = true
	}
	if len(seen) < 1000 {
		t.Errorf("1000 flows have %d hashes", len(seen))
	}
	first, later := udp(5000, "fragmented"), udp(5001, "fragmented")
	first[20] |= 0x20 // MF
	later[21] = 5     // offset
	if hash(first) != hash(later) {
		t.Error("fragments of one packet go different ways")
	}
	for _, tos := range []uint8{0, 0xb9, 0x03} {
		for _, f := range [][]byte{hello, switchtest.UDPFrame(alice6, bob6, nil)} {
			f = withTOS(f, tos)
			if _, got := tunnel.Flow(f, f[12:]); got != tos {
				t.Errorf("outer TOS %#x, want %#x", got, tos)
			}
		}
	}
}

func TestRestore(t *testing.T) {
	const mtu = 1450
	tcp := switchtest.TCPFrame(alice, bob, switchtest.Segment{Seq: 1, Ack: 1}, switchtest.Pattern(20000))
	udp := switchtest.UDPFrame(alice6, bob6, switchtest.Pattern(20000))
	partial := func(b []byte) []byte { return switchtest.Partial(b).Data }
	for _, c := range []struct {
		name string
		b    []byte
		size int
		want frame.GSO
	}{
		{"complete", hello, 0, frame.GSO{}},
		{"complete and long", tcp, 0, frame.GSO{}},
		{"unfilled", partial(switchtest.UDPFrame(alice, bob, []byte("x"))), 0, frame.GSO{NeedsCsum: true, CsumStart: 34, CsumOffset: 6}},
		{"uncut tcp", partial(tcp), 0, frame.GSO{Type: frame.GSOTCPv4, NeedsCsum: true, HdrLen: 54, Size: mtu - 40, CsumStart: 34, CsumOffset: 16}},
		{"uncut udp", partial(udp), 1000, frame.GSO{Type: frame.GSOUDP, NeedsCsum: true, HdrLen: 62, Size: 1000, CsumStart: 54, CsumOffset: 6}},
		{"udp of unknown segments", partial(udp), 0, frame.GSO{NeedsCsum: true, CsumStart: 54, CsumOffset: 6}},
		{"udp of too many segments", partial(udp), 1, frame.GSO{}},
	} {
		if got := tunnel.Restore(c.b, c.size, mtu); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestTooBig decodes the errors with gopacket and compares what they quote.
func TestTooBig(t *testing.T) {
	big := switchtest.Pattern(2000)
	four := switchtest.UDPFrame(alice, bob, big)
	four[20] |= 0x40 // DF
	four = withTOS(four, 0)
	own := netip.MustParseAddr("10.1.0.254")
	for _, c := range []struct {
		name string
		own  netip.Addr
		from string
	}{{"own address", own, "10.1.0.254"}, {"the destination's", netip.Addr{}, "10.1.0.2"}} {
		p := gopacket.NewPacket(tunnel.AnswerTooBig(four, c.own, netip.Addr{}, 1350), layers.LayerTypeEthernet, gopacket.Default)
		eth, _ := p.LinkLayer().(*layers.Ethernet)
		ip, _ := p.NetworkLayer().(*layers.IPv4)
		e, _ := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		if eth == nil || ip == nil || e == nil {
			t.Fatalf("%s: %v", c.name, p)
		}
		if frame.MAC(eth.DstMAC) != alice.MAC || frame.MAC(eth.SrcMAC) != bob.MAC || ip.SrcIP.String() != c.from || ip.DstIP.String() != "10.1.0.1" {
			t.Errorf("%s: from %v %v to %v %v", c.name, eth.SrcMAC, ip.SrcIP, eth.DstMAC, ip.DstIP)
		}
		if e.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || e.Seq != 1350 || len(ip.Contents)+len(ip.Payload) > 576 {
			t.Errorf("%s: %v next-hop MTU %d, %d octets", c.name, e.TypeCode, e.Seq, len(ip.Contents)+len(ip.Payload))
		}
		if offload.Fold(offload.Sum(ip.Contents, 0)) != 0xffff || offload.Fold(offload.Sum(ip.Payload, 0)) != 0xffff {
			t.Errorf("%s: wrong checksum", c.name)
		}
		if !slices.Equal(e.Payload, four[14:14+len(e.Payload)]) || len(e.Payload) < 28 {
			t.Errorf("%s: quotes % x", c.name, e.Payload)
		}
	}
	six := switchtest.UDPFrame(alice6, bob6, big)
	for _, c := range []struct{ own, from netip.Addr }{
		{netip.Addr{}, bob6.Addr}, {netip.MustParseAddr("fd00::fe"), netip.MustParseAddr("fd00::fe")},
	} {
		b := tunnel.AnswerTooBig(six, own, c.own, 1330)
		p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
		e, _ := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		if e == nil || e.TypeCode.Type() != layers.ICMPv6TypePacketTooBig || binary.BigEndian.Uint32(e.Payload) != 1330 || len(b) > 1280+14 {
			t.Fatalf("answer to IPv6: %v, %d octets", p, len(b))
		}
		if from := netip.AddrFrom16([16]byte(b[22:38])); from != c.from {
			t.Errorf("answer to IPv6 from %v, want %v", from, c.from)
		}
		if offload.Fold(offload.Sum(b[54:], offload.Pseudo(b[22:54], 58, len(b)-54))) != 0xffff {
			t.Error("answer to IPv6: wrong checksum")
		}
	}
}

// TestTooBigIsSilent has the packets that no error may answer.
func TestTooBigIsSilent(t *testing.T) {
	big := switchtest.Pattern(2000)
	change := func(f []byte, edit func(b []byte)) []byte {
		f = slices.Clone(f)
		f[20] |= 0x40
		edit(f)
		return f
	}
	four := switchtest.UDPFrame(alice, bob, big)
	six := switchtest.UDPFrame(alice6, bob6, big)
	for name, f := range map[string][]byte{
		"no DF":           change(four, func(b []byte) { b[20] &^= 0x40 }),
		"later fragment":  change(four, func(b []byte) { b[21] = 9 }),
		"group source":    change(four, func(b []byte) { b[26] = 224 }),
		"no source":       change(four, func(b []byte) { clear(b[26:30]) }),
		"to a group":      change(four, func(b []byte) { b[30] = 239 }),
		"an ICMP error":   change(four, func(b []byte) { b[23], b[34] = 1, 3 }),
		"an ICMPv6 error": change(six, func(b []byte) { b[20] = 58; b[54] = 1 }),
		"ARP":             switchtest.Padded(switchtest.ARPFrame(alice, bob.Addr)),
		"a cut header":    four[:40],
	} {
		if b := tunnel.AnswerTooBig(f, netip.Addr{}, netip.Addr{}, 1000); b != nil {
			t.Errorf("%s is answered", name)
		}
	}
}

// TestTooBigReachesTheSender sends what doesn't fit and hears of it.
func TestTooBigReachesTheSender(t *testing.T) {
	h, q := loopHost(t, nil)
	h.nets[0].Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.254")}
	p := newVTEP(t, "127.0.0.2:0", h.tun.Listen())
	id := h.peer(p.at())
	p.send(in(blueVNI, hello)) // teaches bob
	until(t, "bob to be known", func() bool { return len(q.Drain()) == 1 })
	f := switchtest.UDPFrame(alice, bob, switchtest.Pattern(1600))
	f[20] |= 0x40
	var got []frame.Frame
	until(t, "an error", func() bool { // none are sent before the first tick
		q.Inject(f)
		got = append(got, q.Drain()...)
		return len(got) > 0
	})
	if b := got[0].Data; frame.MAC(b[:6]) != alice.MAC || frame.MAC(b[6:12]) != bob.MAC || binary.BigEndian.Uint16(b[40:]) != 1450 || b[29] != 254 {
		t.Errorf("the sender hears % x", b)
	}
	st, _ := h.sw.PortStats(id)
	if st.Drops[frame.MTUExceeded] == 0 {
		t.Error("not counted as mtu_exceeded")
	}
}

func FuzzInner(f *testing.F) {
	f.Add(hello, uint8(3), 0)
	f.Add(switchtest.TCPFrame(alice6, bob6, switchtest.Segment{}, []byte("x")), uint8(1), 1000)
	f.Add(switchtest.Partial(hello).Data, uint8(0), 1)
	f.Fuzz(func(t *testing.T, b []byte, tos uint8, size int) {
		if len(b) < frame.HeaderLen || len(b) > frame.MaxLen {
			return
		}
		tunnel.Flow(b, b[12:])
		fr := frame.Frame{Data: b, GSO: tunnel.Restore(b, max(size, 0)&0xffff, 1450)}
		if err := offload.Check(&fr); err != nil {
			t.Errorf("metadata %+v that offload refuses: %v", fr.GSO, err)
		}
		tunnel.AnswerTooBig(b, netip.Addr{}, netip.Addr{}, 1400)
		tunnel.DecapECN(b, tos)
	})
}

func FuzzMessage(f *testing.F) {
	f.Add(tunnel.Probe(1, 2))
	f.Add(tunnel.AnswerTo(tunnel.Probe(1, 2)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := tunnel.ParseMessage(b); ok && len(b) < 44 {
			t.Errorf("a message of %d octets", len(b))
		}
	})
}
