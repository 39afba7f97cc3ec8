package dissect

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/tapestry-net/tapestry/switch/frame"
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
	tags := 0
	for i, l := range d.decoded {
		switch {
		case l == layers.LayerTypeDot1Q:
			d.tagLine(&b, data[frame.HeaderLen+frame.TagLen*tags:])
			tags++
		case slices.Contains(d.decoded[i+1:], l): // its layer holds the inner one
			fmt.Fprintf(&b, " outer %s", l)
		default:
			d.layer(&b, l)
		}
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

// tagLine describes the tag whose TCI p begins with. A second tag overwrites the
// layer of the first, so it is read from its octets.
func (d *Dissector) tagLine(b *strings.Builder, p []byte) {
	tci := binary.BigEndian.Uint16(p)
	fmt.Fprintf(b, " vlan %d", tci&0xfff)
	if pcp := tci >> 13; pcp != 0 {
		fmt.Fprintf(b, " pcp %d", pcp)
	}
	d.etherType(b, layers.EthernetType(binary.BigEndian.Uint16(p[2:])), 0)
}

func (d *Dissector) layer(b *strings.Builder, l gopacket.LayerType) {
	switch l {
	case layers.LayerTypeEthernet:
		fmt.Fprintf(b, "%s > %s", d.eth.SrcMAC, d.eth.DstMAC)
		d.etherType(b, d.eth.EthernetType, d.eth.Length)
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
		d.tcpLine(b)
	case layers.LayerTypeUDP:
		fmt.Fprintf(b, " UDP %d > %d length %d", d.udp.SrcPort, d.udp.DstPort, max(int(d.udp.Length)-8, 0))
	case layers.LayerTypeICMPv4:
		d.icmp4Line(b)
	case layers.LayerTypeICMPv6:
		d.icmp6Line(b)
	}
}

func (d *Dissector) etherType(b *strings.Builder, t layers.EthernetType, length uint16) {
	switch t {
	case layers.EthernetTypeARP, layers.EthernetTypeIPv4, layers.EthernetTypeIPv6, layers.EthernetTypeDot1Q:
	case layers.EthernetTypeQinQ:
		b.WriteString(" 802.1ad")
	case layers.EthernetTypeLLC:
		d.llcLine(b, length)
	case layers.EthernetTypeLinkLayerDiscovery:
		b.WriteString(" LLDP")
	default:
		fmt.Fprintf(b, " type 0x%04x", uint16(t))
	}
}

// llcLine describes an 802.3 frame: of what stands in LLC only spanning tree is
// common on a bridge (IEEE 802.1Q clause 8.13.3).
func (d *Dissector) llcLine(b *strings.Builder, length uint16) {
	if p := d.eth.Payload; len(p) >= 3 && p[0] == 0x42 && p[1] == 0x42 && p[2] == 3 {
		b.WriteString(" STP")
		return
	}
	fmt.Fprintf(b, " 802.3 length %d", length)
}

func (d *Dissector) arpLine(b *strings.Builder) {
	target, okT := netip.AddrFromSlice(d.arp.DstProtAddress)
	sender, okS := netip.AddrFromSlice(d.arp.SourceProtAddress)
	switch {
	case !okT || !okS:
		fmt.Fprintf(b, " ARP operation %d", d.arp.Operation)
	case d.arp.Operation == layers.ARPRequest && target == sender:
		fmt.Fprintf(b, " ARP announce %s", sender)
	case d.arp.Operation == layers.ARPRequest && sender.IsUnspecified():
		fmt.Fprintf(b, " ARP probe %s", target) // RFC 5227 clause 1.1
	case d.arp.Operation == layers.ARPRequest:
		fmt.Fprintf(b, " ARP who-has %s tell %s", target, sender)
	case d.arp.Operation == layers.ARPReply && len(d.arp.SourceHwAddress) == 6:
		fmt.Fprintf(b, " ARP %s is-at %s", sender, net.HardwareAddr(d.arp.SourceHwAddress))
	default:
		fmt.Fprintf(b, " ARP operation %d", d.arp.Operation)
	}
}

// tcpLine shows the acknowledgement where there is one, and how much payload the
// IP header says there is, however little of it was kept.
func (d *Dissector) tcpLine(b *strings.Builder) {
	t := &d.tcp
	fmt.Fprintf(b, " TCP %d > %d %s seq %d", t.SrcPort, t.DstPort, tcpFlags(t), t.Seq)
	if t.ACK {
		fmt.Fprintf(b, " ack %d", t.Ack)
	}
	n := 0
	switch {
	case slices.Contains(d.decoded, layers.LayerTypeIPv4):
		n = int(d.ip4.Length) - int(d.ip4.IHL)*4 - int(t.DataOffset)*4
	case slices.Contains(d.decoded, layers.LayerTypeIPv6) && d.ip6.NextHeader == layers.IPProtocolTCP:
		n = int(d.ip6.Length) - int(t.DataOffset)*4
	}
	if n > 0 {
		fmt.Fprintf(b, " length %d", n)
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
