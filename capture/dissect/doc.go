// Package dissect puts a frame into one line that a newcomer can read:
//
//	02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff ARP who-has 10.1.0.3 tell 10.1.0.2
//	02:00:00:00:00:01 > 02:00:00:00:00:02 vlan 10 IPv4 10.1.0.2 > 10.1.0.3 ttl 64 ICMP echo request id 7 seq 1
//
// Only the layers listed in this package are decoded. Line stops at layer 4: in
// the worker application decoders never see a tenant's bytes. Whole, for the
// command's own process, goes on: behind IPv6 extension headers, into VXLAN, and
// to the names in DNS and DHCP. What is beyond the captured length is said to be
// truncated.
//
// # Concurrency
//
// A Dissector belongs to one goroutine; Line makes its own.
//
// # Output
//
// The line never holds a control character, whatever the frame holds: every
// field is a number or a name from a fixed list, or a name of DNS or DHCP with
// every other character escaped.
package dissect
