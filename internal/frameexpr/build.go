package frameexpr

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// localExperimental is an EtherType for local use (IEEE 802, clause 9.2.4).
const localExperimental = layers.EthernetType(0x88b5)

// build writes the frame with lengths and checksums, and fill octets of payload
// in an IP packet. It puts the Ethernet
// header in front itself: gopacket would pad short frames, which a TAP does not.
func build(r *request, fill int) ([]byte, error) {
	upper, typ := payload(r)
	upper = append(upper, gopacket.Payload(make([]byte, fill)))
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, upper...); err != nil {
		return nil, fmt.Errorf("build frame: %w", err)
	}
	b := append(r.to[:], r.from[:]...)
	for _, t := range r.tags {
		b = binary.BigEndian.AppendUint16(b, uint16(t.TPID))
		b = binary.BigEndian.AppendUint16(b, t.TCI)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(typ))
	return append(b, buf.Bytes()...), nil
}

// payload is what the Ethernet header carries, and its type.
func payload(r *request) ([]gopacket.SerializableLayer, layers.EthernetType) {
	switch r.kind {
	case "arp":
		src, dst, op := r.src.As4(), r.dst.As4(), uint16(layers.ARPRequest)
		if r.reply {
			op = layers.ARPReply
		}
		return []gopacket.SerializableLayer{&layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4,
			HwAddressSize: 6, ProtAddressSize: 4, Operation: op,
			SourceHwAddress: r.from[:], SourceProtAddress: src[:], DstHwAddress: make([]byte, 6), DstProtAddress: dst[:]}}, layers.EthernetTypeARP
	case "broadcast":
		return nil, localExperimental
	}
	var ip gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	proto, typ := protocol(r), layers.EthernetTypeIPv4
	if src, dst := net.IP(r.src.AsSlice()), net.IP(r.dst.AsSlice()); r.dst.Is4() {
		h := &layers.IPv4{Version: 4, TTL: r.ttl, TOS: r.tos, Protocol: proto, SrcIP: src, DstIP: dst}
		if !r.mayFragment {
			h.Flags = layers.IPv4DontFragment
		}
		ip, network = h, h
	} else {
		h := &layers.IPv6{Version: 6, HopLimit: r.ttl, TrafficClass: r.tos, NextHeader: proto, SrcIP: src, DstIP: dst}
		ip, network, typ = h, h, layers.EthernetTypeIPv6
	}
	return append([]gopacket.SerializableLayer{ip}, transport(r, network)...), typ
}

func protocol(r *request) layers.IPProtocol {
	switch {
	case r.kind == "udp":
		return layers.IPProtocolUDP
	case r.kind == "tcp":
		return layers.IPProtocolTCP
	case r.kind == "ip6":
		return layers.IPProtocolNoNextHeader
	case r.dst.Is4():
		return layers.IPProtocolICMPv4
	}
	return layers.IPProtocolICMPv6
}

func transport(r *request, ip gopacket.NetworkLayer) []gopacket.SerializableLayer {
	switch protocol(r) {
	case layers.IPProtocolUDP:
		u := &layers.UDP{SrcPort: layers.UDPPort(r.sport), DstPort: layers.UDPPort(r.dport)}
		_ = u.SetNetworkLayerForChecksum(ip) // fails for layers that are not IP only
		return []gopacket.SerializableLayer{u}
	case layers.IPProtocolTCP:
		flags := r.flags
		switch {
		case flags == "" && r.Segment > 0:
			flags = "."
		case flags == "":
			flags = "S"
		}
		has := func(flag string) bool { return strings.Contains(flags, flag) }
		t := &layers.TCP{
			SrcPort: layers.TCPPort(r.sport), DstPort: layers.TCPPort(r.dport), Window: 65535,
			SYN: has("S"), FIN: has("F"), RST: has("R"), PSH: has("P"), URG: has("U"), ECE: has("E"), CWR: has("W"), ACK: has("."),
		}
		_ = t.SetNetworkLayerForChecksum(ip)
		return []gopacket.SerializableLayer{t}
	case layers.IPProtocolICMPv4:
		return []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 1, Seq: 1}}
	case layers.IPProtocolICMPv6:
		i := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
		_ = i.SetNetworkLayerForChecksum(ip)
		return []gopacket.SerializableLayer{i, &layers.ICMPv6Echo{Identifier: 1, SeqNumber: 1}}
	}
	return nil
}
