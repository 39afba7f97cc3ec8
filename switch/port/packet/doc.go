// Package packet is the port on an existing interface, a NIC or one end of a
// veth, read and written by an AF_PACKET socket.
//
//	recvmsg   virtio_net_hdr (10) | Ethernet frame without its outer tag, and the tag in PACKET_AUXDATA
//	Data      dst(6) src(6) [tag(4)] EtherType(2) payload …     as it was on the wire
//
// The kernel takes the outer VLAN tag out of a frame before the socket sees it.
// Receive moves the two addresses into the headroom and writes the tag back
// between them and the EtherType.
//
// Open is for the privileged process; NewQueue needs no privilege. The
// interface stays its owner's: nothing of it is changed but promiscuous mode,
// which ends with the descriptor.
//
// # Concurrency
//
// Queue.Receive is called by one goroutine at a time, Transmit by any number.
//
// # Standards
//
// packet(7), virtio 1.2 clause 5.1.6, IEEE 802.1Q clause 9.3.
package packet
