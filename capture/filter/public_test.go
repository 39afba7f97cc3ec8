package filter

import (
	"bytes"
	"math/rand/v2"
	"net"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// builder makes frames as hosts and switches send them: whole, with right lengths
// and checksums, and padded to what a NIC sends.
type builder struct {
	t      testing.TB
	frames [][]byte
}

var (
	hostA, hostB = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	ipA, ipB     = net.IPv4(10, 1, 0, 2), net.IPv4(10, 1, 0, 3)
	ip6A, ip6B   = net.ParseIP("2001:db8::1"), net.ParseIP("2001:db8::2")
)

// raw is a header or payload by its octets.
func raw(b ...byte) gopacket.Payload { return b }

func zeros(n int) gopacket.Payload { return make([]byte, n) }

func join(parts ...[]byte) gopacket.Payload { return bytes.Join(parts, nil) }

// bytes serialises layers, innermost last.
func (b *builder) bytes(list ...gopacket.SerializableLayer) []byte {
	b.t.Helper()
	var below gopacket.NetworkLayer
	for _, l := range list {
		switch l := l.(type) {
		case gopacket.NetworkLayer:
			below = l
		case interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}:
			if err := l.SetNetworkLayerForChecksum(below); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		b.t.Fatal(err)
	}
	return slices.Clone(buf.Bytes())
}

// add makes one frame.
func (b *builder) add(list ...gopacket.SerializableLayer) {
	b.t.Helper()
	const least = 60
	f := b.bytes(list...)
	b.frames = append(b.frames, append(f, make([]byte, max(least-len(f), 0))...))
}

// eth is from A to B; to another address if it is given.
func eth(t layers.EthernetType, dst ...byte) *layers.Ethernet {
	e := &layers.Ethernet{SrcMAC: hostA, DstMAC: hostB, EthernetType: t}
	if len(dst) > 0 {
		e.DstMAC = dst
	}
	return e
}

func eth4(dst ...byte) *layers.Ethernet { return eth(layers.EthernetTypeIPv4, dst...) }
func eth6(dst ...byte) *layers.Ethernet { return eth(layers.EthernetTypeIPv6, dst...) }

func ip4(p layers.IPProtocol, src, dst net.IP) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: p, SrcIP: src, DstIP: dst, Flags: layers.IPv4DontFragment}
}

func ip6(p layers.IPProtocol, src, dst net.IP) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: p, SrcIP: src, DstIP: dst}
}

func udp(src, dst layers.UDPPort) *layers.UDP { return &layers.UDP{SrcPort: src, DstPort: dst} }

func vlan(id uint16, t layers.EthernetType) *layers.Dot1Q {
	return &layers.Dot1Q{VLANIdentifier: id, Type: t}
}

// public is a corpus of exchanges of public kinds: what stands in the captures
// that people learn from.
func public(t testing.TB) [][]byte {
	t.Helper()
	b := &builder{t: t}
	b.names()
	b.leases()
	b.streams()
	b.errors()
	b.tunnels()
	b.extended()
	b.neighbours()
	b.switches()
	b.routers()
	b.fragments()
	return b.frames
}

