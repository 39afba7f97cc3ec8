// Package switchtest is the bench beside the switch: frames to send, checks of
// what came out, cables between switches, and the suite that every port passes.
//
//	UDPFrame, TCPFrame, ARPFrame, …   build a frame with right lengths and checksums
//	Tagged, STagged, Partial, Super   change one: a tag, a partial checksum, a GSO frame
//	Check(t, f, Eth(…), VLAN(…), …)   takes a frame apart from the front, header by header
//	Wire                              joins two switches in one process
//	TestPort                          is what a port driver has to do, as tests
//	RawEnd                            is the container's side of a kernel port
//
// # Ownership
//
// Builders return bytes of their own. Checkers keep nothing.
//
// # Concurrency
//
// Builders and checkers are pure. A RawEnd is used by one goroutine.
//
// # Standards
//
// IEEE 802.3 clause 3, IEEE 802.1Q-2022 clauses 9 (tags) and 14.4 (BPDUs), IEEE
// 802.1AB (LLDP), RFC 791, 8200, 768, 9293, 792, 4443, 826, 4861, RFC 1071
// (checksums), virtio 1.2 clause 5.1.6 (offload metadata).
package switchtest
