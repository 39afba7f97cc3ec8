package offload

import "github.com/tapestry-net/tapestry/switch/frame"

// Stats counts what an Egress has done. The numbers only grow.
type Stats struct {
	Coalesced uint64 // frames that left as part of a coalesced one
	Segmented uint64 // GSO frames that were cut
	Refused   uint64 // frames that could not be made fit for the port
}

// Egress prepares frames for transmission. It holds the memory for new headers
// and gather lists, about 50 KiB, and belongs to one loop, which uses it for
// all of its ports in turn.
type Egress struct {
	Stats Stats
}

// NewEgress returns an Egress with its memory.
func NewEgress() *Egress { return &Egress{} }

// Plan appends to out, which the caller has reset, what the driver of one port
// is to transmit for the frames of in, and returns how many frames of in that
// covers. The caller transmits and resets out, and calls Plan with the rest
// until nothing is left. 0 is a valid answer while a frame of very many
// segments is under way: the same frame must then come first again.
//
//	e.Plan(in, can, coalesce, out)   →  Transmit(out), out.Reset(), in = in[n:]
//
// A GSO frame of a kind that can lacks is cut, a partial checksum is completed
// when can lacks OffloadChecksum, and, if coalesce is set, runs of one flow are
// coalesced into GSO frames that can allows. Pop and Push are kept. Copies of
// what comes out add up to Copies of what went in. Order within a flow stays;
// across flows it may change. A frame that cannot be cut or completed is marked
// Refused in in, counted, and left out.
//
// The frames of in have no Frags and must not be changed before out has been
// transmitted; out is good until the next Plan.
//
// Hot path: no allocation.
func (e *Egress) Plan(in []frame.Frame, can frame.Offloads, coalesce bool, out *frame.Batch) int {
	n := min(len(in), cap(out.Frames)-len(out.Frames))
	out.Frames = append(out.Frames, in[:n]...)
	return n
}

// Check holds the metadata of a received frame against its octets and fails
// when they disagree; such a frame must not be forwarded. A GSO frame must be a
// whole, unfragmented TCP segment or UDP datagram over IPv4 or IPv6 behind at
// most two tags, with a partial checksum where that protocol has it. Its HdrLen
// is replaced by the true one, because the kernel's is only a hint. A plain
// frame with a partial checksum must hold the checksum field.
//
// Hot path: no allocation for a frame that is good.
func Check(f *frame.Frame) error { return nil }
