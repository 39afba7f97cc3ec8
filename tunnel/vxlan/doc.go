// Package vxlan writes and reads the VXLAN header, and does the arithmetic of
// what the tunnel costs. It is pure: it knows no socket and no peer.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|R|R|R|R|I|R|R|R|                   reserved                    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      VNI                      |   reserved    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| inner Ethernet frame, without FCS …
//
// # Ownership
//
// Parse returns part of the datagram it was given; nothing is copied or kept.
//
// # Concurrency
//
// Pure functions.
//
// # Standards
//
// RFC 7348 clause 5. Difference: a header with reserved bits set is refused
// unless the caller asks for RFC mode, which ignores them on receipt.
package vxlan
