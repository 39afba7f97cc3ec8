// Package trace follows one marked packet: it builds the probe, knows it and its
// answer wherever they are seen, and puts what several hosts saw into one order.
//
//	             ┌ switch ── Watcher ──┐
//	probe ──> path ── kernel interfaces ┼─> Event ── Account of a host ─┐
//	                                    │                               ├─> Merge ─> Hop, Hop, Hop …
//	another host: ask ──────────────────┴─> Event ── Account (tell) ────┘
//
// # The mark
//
// A probe's trace ID is in everything of it that no bridge, tunnel or router
// changes:
//
//	IPv4   identification = ID mod 2^16, never 0          IPv6   flow label = ID mod 2^20
//	ICMP   identifier, sequence number                    UDP    source port
//	TCP    source port, sequence number                   ICMP, UDP  payload: "tapestry" ID
//
// It is recognised by these, and by addresses, protocol and ports, inside any
// VLAN tag. TTL, MAC addresses and checksums are never looked at: they are what
// changes. Where NAT has put other addresses in place the payload still tells.
// Its answer is an echo reply, a datagram back, a SYN-ACK or RST that
// acknowledges it, or an ICMP error that quotes it.
//
// # The order
//
// Clocks of hosts differ, so causes go before times: a TTL never rises on the
// way; what leaves an interface arrives at the other end later; a host that
// encapsulates is before the one that decapsulates. Times, corrected by the
// clock offset that asking showed, decide between what no cause does.
//
// # Ownership
//
// A Watcher copies what it needs of an observation. Everything else here is
// values.
//
// # Concurrency
//
// A Watcher is called by several loops and read by one goroutine. Everything
// else here is pure.
//
// # Standards
//
// RFC 791, RFC 8200 (IPv4, IPv6); RFC 792, RFC 4443 (ICMP and what its errors
// quote); RFC 768; RFC 9293; RFC 6864 (the identification of an atomic datagram
// means nothing to anybody else, so it may be the mark).
package trace