// names: DNS over UDP and TCP, mDNS, LLMNR.
func (b *builder) names() {
	ask := &layers.DNS{ID: 0x1234, RD: true, Questions: []layers.DNSQuestion{{Name: []byte("www.example.org"), Type: layers.DNSTypeA, Class: layers.DNSClassIN}}}
	answer := *ask
	answer.QR, answer.RA = true, true
	answer.Answers = []layers.DNSResourceRecord{
		{Name: []byte("www.example.org"), Type: layers.DNSTypeCNAME, Class: layers.DNSClassIN, TTL: 300, CNAME: []byte("web.example.org")},
		{Name: []byte("web.example.org"), Type: layers.DNSTypeA, Class: layers.DNSClassIN, TTL: 60, IP: net.IPv4(192, 0, 2, 80)},
	}
	b.add(eth4(), ip4(layers.IPProtocolUDP, ipA, ipB), udp(40053, 53), ask)
	b.add(eth4(), ip4(layers.IPProtocolUDP, ipB, ipA), udp(53, 40053), &answer)
	b.add(eth6(), ip6(layers.IPProtocolUDP, ip6A, ip6B), udp(40054, 53), ask)
	b.add(eth6(), ip6(layers.IPProtocolUDP, ip6B, ip6A), udp(53, 40054), &answer)
	over := b.bytes(ask)
	b.add(eth4(), ip4(layers.IPProtocolTCP, ipA, ipB), &layers.TCP{SrcPort: 40055, DstPort: 53, Seq: 1, Ack: 1, ACK: true, PSH: true, Window: 500}, raw(0, byte(len(over))), join(over))
	b.add(eth4(1, 0, 0x5e, 0, 0, 0xfb), ip4(layers.IPProtocolUDP, ipA, net.IPv4(224, 0, 0, 251)), udp(5353, 5353), ask)
	b.add(eth6(0x33, 0x33, 0, 0, 0, 0xfb), ip6(layers.IPProtocolUDP, net.ParseIP("fe80::1"), net.ParseIP("ff02::fb")), udp(5353, 5353), ask)
	b.add(eth4(1, 0, 0x5e, 0, 0, 0xfc), ip4(layers.IPProtocolUDP, ipA, net.IPv4(224, 0, 0, 252)), udp(40056, 5355), ask)
}

// leases: the four messages of DHCP, DHCPv6, NTP, TFTP, SNMP, syslog.
func (b *builder) leases() {
	everybody := []byte{255, 255, 255, 255, 255, 255}
	for i, kind := range []layers.DHCPMsgType{layers.DHCPMsgTypeDiscover, layers.DHCPMsgTypeOffer, layers.DHCPMsgTypeRequest, layers.DHCPMsgTypeAck} {
		m := &layers.DHCPv4{Operation: layers.DHCPOp(1 + i%2), HardwareType: layers.LinkTypeEthernet, HardwareLen: 6, Xid: 77, ClientHWAddr: hostA,
			Options: layers.DHCPOptions{layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{byte(kind)}), layers.NewDHCPOption(layers.DHCPOptHostname, []byte("web")), layers.NewDHCPOption(layers.DHCPOptEnd, nil)}}
		if i%2 == 0 {
			b.add(eth4(everybody...), ip4(layers.IPProtocolUDP, net.IPv4zero, net.IPv4bcast), udp(68, 67), m)
		} else {
			b.add(eth4(), ip4(layers.IPProtocolUDP, ipB, ipA), udp(67, 68), m)
		}
	}
	b.add(eth6(0x33, 0x33, 0, 1, 0, 2), ip6(layers.IPProtocolUDP, net.ParseIP("fe80::1"), net.ParseIP("ff02::1:2")), udp(546, 547), raw(1, 0, 0, 7, 0, 1, 0, 10), zeros(10))
	b.add(eth4(), ip4(layers.IPProtocolUDP, ipA, net.IPv4(192, 0, 2, 123)), udp(123, 123), raw(0x23, 0, 6, 0xec), zeros(44))
	b.add(eth4(), ip4(layers.IPProtocolUDP, ipA, ipB), udp(40069, 69), raw(0, 1), join([]byte("boot.img\x00octet\x00")))
	b.add(eth4(), ip4(layers.IPProtocolUDP, ipA, ipB), udp(40161, 161), raw(0x30, 0x26, 2, 1, 1, 4, 6), join([]byte("public")), zeros(24))
	b.add(eth4(), ip4(layers.IPProtocolUDP, ipA, ipB), udp(40514, 514), join([]byte("<34>1 2026-01-02T10:02:31Z web app - - - started")))
}

