// Package watch sees what the interfaces of a namespace receive and send,
// without being in the way of it, and opens the socket that a probe leaves by.
//
//	keeper   Open → a packet socket whose filter passes nothing
//	worker   New → attaches the reader's filter · Read → packets
//
//	recvmsg   dst(6) src(6) EtherType(2) payload …     and the tag in PACKET_AUXDATA
//	Data      dst(6) src(6) [tag(4)] EtherType(2) payload …     as it is on the wire
//
// The kernel takes the outer VLAN tag out of a frame before a socket sees it,
// and before its filter does: a filter reads the tag as an extension (SKF_AD_VLAN_TAG,
// SKF_AD_VLAN_TAG_PRESENT), not at offset 12. Read puts the tag back. An
// interface without Ethernet (tun, wireguard) gives packets that begin with
// their IP header; Packet.Ethernet tells.
//
// A packet that the kernel hands on inside the machine may be a GSO packet, far
// longer than the MTU, and may lack its checksum; Packet says so.
//
// # Ownership
//
// Open and OpenRaw give the descriptor to the caller, New takes it over. What
// Read returns lies in the Socket's memory and is valid until the next Read.
//
// # Concurrency
//
// Open and OpenRaw act on the calling thread's namespace and need CAP_NET_RAW;
// everything else needs no privilege. Read is called by one goroutine at a
// time; Close and Dropped by any.
//
// # Standards
//
// packet(7), socket(7), raw(7), IEEE 802.1Q clause 9.3.
package watch
