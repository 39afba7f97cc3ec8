// Package mem is a port in memory: a queue that the forwarding loop polls like
// any other, and an outside face that plays the station behind it.
//
//	outside                    Port                     forwarding loop
//	Inject, Replay  ──> inbound ring + eventfd ──>  FD, Receive
//	Next, Drain     <── outbound ring          <──  Transmit
//
// Pair makes the cable between two switches in one process: what one end
// transmits is what the other receives, with no goroutine between them.
//
// Both rings are bounded. A frame that finds its ring full is refused and
// counted, as a device's transmit queue does it; nothing blocks. Fail,
// RefuseEvery and a small Depth bring about every refusal a driver can report.
//
// # Ownership
//
// Bytes are copied in and copied out. The rings keep the memory of their frames
// for the frames to come, so that a port in steady state allocates nothing; it
// holds up to Depth frames each way of the greatest length it has carried.
//
// # Concurrency
//
// The outside face is safe for any number of goroutines, beside the loops. FD,
// Receive, Transmit and Close follow the rules of the switch's Queue.
//
// # Standards
//
// None: the wire carries Ethernet frames (IEEE 802.3 clause 3) with the offload
// metadata of package frame.
package mem