// streams: TCP from its handshake with options to its end, over both families;
// HTTP, TLS, SSH, and a segment of a jumbo frame.
func (b *builder) streams() {
	options := []layers.TCPOption{
		{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 180}}, {OptionType: layers.TCPOptionKindSACKPermitted, OptionLength: 2},
		{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: make([]byte, 8)}, {OptionType: layers.TCPOptionKindNop},
		{OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{7}},
	}
	stamps := []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop}, options[2]}
	sack := append(slices.Clone(stamps), layers.TCPOption{OptionType: layers.TCPOptionKindNop}, layers.TCPOption{OptionType: layers.TCPOptionKindNop},
		layers.TCPOption{OptionType: layers.TCPOptionKindSACK, OptionLength: 10, OptionData: make([]byte, 8)})
	for i, server := range []layers.TCPPort{80, 443, 22, 8080, 25} {
		there := func(f layers.TCP) *layers.TCP {
			f.SrcPort, f.DstPort, f.Window = layers.TCPPort(40000+i), server, 500
			return &f
		}
		back := func(f layers.TCP) *layers.TCP {
			f.SrcPort, f.DstPort, f.Window = server, layers.TCPPort(40000+i), 500
			return &f
		}
		for _, v6 := range []bool{false, true} {
			send := func(src, dst net.IP, src6, dst6 net.IP, f *layers.TCP, data string) {
				if v6 {
					b.add(eth6(), ip6(layers.IPProtocolTCP, src6, dst6), f, join([]byte(data)))
				} else {
					b.add(eth4(), ip4(layers.IPProtocolTCP, src, dst), f, join([]byte(data)))
				}
			}
			out := func(f layers.TCP, data string) { send(ipA, ipB, ip6A, ip6B, there(f), data) }
			in := func(f layers.TCP, data string) { send(ipB, ipA, ip6B, ip6A, back(f), data) }
			out(layers.TCP{Seq: 100, SYN: true, ECE: true, CWR: true, Options: options}, "")
			in(layers.TCP{Seq: 900, Ack: 101, SYN: true, ACK: true, Options: options}, "")
			out(layers.TCP{Seq: 101, Ack: 901, ACK: true, Options: stamps}, "")
			out(layers.TCP{Seq: 101, Ack: 901, ACK: true, PSH: true, Options: stamps}, [...]string{"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n",
				"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03", "SSH-2.0-OpenSSH_9.2\r\n", "GET /x HTTP/1.1\r\n\r\n", "EHLO web\r\n"}[i])
			in(layers.TCP{Seq: 901, Ack: 140, ACK: true, Options: sack}, "")
			in(layers.TCP{Seq: 901, Ack: 140, ACK: true, URG: true, Urgent: 1}, "HTTP/1.1 200 OK\r\n\r\n")
			out(layers.TCP{Seq: 140, Ack: 920, ACK: true, FIN: true}, "")
			in(layers.TCP{Seq: 920, RST: true}, "")
		}
	}
	b.add(eth4(), ip4(layers.IPProtocolTCP, ipA, ipB), &layers.TCP{SrcPort: 40010, DstPort: 80, ACK: true, Options: stamps}, zeros(8900))
	b.add(eth4(), ip4(layers.IPProtocolTCP, ipA, ipB), &layers.TCP{SrcPort: 40010, DstPort: 80, ACK: true}, zeros(1460))
	b.add(eth4(), ip4(layers.IPProtocolSCTP, ipA, ipB), &layers.SCTP{SrcPort: 40011, DstPort: 443}, raw(1, 0, 0, 20, 0, 0, 0, 9, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1))
	b.add(eth6(), ip6(layers.IPProtocolSCTP, ip6A, ip6B), &layers.SCTP{SrcPort: 443, DstPort: 40011}, raw(2, 0, 0, 20, 0, 0, 0, 9, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1))
}

