package vswitch

import "github.com/tapestry-net/tapestry/switch/frame"

// Queue is what the forwarding loop needs of a port driver. Drivers import
// only package frame; this interface is declared here, by its consumer.
//
// A Queue is used by several loops at once only in Transmit; Receive is called
// by the one loop that polls FD. No method blocks. None allocates, logs or
// reads a clock, except Close.
type Queue interface {
	// FD is a descriptor that polls readable when Receive would find a frame,
	// or when the device behind it has gone. It does not change. -1 is a queue
	// that only transmits: Receive is never called, a Receiver hears its frames.
	FD() int

	// Receive appends frames to b until none is waiting or b is full. It
	// returns an error only when the device can deliver no more until it is
	// reopened (it has been deleted, or its namespace has); frames already
	// appended are good all the same. "Nothing waiting" is no error.
	Receive(b *frame.Batch) error

	// Transmit writes the frames of b in order and returns how many it sent.
	// It sets Refused on each of the others; they are counted by the caller
	// and never retried. The error is the first cause of a refusal, as it came
	// from the system call; a frame's Why, where the driver sets it, goes before.
	Transmit(b *frame.Batch) (sent int, err error)

	// Offloads is what Transmit accepts: the switch segments or completes
	// anything else beforehand. It does not change.
	Offloads() frame.Offloads

	// Close releases the queue. It is idempotent. The caller makes sure that
	// no other method runs at the same time or later.
	Close() error
}

// Explainer is a Queue that refuses frames by rules of its own and can say
// beforehand what Transmit would do with f. Explain changes nothing and keeps no
// reference to f. Any goroutine may call it, also while others transmit.
type Explainer interface {
	Explain(f *frame.Frame) frame.Fate
}

// Receiver hears the frames of several ports on one descriptor, as the socket of
// a tunnel hears all peers. One loop polls all receivers, since they may share
// ports. No method blocks, allocates, logs or reads a clock.
type Receiver interface {
	// FD is as Queue.FD, and never -1.
	FD() int

	// Receive appends frames to b as Queue.Receive does, and sets In on each, and
	// VID when the frame is untagged and its network known by other means. A frame
	// with VID must have no tag. In an empty answer is nothing wrong: what came may
	// have been refused.
	Receive(b *frame.Batch) error

	// Waiting reports whether the receiver still holds frames that it has read
	// from the descriptor, which then need not poll readable: it is asked again at
	// once.
	Waiting() bool
}
