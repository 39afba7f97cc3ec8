// Package frame holds the words every other package speaks: addresses, tags,
// port numbers, the frame with its offload metadata, batches of frames, and
// the verdict that the switch reaches about each of them.
//
//	Data   dst(6) src(6) [outer tag(4)] EtherType(2) payload …     as on the wire, no FCS
//	Frags  further payload, present only on a coalesced frame on its way out
//
// # Ownership
//
// The bytes of a received frame belong to the Batch they were received into and
// are immutable until that batch is reset. An outgoing frame borrows them; a
// driver must not keep a reference after Transmit returns.
//
// # Concurrency
//
// Values are plain data. A Batch is used by one goroutine at a time.
//
// # Standards
//
// IEEE 802.3 clause 3 (frame), IEEE 802.1Q-2022 clause 9 (tag format) and
// clause 8.6.3 (reserved addresses), virtio 1.2 clause 5.1.6 (offload metadata).
//
// The package imports only the standard library, and no package below it exists.
package frame
