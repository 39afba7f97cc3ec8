package frame

// BatchLen is how many frames are taken from a port in one drain. More gains
// nothing measurable and delays the other ports.
const BatchLen = 64

// batchAlign keeps every frame's Ethernet payload on an 8-octet boundary less
// two, so that IP headers are read with aligned loads.
const batchAlign = 64

// Headroom is what Room leaves free in front of each frame, so that a driver
// can put back a VLAN tag that the kernel took out.
const Headroom = 64

// Batch is a run of frames with the memory that holds them. It packs frames of
// any length tightly, so that small frames stay in the first-level cache.
//
// A Batch belongs to one goroutine. Received bytes stay valid until Reset.
type Batch struct {
	Frames []Frame
	buf    []byte
	off    int
}

// NewBatch returns an empty batch whose memory holds size octets of frames in
// all; less than one MaxLen frame makes an outgoing batch, with no memory of
// its own.
func NewBatch(size int) *Batch {
	b := &Batch{Frames: make([]Frame, 0, BatchLen)}
	if size >= MaxLen+2*Headroom {
		b.buf = make([]byte, size)
	}
	return b
}

// Reset empties the batch; bytes received into it may be overwritten from now.
func (b *Batch) Reset() {
	clear(b.Frames) // drop references
	b.Frames = b.Frames[:0]
	b.off = 0
}

// Len is the number of frames held.
func (b *Batch) Len() int { return len(b.Frames) }

// Full reports whether Room would return nil.
func (b *Batch) Full() bool {
	return len(b.Frames) == cap(b.Frames) || len(b.buf)-b.off < MaxLen+Headroom
}

// Room returns memory for the next received frame, at least MaxLen octets
// preceded by Headroom spare ones, or nil when the batch is full. The slice
// starts at the spare octets: the frame goes to Room()[Headroom:].
func (b *Batch) Room() []byte {
	if b.Full() {
		return nil
	}
	return b.buf[b.off : b.off+Headroom+MaxLen]
}

// Commit takes octets from to end of what Room returned as a frame and returns
// it for the driver to add metadata. The pointer is valid until the next Commit.
func (b *Batch) Commit(from, end int) *Frame {
	data := b.buf[b.off+from : b.off+end : b.off+end]
	b.off += (end + batchAlign - 1) &^ (batchAlign - 1)
	b.Frames = append(b.Frames, Frame{Data: data})
	return &b.Frames[len(b.Frames)-1]
}
