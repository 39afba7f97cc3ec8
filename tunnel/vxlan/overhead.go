package vxlan

import "github.com/tapestry-net/tapestry/switch/frame"

// Lengths in octets of what stands in front of the inner frame.
const (
	ipv4Len = 20 // RFC 791, no options
	ipv6Len = 40 // RFC 8200, no extension headers
	udpLen  = 8  // RFC 768

	// dtlsLen is a DTLS 1.2 record with AES-GCM: header 13, explicit nonce 8,
	// authentication tag 16 (RFC 6347 clause 4.1, RFC 5288 clause 3).
	dtlsLen = 13 + 8 + 16
)

// Link is what an underlay adds to each inner frame.
type Link struct {
	IPv6 bool // outer IPv6 instead of IPv4
	DTLS bool // each datagram is one DTLS record
}

// Header is how many octets stand between the start of the outer IP header and
// the inner frame, and, with DTLS, behind it.
func (l Link) Header() int {
	n := ipv4Len + udpLen + HeaderLen
	if l.IPv6 {
		n += ipv6Len - ipv4Len
	}
	if l.DTLS {
		n += dtlsLen
	}
	return n
}

// Overhead is the difference between the underlay's MTU and the inner MTU in
// octets: Header and the inner Ethernet header. 50 over IPv4, 70 over IPv6, 37
// more with DTLS.
func (l Link) Overhead() int { return l.Header() + frame.HeaderLen }

// InnerMTU is the largest inner packet (what follows the Ethernet header) that
// crosses an underlay of that MTU in one piece; 0 when none does. A tag carried
// inside takes frame.TagLen octets of it.
func (l Link) InnerMTU(underlay int) int { return max(underlay-l.Overhead(), 0) }

// UnderlayMTU is the underlay MTU that inner packets of that size need.
func (l Link) UnderlayMTU(inner int) int { return inner + l.Overhead() }
