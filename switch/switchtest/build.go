package switchtest

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Station is one end of a conversation. Its address decides between IPv4 and
// IPv6; Port is used by UDP and TCP alone.
type Station struct {
	MAC  frame.MAC
	Addr netip.Addr
	Port uint16
}

// Station4 is the station numbered n: 02:00:00:00:00:n, 10.1.0.n, port 5000+n.
func Station4(n byte) Station {
	return Station{
		MAC:  frame.MAC{2, 0, 0, 0, 0, n},
		Addr: netip.AddrFrom4([4]byte{10, 1, 0, n}),
		Port: 5000 + uint16(n),
	}
}

// Station6 is Station4 at fd00::n.
func Station6(n byte) Station {
	s := Station4(n)
	s.Addr = netip.AddrFrom16([16]byte{0: 0xfd, 15: n})
	return s
}

// Segment is what sets one TCP segment apart from the next.
type Segment struct {
	Seq, Ack           uint32
	SYN, FIN, RST, PSH bool
	CWR                bool
}

// EthFrame is a frame of any EtherType, without padding.
func EthFrame(dst, src frame.MAC, t frame.EtherType, payload []byte) []byte {
	b := make([]byte, 0, frame.HeaderLen+len(payload))
	b = append(append(b, dst[:]...), src[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(t))
	return append(b, payload...)
}

// UDPFrame is one UDP datagram from src to dst.
func UDPFrame(src, dst Station, payload []byte) []byte {
	udp := &layers.UDP{SrcPort: layers.UDPPort(src.Port), DstPort: layers.UDPPort(dst.Port)}
	ip := ipLayer(src, dst, layers.IPProtocolUDP)
	udp.SetNetworkLayerForChecksum(ip)
	return serialize(ethLayer(src.MAC, dst), ip.(gopacket.SerializableLayer), udp, gopacket.Payload(payload))
}

// TCPFrame is one TCP segment from src to dst, ACK set, without options.
func TCPFrame(src, dst Station, s Segment, payload []byte) []byte {
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(src.Port), DstPort: layers.TCPPort(dst.Port),
		Seq: s.Seq, Ack: s.Ack, ACK: true, SYN: s.SYN, FIN: s.FIN, RST: s.RST, PSH: s.PSH, CWR: s.CWR,
		Window: 65535,
	}
	ip := ipLayer(src, dst, layers.IPProtocolTCP)
	tcp.SetNetworkLayerForChecksum(ip)
	return serialize(ethLayer(src.MAC, dst), ip.(gopacket.SerializableLayer), tcp, gopacket.Payload(payload))
}

// EchoFrame is an ICMP or ICMPv6 echo request.
func EchoFrame(src, dst Station, id, seq uint16, payload []byte) []byte {
	eth := ethLayer(src.MAC, dst)
	if src.Addr.Is4() {
		ip := ipLayer(src, dst, layers.IPProtocolICMPv4)
		icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: id, Seq: seq}
		return serialize(eth, ip.(gopacket.SerializableLayer), icmp, gopacket.Payload(payload))
	}
	echo := &layers.ICMPv6Echo{Identifier: id, SeqNumber: seq}
	return icmp6(eth, src, dst, layers.ICMPv6TypeEchoRequest, echo, gopacket.Payload(payload))
}

// ARPFrame is src asking everybody who has addr (RFC 826).
func ARPFrame(src Station, addr netip.Addr) []byte {
	return arp(src, Station{MAC: frame.Broadcast, Addr: addr}, layers.ARPRequest)
}

// ARPReply is src telling dst its address.
func ARPReply(src, dst Station) []byte { return arp(src, dst, layers.ARPReply) }

func arp(src, dst Station, op uint16) []byte {
	target := dst.MAC
	if op == layers.ARPRequest {
		target = frame.MAC{}
	}
	eth := &layers.Ethernet{SrcMAC: src.MAC[:], DstMAC: dst.MAC[:], EthernetType: layers.EthernetTypeARP}
	return serialize(eth, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: op, SourceHwAddress: src.MAC[:], SourceProtAddress: src.Addr.AsSlice(),
		DstHwAddress: target[:], DstProtAddress: dst.Addr.AsSlice(),
	})
}

// NeighbourSolicitation is src asking addr's solicited-node group (RFC 4861
// clause 4.3).
func NeighbourSolicitation(src Station, addr netip.Addr) []byte {
	a := addr.As16()
	group := [16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]}
	dst := Station{MAC: frame.MAC{0x33, 0x33, 0xff, a[13], a[14], a[15]}, Addr: netip.AddrFrom16(group)}
	ns := &layers.ICMPv6NeighborSolicitation{
		TargetAddress: addr.AsSlice(),
		Options:       layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: src.MAC[:]}},
	}
	return icmp6(ethLayer(src.MAC, dst), src, dst, layers.ICMPv6TypeNeighborSolicitation, ns)
}

// NeighbourAdvertisement is src answering dst (RFC 4861 clause 4.4).
func NeighbourAdvertisement(src, dst Station) []byte {
	na := &layers.ICMPv6NeighborAdvertisement{
		Flags: 0x60, TargetAddress: src.Addr.AsSlice(),
		Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: src.MAC[:]}},
	}
	return icmp6(ethLayer(src.MAC, dst), src, dst, layers.ICMPv6TypeNeighborAdvertisement, na)
}

