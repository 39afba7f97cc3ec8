package dissect

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

const (
	maxNested     = 4 // frames in frames
	maxExtensions = 8 // IPv6 extension headers in one packet
)

// UDP ports whose payload Whole looks into (IANA service names).
const (
	portDNS   = 53
	portMDNS  = 5353
	portDHCP  = 67
	portDHCPc = 68
	portVXLAN = 4789
)

// Whole describes one frame like Line, and what it carries: inner frames of
// VXLAN, what stands behind IPv6 extension headers, questions of DNS, messages
// of DHCP. data may be the frame's first octets only.
func (d *Dissector) Whole(data []byte) string {
	var b strings.Builder
	for depth := 0; ; depth++ {
		b.WriteString(d.Line(data))
		payload, ok := d.udpPayload(&b)
		if !ok {
			break
		}
		inner := application(&b, uint16(d.udp.SrcPort), uint16(d.udp.DstPort), payload)
		if inner == nil || depth == maxNested {
			break
		}
		b.WriteString(" | ")
		data = inner
	}
	return b.String()
}

// udpPayload is what the UDP datagram of the last Line holds. It goes past
// IPv6 extension headers and describes what it finds there.
func (d *Dissector) udpPayload(b *strings.Builder) (payload []byte, ok bool) {
	if len(d.decoded) == 0 {
		return nil, false
	}
	switch d.decoded[len(d.decoded)-1] {
	case layers.LayerTypeUDP:
		return d.udp.Payload, d.whole()
	case layers.LayerTypeIPv6:
		return d.extensions(b)
	}
	return nil, false
}

// whole reports whether the UDP header is the first fragment's.
func (d *Dissector) whole() bool {
	for _, l := range d.decoded {
		if l == layers.LayerTypeIPv4 && d.ip4.FragOffset != 0 {
			return false
		}
	}
	return true
}

// extensions walks the headers between IPv6 and layer 4 (RFC 8200 section 4).
func (d *Dissector) extensions(b *strings.Builder) (payload []byte, ok bool) {
	next, rest := d.ip6.NextHeader, d.ip6.Payload
	if d.ip6.HopByHop != nil {
		next = d.ip6.HopByHop.NextHeader
	}
	for range maxExtensions {
		size := 8
		switch next {
		case layers.IPProtocolIPv6HopByHop, layers.IPProtocolIPv6Destination, layers.IPProtocolIPv6Routing:
			if len(rest) > 1 {
				size = 8 * (1 + int(rest[1]))
			}
		case layers.IPProtocolIPv6Fragment:
		default:
			return d.layer4(b, next, rest)
		}
		name := map[layers.IPProtocol]string{layers.IPProtocolIPv6HopByHop: "hop-by-hop options", layers.IPProtocolIPv6Destination: "destination options",
			layers.IPProtocolIPv6Routing: "routing header", layers.IPProtocolIPv6Fragment: "fragment"}[next]
		if len(rest) < size {
			fmt.Fprintf(b, " %s …", name)
			return nil, false
		}
		fmt.Fprintf(b, " %s", name)
		if next == layers.IPProtocolIPv6Fragment {
			at := binary.BigEndian.Uint16(rest[2:]) &^ 7
			fmt.Fprintf(b, " at %d", at)
			if at != 0 {
				return nil, false
			}
		}
		next, rest = layers.IPProtocol(rest[0]), rest[size:]
	}
	return nil, false
}

// layer4 describes what stands behind the last extension header.
func (d *Dissector) layer4(b *strings.Builder, next layers.IPProtocol, data []byte) (payload []byte, ok bool) {
	var layer gopacket.DecodingLayer
	var of gopacket.LayerType
	switch next {
	case layers.IPProtocolTCP:
		layer, of = &d.tcp, layers.LayerTypeTCP
	case layers.IPProtocolUDP:
		layer, of = &d.udp, layers.LayerTypeUDP
	case layers.IPProtocolICMPv6:
		layer, of = &d.icmp6, layers.LayerTypeICMPv6
	default:
		fmt.Fprintf(b, " protocol %d", next)
		return nil, false
	}
	if err := layer.DecodeFromBytes(data, gopacket.NilDecodeFeedback); err != nil {
		b.WriteString(" …")
		return nil, false
	}
	d.layer(b, of)
	return d.udp.Payload, of == layers.LayerTypeUDP
}

