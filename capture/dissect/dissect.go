package dissect

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Dissector decodes frames one after the other without allocating layers anew.
type Dissector struct {
	parser  *gopacket.DecodingLayerParser
	decoded []gopacket.LayerType

	eth   layers.Ethernet
	tag   layers.Dot1Q
	arp   layers.ARP
	ip4   layers.IPv4
	ip6   layers.IPv6
	tcp   layers.TCP
	udp   layers.UDP
	icmp4 layers.ICMPv4
	icmp6 layers.ICMPv6
}

// New returns a Dissector.
func New() *Dissector {
	d := &Dissector{decoded: make([]gopacket.LayerType, 0, 8)}
	d.parser = gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet,
		&d.eth, &d.tag, &d.arp, &d.ip4, &d.ip6, &d.tcp, &d.udp, &d.icmp4, &d.icmp6)
	d.parser.IgnoreUnsupported = true
	return d
}

// Line describes one frame. data may be the frame's first octets only.
func Line(data []byte) string { return New().Line(data) }

// Line describes one frame. data may be the frame's first octets only.
func (d *Dissector) Line(data []byte) string {
	d.decoded = d.decoded[:0]
	err := d.parser.DecodeLayers(data, &d.decoded)
	if len(d.decoded) == 0 {
		return fmt.Sprintf("%d octets, no Ethernet header", len(data))
	}
	var b strings.Builder
	for _, l := range d.decoded {
		d.layer(&b, l)
	}
	if err != nil {
		d.unread(&b)
	}
	return b.String()
}

// unread names the protocol whose header could not be decoded: it is malformed,
// or only partly there.
func (d *Dissector) unread(b *strings.Builder) {
	next := d.eth.EthernetType
	switch d.decoded[len(d.decoded)-1] {
	case layers.LayerTypeEthernet:
	case layers.LayerTypeDot1Q:
		next = d.tag.Type
	default:
		b.WriteString(" …")
		return
	}
	switch next {
	case layers.EthernetTypeARP:
		b.WriteString(" ARP …")
	case layers.EthernetTypeIPv4:
		b.WriteString(" IPv4 …")
	case layers.EthernetTypeIPv6:
		b.WriteString(" IPv6 …")
	case layers.EthernetTypeDot1Q:
		b.WriteString(" vlan …")
	default:
		b.WriteString(" …")
	}
}

func (d *Dissector) layer(b *strings.Builder, l gopacket.LayerType) {
	switch l {
	case layers.LayerTypeEthernet:
		fmt.Fprintf(b, "%s > %s", d.eth.SrcMAC, d.eth.DstMAC)
		d.etherType(b, d.eth.EthernetType, d.eth.Length)
	case layers.LayerTypeDot1Q:
		fmt.Fprintf(b, " vlan %d", d.tag.VLANIdentifier)
		if d.tag.Priority != 0 {
			fmt.Fprintf(b, " pcp %d", d.tag.Priority)
		}
		d.etherType(b, d.tag.Type, 0)
	case layers.LayerTypeARP:
		d.arpLine(b)
	case layers.LayerTypeIPv4:
		fmt.Fprintf(b, " IPv4 %s > %s ttl %d", d.ip4.SrcIP, d.ip4.DstIP, d.ip4.TTL)
		if d.ip4.FragOffset != 0 || d.ip4.Flags&layers.IPv4MoreFragments != 0 {
			fmt.Fprintf(b, " fragment at %d", int(d.ip4.FragOffset)*8)
		}
	case layers.LayerTypeIPv6:
		fmt.Fprintf(b, " IPv6 %s > %s hop limit %d", d.ip6.SrcIP, d.ip6.DstIP, d.ip6.HopLimit)
	case layers.LayerTypeTCP:
		fmt.Fprintf(b, " TCP %d > %d %s seq %d", d.tcp.SrcPort, d.tcp.DstPort, tcpFlags(&d.tcp), d.tcp.Seq)
	case layers.LayerTypeUDP:
		fmt.Fprintf(b, " UDP %d > %d length %d", d.udp.SrcPort, d.udp.DstPort, max(int(d.udp.Length)-8, 0))
	case layers.LayerTypeICMPv4:
		fmt.Fprintf(b, " ICMP %s", icmp4Name(d.icmp4.TypeCode))
		if t := d.icmp4.TypeCode.Type(); t == layers.ICMPv4TypeEchoRequest || t == layers.ICMPv4TypeEchoReply {
			fmt.Fprintf(b, " id %d seq %d", d.icmp4.Id, d.icmp4.Seq)
		}
	case layers.LayerTypeICMPv6:
		fmt.Fprintf(b, " ICMPv6 %s", icmp6Name(d.icmp6.TypeCode))
	}
}