// errors: echo, and ICMP errors with the packets that they quote.
func (b *builder) errors() {
	probe := b.bytes(ip4(layers.IPProtocolUDP, ipA, net.IPv4(192, 168, 7, 1)), udp(40000, 33434), zeros(12))
	segment := b.bytes(ip4(layers.IPProtocolTCP, ipA, ipB), &layers.TCP{SrcPort: 40000, DstPort: 80, ACK: true})
	probe6 := b.bytes(ip6(layers.IPProtocolUDP, ip6A, ip6B), udp(40000, 33434), zeros(12))
	for seq := range uint16(2) {
		for _, kind := range []uint8{8, 0} {
			b.add(eth4(), ip4(layers.IPProtocolICMPv4, ipA, ipB), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0), Id: 9, Seq: seq}, zeros(56))
		}
		for _, kind := range []uint8{128, 129} {
			b.add(eth6(), ip6(layers.IPProtocolICMPv6, ip6A, ip6B), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}, raw(0, 9, 0, byte(seq)), zeros(56))
		}
	}
	for _, e := range []struct {
		kind, code uint8
		rest       [4]byte
		quote      []byte
	}{
		{3, 3, [4]byte{}, probe}, {3, 1, [4]byte{}, probe}, {3, 13, [4]byte{}, segment}, {3, 4, [4]byte{0, 0, 5, 120}, segment},
		{11, 0, [4]byte{}, probe}, {11, 1, [4]byte{}, segment[:28]}, {5, 1, [4]byte{10, 1, 0, 3}, probe}, {12, 0, [4]byte{20}, segment},
	} {
		b.add(eth4(), ip4(layers.IPProtocolICMPv4, ipB, ipA), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(e.kind, e.code), Id: uint16(e.rest[0])<<8 | uint16(e.rest[1]),
			Seq: uint16(e.rest[2])<<8 | uint16(e.rest[3])}, join(e.quote))
	}
	for _, e := range []struct{ kind, code uint8 }{{1, 0}, {1, 4}, {2, 0}, {3, 0}, {4, 1}} {
		b.add(eth6(), ip6(layers.IPProtocolICMPv6, ip6B, ip6A), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(e.kind, e.code)}, raw(0, 0, 5, 0), join(probe6))
	}
}

// tunnels: VXLAN, GRE, IP in IP, ESP, AH, PPPoE, MPLS, and tags within tags.
func (b *builder) tunnels() {
	inner4 := b.bytes(ip4(layers.IPProtocolUDP, ipA, ipB), udp(53, 40000), zeros(20))
	inner6 := b.bytes(ip6(layers.IPProtocolTCP, ip6A, ip6B), &layers.TCP{SrcPort: 22, DstPort: 40000, ACK: true})
	arp := []byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 1, 0, 2, 0, 0, 0, 0, 0, 0, 10, 1, 0, 3}
	for _, vni := range []uint32{10010, 10011} {
		for _, inside := range [][]byte{b.bytes(eth4(), join(inner4)), b.bytes(eth6(), join(inner6)), b.bytes(eth(layers.EthernetTypeARP), join(arp)),
			b.bytes(eth(layers.EthernetTypeDot1Q), vlan(10, layers.EthernetTypeIPv4), join(inner4))} {
			b.add(eth4(), ip4(layers.IPProtocolUDP, ipA, ipB), udp(50000, 4789), &layers.VXLAN{ValidIDFlag: true, VNI: vni}, join(inside))
			b.add(eth6(), ip6(layers.IPProtocolUDP, ip6A, ip6B), udp(50000, 4789), &layers.VXLAN{ValidIDFlag: true, VNI: vni}, join(inside))
		}
	}
	b.add(eth4(), ip4(layers.IPProtocolGRE, ipA, ipB), raw(0, 0, 8, 0), join(inner4))
	b.add(eth4(), ip4(layers.IPProtocolGRE, ipA, ipB), raw(0x20, 0, 0x65, 0x58, 0, 0, 0, 7), join(b.bytes(eth4(), join(inner4)))) // with a key, as NVGRE
	b.add(eth4(), ip4(layers.IPProtocolIPIP, ipA, ipB), join(inner4))
	b.add(eth4(), ip4(layers.IPProtocolIPv6, ipA, ipB), join(inner6))
	b.add(eth6(), ip6(layers.IPProtocolIPIP, ip6A, ip6B), join(inner4))
	b.add(eth4(), ip4(layers.IPProtocolESP, ipA, ipB), raw(0, 0, 1, 0, 0, 0, 0, 1), zeros(64))
	b.add(eth4(), ip4(layers.IPProtocolAH, ipA, ipB), raw(17, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1), zeros(12), join(inner4[20:]))
	b.add(eth4(), ip4(layers.IPProtocolUDP, ipA, ipB), udp(4500, 4500), raw(0, 0, 1, 0, 0, 0, 0, 1), zeros(64))
	b.add(eth4(), ip4(layers.IPProtocolUDP, ipA, ipB), udp(50000, 6081), raw(0, 0, 0x65, 0x58, 0, 0x27, 0x1a, 0), join(b.bytes(eth4(), join(inner4))))
	b.add(eth(layers.EthernetTypePPPoEDiscovery, 255, 255, 255, 255, 255, 255), raw(0x11, 9, 0, 0, 0, 4, 1, 1, 0, 0))
	b.add(eth(layers.EthernetTypePPPoESession), raw(0x11, 0, 0, 1, 0, byte(2+len(inner4)), 0, 0x21), join(inner4))
	b.add(eth(layers.EthernetTypeMPLSUnicast), raw(0, 0x06, 0x41, 64), join(inner4))
	b.add(eth(layers.EthernetTypeMPLSUnicast), raw(0, 0x06, 0x40, 64, 0, 0x07, 0x01, 64), join(inner6))
	b.add(eth(layers.EthernetTypeMPLSMulticast), raw(0, 0x06, 0x41, 64), join(inner4))
	for _, id := range []uint16{10, 5, 0} {
		b.add(eth(layers.EthernetTypeDot1Q), vlan(id, layers.EthernetTypeIPv4), join(inner4))
		b.add(eth(layers.EthernetTypeDot1Q), vlan(id, layers.EthernetTypeIPv6), join(inner6))
		b.add(eth(layers.EthernetTypeDot1Q), vlan(id, layers.EthernetTypeARP), join(arp))
		b.add(eth(layers.EthernetTypeQinQ), vlan(20, layers.EthernetTypeDot1Q), vlan(id, layers.EthernetTypeIPv4), join(inner4))
		b.add(eth(layers.EthernetTypeDot1Q), vlan(5, layers.EthernetTypeDot1Q), vlan(id, layers.EthernetTypeIPv6), join(inner6))
	}
}

