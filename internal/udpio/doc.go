// Package udpio moves UDP datagrams in batches: one receiving socket read with
// recvmmsg and UDP_GRO, and a pool of sending sockets written with gather lists,
// sendmmsg and UDP_SEGMENT. It knows nothing of what the datagrams carry.
//
//	Receiver   unconnected socket → Datagram{From, Data = segment · segment · …, Size, TOS, TTL}
//	Sender     Header · Payload… · End   a datagram: headers in an arena, payload in place
//	           datagrams of one size to one Dest = one message, cut by the kernel
//	           messages on one Socket            = one system call
//	Pool       256 slots, each a Socket bound to its own source port; a flow's hash picks the slot
//
// OpenReceiver and OpenSender are for the privileged process and return bare
// descriptors with all options set; NewReceiver and NewSocket take them over
// and need no privilege.
//
// # Ownership
//
// A Datagram's octets belong to the Receiver and are valid until its next
// Receive. What is given to Sender.Payload is borrowed until Flush returns.
//
// # Concurrency
//
// A Receiver and a Sender belong to one goroutine each. A Socket, a Pool and a
// Dest may be used by any number of Senders at once. No method blocks, and none
// named hot allocates, takes a lock or reads a clock.
//
// # Never a fragment
//
// Sockets set IP_MTU_DISCOVER to PROBE: every datagram leaves with DF set and
// at the full size that the egress device takes, and a larger one is refused
// with EMSGSIZE. DO would besides believe the kernel's path MTU cache: then one
// forged ICMP message shrinks the tunnel to 552 octets, and a probe that is to
// find out whether the path has grown again can't leave. The path MTU is the
// caller's to find.
//
// # Standards
//
// RFC 768; RFC 7348 clause 4.2 (source port by inner flow) and 4.3 (no
// fragments); RFC 6864 (IPv4 ID of datagrams with DF); RFC 6936 (zero checksum
// over IPv6 tunnels is accepted, never sent).
package udpio