func (d *Dissector) etherType(b *strings.Builder, t layers.EthernetType, length uint16) {
	switch t {
	case layers.EthernetTypeARP, layers.EthernetTypeIPv4, layers.EthernetTypeIPv6, layers.EthernetTypeDot1Q:
	case layers.EthernetTypeLLC:
		fmt.Fprintf(b, " 802.3 length %d", length)
	case layers.EthernetTypeLinkLayerDiscovery:
		b.WriteString(" LLDP")
	default:
		fmt.Fprintf(b, " type 0x%04x", uint16(t))
	}
}

func (d *Dissector) arpLine(b *strings.Builder) {
	target, okT := netip.AddrFromSlice(d.arp.DstProtAddress)
	sender, okS := netip.AddrFromSlice(d.arp.SourceProtAddress)
	switch {
	case !okT || !okS:
		fmt.Fprintf(b, " ARP operation %d", d.arp.Operation)
	case d.arp.Operation == layers.ARPRequest && target == sender:
		fmt.Fprintf(b, " ARP announce %s", sender)
	case d.arp.Operation == layers.ARPRequest:
		fmt.Fprintf(b, " ARP who-has %s tell %s", target, sender)
	case d.arp.Operation == layers.ARPReply && len(d.arp.SourceHwAddress) == 6:
		fmt.Fprintf(b, " ARP %s is-at %x", sender, d.arp.SourceHwAddress)
	default:
		fmt.Fprintf(b, " ARP operation %d", d.arp.Operation)
	}
}

func tcpFlags(t *layers.TCP) string {
	var f []string
	for _, x := range []struct {
		on   bool
		name string
	}{{t.SYN, "SYN"}, {t.FIN, "FIN"}, {t.RST, "RST"}, {t.PSH, "PSH"}, {t.ACK, "ACK"}, {t.URG, "URG"}, {t.ECE, "ECE"}, {t.CWR, "CWR"}} {
		if x.on {
			f = append(f, x.name)
		}
	}
	if f == nil {
		return "[none]"
	}
	return "[" + strings.Join(f, ",") + "]"
}

func icmp4Name(c layers.ICMPv4TypeCode) string {
	switch c.Type() {
	case layers.ICMPv4TypeEchoRequest:
		return "echo request"
	case layers.ICMPv4TypeEchoReply:
		return "echo reply"
	case layers.ICMPv4TypeDestinationUnreachable:
		if c.Code() == layers.ICMPv4CodeFragmentationNeeded {
			return "fragmentation needed"
		}
		return fmt.Sprintf("destination unreachable code %d", c.Code())
	case layers.ICMPv4TypeTimeExceeded:
		return "time exceeded"
	}
	return fmt.Sprintf("type %d code %d", c.Type(), c.Code())
}

func icmp6Name(c layers.ICMPv6TypeCode) string {
	switch c.Type() {
	case layers.ICMPv6TypeEchoRequest:
		return "echo request"
	case layers.ICMPv6TypeEchoReply:
		return "echo reply"
	case layers.ICMPv6TypeNeighborSolicitation:
		return "neighbour solicitation"
	case layers.ICMPv6TypeNeighborAdvertisement:
		return "neighbour advertisement"
	case layers.ICMPv6TypeRouterSolicitation:
		return "router solicitation"
	case layers.ICMPv6TypeRouterAdvertisement:
		return "router advertisement"
	case layers.ICMPv6TypePacketTooBig:
		return "packet too big"
	case layers.ICMPv6TypeMLDv1MulticastListenerReportMessage, layers.ICMPv6TypeMLDv2MulticastListenerReportMessageV2:
		return "multicast listener report"
	}
	return fmt.Sprintf("type %d code %d", c.Type(), c.Code())
}