// extended: IPv6 behind each extension header, and IPv4 with options.
func (b *builder) extended() {
	segment := b.bytes(ip6(layers.IPProtocolTCP, ip6A, ip6B), &layers.TCP{SrcPort: 40000, DstPort: 80, SYN: true})[40:]
	datagram := raw(0x9c, 0x40, 0, 53, 0, 20, 0, 0)
	const hop, routing, fragment, options, none = 0, 43, 44, 60, 59
	next := func(p layers.IPProtocol, rest ...gopacket.SerializableLayer) {
		b.add(append([]gopacket.SerializableLayer{eth6(), ip6(p, ip6A, ip6B)}, rest...)...)
	}
	next(hop, raw(6, 0, 1, 4, 0, 0, 0, 0), join(segment))
	next(hop, raw(58, 0, 5, 2, 0, 0, 1, 0), raw(143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0), zeros(16)) // MLDv2 with router alert
	next(options, raw(17, 0, 1, 4, 0, 0, 0, 0), datagram, zeros(12))
	next(routing, raw(6, 2, 4, 0, 0, 0, 0, 0), zeros(16), join(segment)) // segment routing
	next(hop, raw(options, 0, 1, 4, 0, 0, 0, 0), raw(routing, 0, 1, 4, 0, 0, 0, 0), raw(fragment, 2, 4, 0, 0, 0, 0, 0), zeros(16), raw(17, 0, 0, 1, 0, 0, 0, 7), datagram, zeros(12))
	next(none, zeros(20))
	next(51, raw(6, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1), zeros(12), join(segment)) // AH
	for _, p := range []layers.IPProtocol{layers.IPProtocolTCP, layers.IPProtocolUDP} {
		alert := ip4(p, ipA, ipB)
		alert.Options = []layers.IPv4Option{{OptionType: 0x94, OptionLength: 4, OptionData: []byte{0, 0}}}
		route := ip4(p, ipA, ipB)
		route.Options = []layers.IPv4Option{{OptionType: 7, OptionLength: 39, OptionData: make([]byte, 37)}, {OptionType: 0}}
		rest := map[layers.IPProtocol]gopacket.Payload{layers.IPProtocolTCP: join(segment), layers.IPProtocolUDP: join(datagram, zeros(12))}[p]
		b.add(eth4(), alert, rest)
		b.add(eth4(), route, rest)
	}
}

