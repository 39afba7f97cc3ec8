// Package inject gives the switch frames that its own program has made, as if a
// port had received them.
//
//	Put ──> bounded list + eventfd ──> FD, Receive ──> forwarding loop
//
// # Ownership
//
// A frame's octets belong to the Source from Put on, and are copied into the
// loop's batch. The Source owns its descriptor.
//
// # Concurrency
//
// Put may be called from any goroutine. FD, Receive and Waiting follow the rules
// of the switch's Receiver.
package inject

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Max is how many frames may wait for the loop.
const Max = 64

// Frame is a frame and where it shall have come in.
type Frame struct {
	In frame.PortID
	// VID is the network of an untagged frame; 0 leaves it to the port.
	VID frame.VID
	// Own is whether this host has made it in another station's name: then it
	// teaches nothing, and In has not received it.
	Own  bool
	Data []byte
}

// Source is a Receiver of injected frames.
type Source struct {
	bell int // eventfd

	mu     sync.Mutex
	frames []Frame
}

// New makes a Source without frames.
func New() (*Source, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	return &Source{bell: fd}, nil
}

// Put hands a frame of at most frame.MaxLen octets over to the loop. It reports
// false when too many wait.
func (s *Source) Put(f Frame) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.frames) == Max || len(f.Data) > frame.MaxLen {
		return false
	}
	s.frames = append(s.frames, f)
	one := [8]byte{7: 1}
	_, _ = unix.Write(s.bell, one[:]) // fails only when the bell rings already
	return true
}

// FD polls readable when frames wait.
func (s *Source) FD() int { return s.bell }

// Waiting reports whether frames are left that Receive had no room for.
func (s *Source) Waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.frames) > 0
}

// Receive appends the frames that wait to b. It takes the lock that Put holds
// for an append: it is called only when there is something, which is rare.
func (s *Source) Receive(b *frame.Batch) error {
	var rung [8]byte
	_, _ = unix.Read(s.bell, rung[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for ; n < len(s.frames); n++ {
		room := b.Room()
		if room == nil {
			break
		}
		f := &s.frames[n]
		c := b.Commit(frame.Headroom, frame.Headroom+copy(room[frame.Headroom:], f.Data))
		c.In, c.VID, c.Own = f.In, f.VID, f.Own
	}
	left := copy(s.frames, s.frames[n:])
	clear(s.frames[left:])
	s.frames = s.frames[:left]
	return nil
}

// Close releases the descriptor. The switch must have let go of the Source.
func (s *Source) Close() error { return unix.Close(s.bell) }
