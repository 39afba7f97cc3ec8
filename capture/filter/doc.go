// Package filter compiles the expressions of tcpdump, as pcap-filter(7)
// describes them, for Ethernet frames whose VLAN tags stand in the frame:
//
//	text ──package syntax──> tree ──lower──> conditions over loads ──emit──> classic BPF
//
//	tcp port 443 and not host 10.1.0.2
//	vlan 10 and icmp[icmptype] == icmp-echo
//	vxlan 10010 and arp
//
// # Meaning
//
// It is tcpdump's, down to its peculiarities: `and` and `or` bind equally and
// from the left; `vlan` moves the offsets of everything to the right of it,
// even inside `not` and `or`; tcp[…], udp[…] and icmp[…] look at unfragmented
// IPv4 only; IPv6 extension headers are not followed, but one fragment header
// is; reading beyond the end of the frame makes the whole expression false.
// Names of hosts and networks are not looked up; those of ports stand in a table of
// our own, which is the same on every host.
//
// `vxlan [VNI]` matches UDP port 4789 with the I flag set, and everything to
// the right of it looks at the inner frame; where it did not match, at the outer one.
//
// # Bounds
//
// An expression has at most MaxLen octets and MaxDepth nested parentheses and
// signs; a program has at most MaxInstructions and only jumps forward, so that
// its run time is bounded by its length.
//
// # Concurrency
//
// A Program is immutable.
//
// # Standards
//
// pcap-filter(7) of libpcap 1.10; RFC 7348 section 5 for vxlan.
package filter