// application describes a UDP payload and returns the frame inside, if it holds one.
func application(b *strings.Builder, src, dst uint16, p []byte) (inner []byte) {
	is := func(port uint16) bool { return src == port || dst == port }
	switch {
	case dst == portVXLAN:
		if len(p) < 8 {
			b.WriteString(" VXLAN …")
			return nil
		}
		fmt.Fprintf(b, " VXLAN VNI %d", binary.BigEndian.Uint32(p[4:])>>8)
		return p[8:]
	case is(portDNS), is(portMDNS):
		dns(b, p)
	case is(portDHCP) || is(portDHCPc):
		dhcp(b, p)
	}
	return nil
}

// dns describes the first question of a message (RFC 1035 section 4.1).
func dns(b *strings.Builder, p []byte) {
	const header = 12
	if len(p) < header {
		b.WriteString(" DNS …")
		return
	}
	be := binary.BigEndian
	flags, questions, answers := be.Uint16(p[2:]), be.Uint16(p[4:]), be.Uint16(p[6:])
	if flags&0x8000 == 0 {
		b.WriteString(" DNS query")
	} else {
		fmt.Fprintf(b, " DNS answer %s", dnsCode(flags&15, answers))
	}
	if questions == 0 {
		return
	}
	name, rest, ok := dnsName(p[header:])
	if !ok || len(rest) < 4 {
		b.WriteString(" …")
		return
	}
	kind := be.Uint16(rest)
	word, known := map[uint16]string{1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 65: "HTTPS", 255: "ANY"}[kind]
	if !known {
		word = fmt.Sprintf("type %d", kind)
	}
	fmt.Fprintf(b, " %s %s", word, name)
}

// dnsCode says how a question was answered (RFC 1035 section 4.1.1).
func dnsCode(code, answers uint16) string {
	switch code {
	case 0:
		return fmt.Sprintf("%d records", answers)
	case 2:
		return "server failure"
	case 3:
		return "no such name"
	case 5:
		return "refused"
	}
	return fmt.Sprintf("error %d", code)
}

// dnsName reads labels; the first name of a message is never compressed.
func dnsName(p []byte) (name string, rest []byte, ok bool) {
	var b strings.Builder
	for len(p) > 0 {
		n := int(p[0])
		switch {
		case n == 0:
			if b.Len() == 0 {
				b.WriteByte('.')
			}
			return b.String(), p[1:], true
		case n > 63 || len(p) <= n || b.Len() > 255*4:
			return "", nil, false
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(printable(p[1 : 1+n]))
		p = p[1+n:]
	}
	return "", nil, false
}

// dhcp describes a message by its type, address and host name (RFC 2131
// section 2, RFC 2132).
func dhcp(b *strings.Builder, p []byte) {
	const fixed, cookie = 240, 0x63825363
	if len(p) < fixed || binary.BigEndian.Uint32(p[236:]) != cookie {
		b.WriteString(" DHCP …")
		return
	}
	const optAddress, optHost, optType = 50, 12, 53
	options := map[byte][]byte{}
	for o := p[fixed:]; len(o) > 1 && o[0] != 255; {
		if o[0] == 0 {
			o = o[1:]
			continue
		}
		n := int(o[1])
		if len(o) < 2+n {
			break
		}
		options[o[0]] = o[2 : 2+n]
		o = o[2+n:]
	}
	kind := "message"
	if t := options[optType]; len(t) == 1 && t[0] >= 1 && t[0] <= 8 {
		kind = [...]string{"discover", "offer", "request", "decline", "ack", "nak", "release", "inform"}[t[0]-1]
	}
	fmt.Fprintf(b, " DHCP %s", kind)
	if a := netip.AddrFrom4([4]byte(p[16:20])); !a.IsUnspecified() {
		fmt.Fprintf(b, " %s", a)
	} else if a, ok := netip.AddrFromSlice(options[optAddress]); ok {
		fmt.Fprintf(b, " for %s", a)
	}
	if h := options[optHost]; len(h) > 0 {
		fmt.Fprintf(b, " host %s", printable(h))
	}
}

// printable escapes everything but printable ASCII.
func printable(p []byte) string {
	var b strings.Builder
	for _, c := range p {
		if c > ' ' && c < 0x7f && c != '\\' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
