// Package capture copies what the switch shows to observers and writes it as
// pcapng, each packet with the decision about it as its comment:
//
//	loops ──Observe──> Ring ──Poll──> Record ──Expand──> Packet ──> Writer ──> pcapng
//	        never waits     one reader         in, and each copy out
//
//	interface  h128/c1    one a source, added when it first has a packet: a port of the
//	                      switch, what a tunnel refused, an interface of the host
//	packet     time (ns), direction, octets, comment, how many were lost before it
//	comment    flood blue unknown_unicast → c2,c3
//
// A Source puts packets of an interface of the host into the same ring. They come
// later than the switch's own, so a Stream of both holds packets back and sorts.
//
// Package record writes what comes out into files.
//
// # Ownership
//
// Observe copies. A Record refers to the ring's memory until the next Poll, a
// Packet to its Expander's until the next one.
//
// # Concurrency
//
// Any number of goroutines call Observe, and one reads. When the reader is
// slow the ring fills, and what does not fit is counted by port: a loop never
// waits. Writer and Expander belong to one goroutine each.
//
// # Standards
//
// draft-ietf-opsawg-pcapng: section header, interface description, enhanced
// packet and interface statistics blocks; if_tsresol 9, epb_flags,
// epb_dropcount, opt_comment, isb_ifrecv, isb_ifdrop.
package capture