// BPDU is a spanning tree configuration message of src, to 01:80:C2:00:00:00
// (IEEE 802.1Q clause 14.4).
func BPDU(src frame.MAC) []byte {
	payload := make([]byte, 3+35)
	copy(payload, []byte{0x42, 0x42, 0x03}) // LLC of the spanning tree
	payload[3+5] = 0x80                     // root: priority 32768
	copy(payload[3+7:], src[:])
	payload[3+17] = 0x80 // bridge: the same
	copy(payload[3+19:], src[:])
	return EthFrame(frame.MAC{0x01, 0x80, 0xc2, 0, 0, 0}, src, frame.EtherType(len(payload)), payload)
}

// LLDP is src's announcement of itself to 01:80:C2:00:00:0E (IEEE 802.1AB
// clause 8: chassis, port, time to live, end).
func LLDP(src frame.MAC) []byte {
	payload := append([]byte{0x02, 0x07, 0x04}, src[:]...)
	payload = append(payload, 0x04, 0x07, 0x03)
	payload = append(payload, src[:]...)
	payload = append(payload, 0x06, 0x02, 0, 120, 0, 0)
	return EthFrame(frame.MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e}, src, 0x88cc, payload)
}

// Tagged is f with an 802.1Q tag in front of what it has.
func Tagged(vid frame.VID, pcp frame.PCP, f []byte) []byte {
	return insert(f, frame.MakeTag(vid, pcp, false))
}

// STagged is f with an 802.1ad service tag in front of what it has.
func STagged(vid frame.VID, pcp frame.PCP, f []byte) []byte {
	t := frame.MakeTag(vid, pcp, false)
	t.TPID = frame.EtherTypeSTag
	return insert(f, t)
}

// Padded is f filled with zeros up to the least length on a wire, 60 octets
// without FCS (IEEE 802.3 clause 4.2.3.3).
func Padded(f []byte) []byte {
	if len(f) >= 60 {
		return f
	}
	return append(f[:len(f):len(f)], make([]byte, 60-len(f))...)
}

func insert(f []byte, t frame.Tag) []byte {
	b := make([]byte, 0, len(f)+frame.TagLen)
	b = append(b, f[:12]...)
	b = binary.BigEndian.AppendUint16(b, uint16(t.TPID))
	b = binary.BigEndian.AppendUint16(b, t.TCI)
	return append(b, f[12:]...)
}

// Partial is the UDP or TCP frame f as a sender leaves it to hardware: its
// checksum field holds the pseudo-header's sum and the metadata say so. It
// panics when f is neither.
func Partial(f []byte) frame.Frame {
	l, err := parse(f)
	if err != nil || l.csum() < 0 {
		panic("switchtest.Partial: not a UDP or TCP frame")
	}
	data := append([]byte(nil), f...)
	binary.BigEndian.PutUint16(data[l.l4+l.csum():], fold(l.pseudo(data)))
	return frame.Frame{Data: data, GSO: frame.GSO{
		NeedsCsum: true, CsumStart: uint16(l.l4), CsumOffset: uint16(l.csum()),
	}}
}

// Super is the UDP or TCP frame f as a GSO frame that is to be cut every size
// octets of payload. It panics when f is neither.
func Super(f []byte, size int) frame.Frame {
	s := Partial(f)
	l, _ := parse(f)
	s.GSO.HdrLen, s.GSO.Size = uint16(l.payload), uint16(size)
	switch {
	case l.proto == protoUDP:
		s.GSO.Type = frame.GSOUDP
	case l.v6:
		s.GSO.Type = frame.GSOTCPv6
	default:
		s.GSO.Type = frame.GSOTCPv4
	}
	return s
}

// Pattern is n octets that repeat after no multiple of 2, so that a piece out
// of place is seen.
func Pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i%251) ^ byte(i/251)
	}
	return b
}

func ethLayer(src frame.MAC, dst Station) *layers.Ethernet {
	t := layers.EthernetTypeIPv4
	if dst.Addr.Is6() {
		t = layers.EthernetTypeIPv6
	}
	return &layers.Ethernet{SrcMAC: net.HardwareAddr(src[:]), DstMAC: net.HardwareAddr(dst.MAC[:]), EthernetType: t}
}

func ipLayer(src, dst Station, proto layers.IPProtocol) gopacket.NetworkLayer {
	if src.Addr.Is4() {
		return &layers.IPv4{
			Version: 4, TTL: 64, Flags: layers.IPv4DontFragment, Protocol: proto,
			SrcIP: src.Addr.AsSlice(), DstIP: dst.Addr.AsSlice(),
		}
	}
	return &layers.IPv6{
		Version: 6, HopLimit: 255, NextHeader: proto, SrcIP: src.Addr.AsSlice(), DstIP: dst.Addr.AsSlice(),
	}
}

func icmp6(eth *layers.Ethernet, src, dst Station, kind uint8, body ...gopacket.SerializableLayer) []byte {
	ip := ipLayer(src, dst, layers.IPProtocolICMPv6)
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
	icmp.SetNetworkLayerForChecksum(ip)
	return serialize(eth, append([]gopacket.SerializableLayer{ip.(gopacket.SerializableLayer), icmp}, body...)...)
}

// serialize panics on what can only be a mistake in a test's arguments, such as
// an IPv4 source with an IPv6 destination. The padding that gopacket adds to an
// Ethernet frame is left out, because virtual ports do not pad.
func serialize(eth gopacket.SerializableLayer, rest ...gopacket.SerializableLayer) []byte {
	o := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	upper := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(upper, o, rest...); err != nil {
		panic("switchtest: build frame: " + err.Error())
	}
	head := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(head, gopacket.SerializeOptions{}, eth); err != nil {
		panic("switchtest: build frame: " + err.Error())
	}
	return append(append([]byte(nil), head.Bytes()[:frame.HeaderLen]...), upper.Bytes()...)
}