// neighbours: ARP of each kind, RARP, neighbour discovery, group membership.
func (b *builder) neighbours() {
	arp := func(t layers.EthernetType, op byte, sender, target []byte, dst ...byte) {
		b.add(eth(t, dst...), raw(0, 1, 8, 0, 6, 4, 0, op, 2, 0, 0, 0, 0, 1), join(sender), zeros(6), join(target))
	}
	everybody := []byte{255, 255, 255, 255, 255, 255}
	arp(layers.EthernetTypeARP, 1, ipA.To4(), ipB.To4(), everybody...)
	arp(layers.EthernetTypeARP, 2, ipB.To4(), ipA.To4())
	arp(layers.EthernetTypeARP, 1, net.IPv4zero.To4(), ipA.To4(), everybody...) // a probe
	arp(layers.EthernetTypeARP, 1, ipA.To4(), ipA.To4(), everybody...)          // gratuitous
	arp(0x8035, 3, net.IPv4zero.To4(), net.IPv4zero.To4(), everybody...)
	arp(0x8035, 4, ipB.To4(), ipA.To4())
	for _, m := range [][]byte{
		append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, append(slices.Clone(ip6B), 1, 1, 2, 0, 0, 0, 0, 1)...),
		append([]byte{136, 0, 0, 0, 0x60, 0, 0, 0}, append(slices.Clone(ip6B), 2, 1, 2, 0, 0, 0, 0, 2)...),
		{133, 0, 0, 0, 0, 0, 0, 0},
		append([]byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0}, make([]byte, 28)...),
	} {
		b.add(eth6(0x33, 0x33, 0, 0, 0, 1), ip6(layers.IPProtocolICMPv6, net.ParseIP("fe80::1"), net.ParseIP("ff02::1")), join(m))
	}
	for _, m := range [][]byte{{0x11, 100, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0}, {0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 224, 0, 0, 251}, {0x16, 0, 0, 0, 224, 0, 0, 251}} {
		group := ip4(layers.IPProtocolIGMP, ipA, net.IPv4(224, 0, 0, 22))
		group.TTL, group.Options = 1, []layers.IPv4Option{{OptionType: 0x94, OptionLength: 4, OptionData: []byte{0, 0}}}
		b.add(eth4(1, 0, 0x5e, 0, 0, 22), group, join(m))
	}
}

// switches: what bridges tell each other, in Ethernet II, in 802.3 with LLC and
// with SNAP.
func (b *builder) switches() {
	b.add(eth(layers.EthernetTypeLinkLayerDiscovery, 1, 0x80, 0xc2, 0, 0, 14), raw(2, 7, 4, 2, 0, 0, 0, 0, 16, 4, 2, 7, 'x', 6, 2, 0, 120, 0, 0))
	b.add(eth(0x8809, 1, 0x80, 0xc2, 0, 0, 2), raw(1, 1, 1, 20), zeros(106))                       // LACP
	b.add(eth(0x8808, 1, 0x80, 0xc2, 0, 0, 1), raw(0, 1, 0xff, 0xff))                              // pause
	b.add(eth(0x888e, 1, 0x80, 0xc2, 0, 0, 3), raw(1, 1, 0, 0))                                    // 802.1X
	b.add(eth(0x0842, 255, 255, 255, 255, 255, 255), raw(255, 255, 255, 255, 255, 255), zeros(96)) // wake on LAN
	b.add(eth(0x88f7, 1, 0x1b, 0x19, 0, 0, 0), raw(0, 2, 0, 44), zeros(40))                        // PTP
	b.add(eth(0x9000), raw(0, 0, 1, 0))                                                            // loopback
	short := func(dst []byte, llc ...byte) { b.add(eth(layers.EthernetType(len(llc)), dst...), raw(llc...)) }
	bpdu := append([]byte{0x42, 0x42, 3, 0, 0, 0, 0, 0, 0x80, 0}, make([]byte, 28)...)
	short([]byte{1, 0x80, 0xc2, 0, 0, 0}, bpdu...)                                                                          // STP
	short([]byte{1, 0x80, 0xc2, 0, 0, 0}, append([]byte{0x42, 0x42, 3, 0, 0, 2, 2, 0x7c}, make([]byte, 31)...)...)          // RSTP
	short([]byte{1, 0, 0x0c, 0xcc, 0xcc, 0xcc}, append([]byte{0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0}, make([]byte, 60)...)...) // CDP
	short(hostB, append([]byte{0xe0, 0xe0, 3, 0xff, 0xff}, make([]byte, 40)...)...)                                         // IPX
	short([]byte{1, 0x80, 0xc2, 0, 0, 0x14}, append([]byte{0xfe, 0xfe, 3, 0x83, 27, 1}, make([]byte, 40)...)...)            // IS-IS
}

