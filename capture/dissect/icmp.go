package dissect

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/gopacket/layers"
)

// unreachable4 are the codes of ICMP destination unreachable that a container
// network brings about (RFC 792, RFC 1812 clause 5.2.7.1).
var unreachable4 = map[uint8]string{
	0: "network", 1: "host", 2: "protocol", 3: "port", 9: "network, prohibited", 10: "host, prohibited", 13: "prohibited by a filter",
}

// unreachable6 are those of ICMPv6 (RFC 4443 clause 3.1).
var unreachable6 = map[uint8]string{
	0: "no route", 1: "prohibited by a filter", 2: "beyond scope", 3: "address", 4: "port", 5: "source address, by policy", 6: "route rejected",
}

func (d *Dissector) icmp4Line(b *strings.Builder) {
	c, rest := d.icmp4.TypeCode, d.icmp4.Payload
	switch c.Type() {
	case layers.ICMPv4TypeEchoRequest, layers.ICMPv4TypeEchoReply:
		word := "request"
		if c.Type() == layers.ICMPv4TypeEchoReply {
			word = "reply"
		}
		fmt.Fprintf(b, " ICMP echo %s id %d seq %d", word, d.icmp4.Id, d.icmp4.Seq)
	case layers.ICMPv4TypeDestinationUnreachable:
		if c.Code() == layers.ICMPv4CodeFragmentationNeeded {
			fmt.Fprintf(b, " ICMP fragmentation needed, MTU %d", d.icmp4.Seq) // RFC 1191 clause 4
		} else {
			fmt.Fprintf(b, " ICMP unreachable: %s", named(unreachable4, c.Code()))
		}
		about4(b, rest)
	case layers.ICMPv4TypeTimeExceeded:
		b.WriteString(" ICMP time exceeded")
		about4(b, rest)
	case layers.ICMPv4TypeRedirect:
		b.WriteString(" ICMP redirect")
		about4(b, rest)
	default:
		fmt.Fprintf(b, " ICMP type %d code %d", c.Type(), c.Code())
	}
}

func (d *Dissector) icmp6Line(b *strings.Builder) {
	c, rest := d.icmp6.TypeCode, d.icmp6.Payload // behind type, code and checksum
	word := func(n int) (w uint32) {
		if len(rest) >= n+4 {
			w = binary.BigEndian.Uint32(rest[n:])
		}
		return w
	}
	switch c.Type() {
	case layers.ICMPv6TypeEchoRequest:
		fmt.Fprintf(b, " ICMPv6 echo request id %d seq %d", word(0)>>16, word(0)&0xffff)
	case layers.ICMPv6TypeEchoReply:
		fmt.Fprintf(b, " ICMPv6 echo reply id %d seq %d", word(0)>>16, word(0)&0xffff)
	case layers.ICMPv6TypeNeighborSolicitation:
		b.WriteString(" ICMPv6 neighbour solicitation")
		target(b, " who-has ", rest)
	case layers.ICMPv6TypeNeighborAdvertisement:
		b.WriteString(" ICMPv6 neighbour advertisement")
		target(b, " of ", rest)
	case layers.ICMPv6TypeRouterSolicitation:
		b.WriteString(" ICMPv6 router solicitation")
	case layers.ICMPv6TypeRouterAdvertisement:
		fmt.Fprintf(b, " ICMPv6 router advertisement, lifetime %d s", word(0)&0xffff)
	case layers.ICMPv6TypePacketTooBig:
		fmt.Fprintf(b, " ICMPv6 packet too big, MTU %d", word(0))
		about6(b, rest)
	case layers.ICMPv6TypeDestinationUnreachable:
		fmt.Fprintf(b, " ICMPv6 unreachable: %s", named(unreachable6, c.Code()))
		about6(b, rest)
	case layers.ICMPv6TypeTimeExceeded:
		b.WriteString(" ICMPv6 time exceeded")
		about6(b, rest)
	case layers.ICMPv6TypeMLDv1MulticastListenerQueryMessage:
		b.WriteString(" ICMPv6 multicast listener query")
	case layers.ICMPv6TypeMLDv1MulticastListenerReportMessage, layers.ICMPv6TypeMLDv2MulticastListenerReportMessageV2:
		b.WriteString(" ICMPv6 multicast listener report")
	case layers.ICMPv6TypeMLDv1MulticastListenerDoneMessage:
		b.WriteString(" ICMPv6 multicast listener done")
	default:
		fmt.Fprintf(b, " ICMPv6 type %d code %d", c.Type(), c.Code())
	}
}

func named(words map[uint8]string, code uint8) string {
	if w, ok := words[code]; ok {
		return w
	}
	return fmt.Sprintf("code %d", code)
}

// target writes the address that a neighbour message is about (RFC 4861 clauses
// 4.3 and 4.4), and the station where it is an option's.
func target(b *strings.Builder, word string, p []byte) {
	const at, options = 4, 20
	if len(p) < options {
		return
	}
	fmt.Fprintf(b, "%s%s", word, netip.AddrFrom16([16]byte(p[at:])))
	const linkLayer = 2 // target link-layer address
	if o := p[options:]; len(o) >= 8 && o[0] == linkLayer && o[1] == 1 {
		fmt.Fprintf(b, " is-at %02x:%02x:%02x:%02x:%02x:%02x", o[2], o[3], o[4], o[5], o[6], o[7])
	}
}

// about4 names the packet that an ICMP error quotes.
func about4(b *strings.Builder, p []byte) {
	if len(p) >= 20 && p[0]>>4 == 4 {
		fmt.Fprintf(b, ", about %s > %s", netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:])))
	}
}

// about6 is about4 for ICMPv6, behind the four octets that only some errors use.
func about6(b *strings.Builder, p []byte) {
	if len(p) >= 44 && p[4]>>4 == 6 {
		p = p[4:]
		fmt.Fprintf(b, ", about %s > %s", netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:])))
	}
}