// routers: what they tell each other over IP.
func (b *builder) routers() {
	b.add(eth4(1, 0, 0x5e, 0, 0, 5), ip4(layers.IPProtocolOSPF, ipA, net.IPv4(224, 0, 0, 5)), raw(2, 1, 0, 44), zeros(40))
	b.add(eth4(1, 0, 0x5e, 0, 0, 13), ip4(103, ipA, net.IPv4(224, 0, 0, 13)), raw(0x20, 0, 0, 0, 0, 1, 0, 2, 0, 105))
	b.add(eth4(1, 0, 0x5e, 0, 0, 18), ip4(layers.IPProtocolVRRP, ipA, net.IPv4(224, 0, 0, 18)), raw(0x31, 7, 100, 1, 0, 100, 0, 0, 10, 1, 0, 1))
	b.add(eth6(0x33, 0x33, 0, 0, 0, 5), ip6(layers.IPProtocolOSPF, net.ParseIP("fe80::1"), net.ParseIP("ff02::5")), raw(3, 1, 0, 36), zeros(32))
	b.add(eth4(), ip4(layers.IPProtocolTCP, ipA, ipB), &layers.TCP{SrcPort: 40179, DstPort: 179, ACK: true, PSH: true}, join(bytes.Repeat([]byte{255}, 16)), raw(0, 19, 4))
	b.add(eth4(1, 0, 0x5e, 0, 0, 9), ip4(layers.IPProtocolUDP, ipA, net.IPv4(224, 0, 0, 9)), udp(520, 520), raw(1, 2, 0, 0), zeros(20))
	b.add(eth4(), ip4(layers.IPProtocolUDP, ipA, ipB), udp(49152, 3784), raw(0x20, 0xc0, 3, 24), zeros(20)) // BFD
}

// fragments: a datagram of 3000 octets in three, over both families.
func (b *builder) fragments() {
	whole := append([]byte{0x9c, 0x40, 0, 53, 0x0b, 0xc0, 0, 0}, make([]byte, 3000)...)
	for i, from := range []int{0, 1400, 2800} {
		to := min(from+1400, len(whole))
		more := layers.IPv4MoreFragments
		if i == 2 {
			more = 0
		}
		h := ip4(layers.IPProtocolUDP, ipA, ipB)
		h.Flags, h.FragOffset = more, uint16(from/8)
		b.add(eth4(), h, join(whole[from:to]))
		at := uint16(from) | uint16(more) // the same bit: offset in octets, then flags
		b.add(eth6(), ip6(44, ip6A, ip6B), raw(17, 0, byte(at>>8), byte(at), 0, 0, 0, 7), join(whole[from:to]))
	}
}

// cut is the corpus with each frame cut somewhere, as a snap length does.
func cut(r *rand.Rand, frames [][]byte) [][]byte {
	out := make([][]byte, len(frames))
	for i, f := range frames {
		out[i] = f[:1+r.IntN(min(len(f), 120))]
	}
	return out
}
