package switchtest

import (
	"context"
	"testing"
	"time"

	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"golang.org/x/sys/unix"
)

// Far is the side of a port that the switch does not see: the container's, or
// the wire's. Frames may carry offload metadata both ways where the kind of
// port has them; tags stand in Data.
type Far interface {
	// Send puts f on the wire towards the switch.
	Send(f frame.Frame) error
	// Receive waits for the next frame that left the switch, at the latest
	// until ctx is done. The bytes are the caller's.
	Receive(ctx context.Context) (frame.Frame, error)
}

// Capability is something that not every kind of port can do.
type Capability string

// Capabilities that TestPort asks for.
const (
	CapUnplug Capability = "unplug"  // Opened.Unplug makes the device go away
	CapFarGSO Capability = "far gso" // Far sends GSO frames and shows them whole or cut
	CapTags   Capability = "tags"    // tagged frames pass both ways
	CapSTags  Capability = "s-tags"  // frames with an 802.1ad tag pass both ways
	CapRefuse Capability = "refuse"  // a frame of 13 octets is refused, and it alone
)

// Opened is a port under test with its far side.
type Opened struct {
	Queue vswitch.Queue
	Far   Far
	// MTU is how many octets of L3 packet pass in one plain frame; 0 = 1500.
	MTU int
	// Unplug makes the device behind the queue go away.
	Unplug func()
	// Lacks says for each capability that this port has not why it has not.
	Lacks map[Capability]string
}

// bench is an opened port with what was received from it and not looked at.
type bench struct {
	Opened
	waiting []frame.Frame
}

// patience is how long a frame may take on a busy machine. It bounds a failing
// test; a passing one does not wait.
const patience = 5 * time.Second

// Both stations of the suite. Whatever else a kernel sends is passed over.
var (
	near = Station4(0x7e)
	away = Station4(0x7f)
)

const etherTypeTest frame.EtherType = 0x88b5 // IEEE 802 local experimental

// TestPort is what every port has to do. open makes a new port for a subtest
// and registers its release with t.Cleanup; nothing of it may stay behind.
func TestPort(t *testing.T, open func(t *testing.T) Opened) {
	cases := []struct {
		name string
		run  func(t *testing.T, o *bench)
	}{
		{"receive until full then empty", receiveAll},
		{"readable while frames wait", readableWhile},
		{"lengths in", lengthsIn},
		{"lengths out", lengthsOut},
		{"tags in", tagsIn},
		{"tags out", tagsOut},
		{"push pop and gather", pushPop},
		{"partial checksum out", partialOut},
		{"gso in", gsoIn},
		{"gso out", gsoOut},
		{"refused frame", refused},
		{"offloads constant", offloadsConstant},
		{"device gone", deviceGone},
		{"close twice", closeTwice},
		{"no allocation", noAllocation},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := open(t)
			if o.MTU == 0 {
				o.MTU = 1500
			}
			c.run(t, &bench{Opened: o})
		})
	}
	t.Run("descriptors", func(t *testing.T) { descriptors(t, open) })
}

// has reports whether the port has c. What a kind of port can't have by its
// nature, and says so, is nothing to test, and no skip either.
func (o *bench) has(t *testing.T, c Capability) bool {
	t.Helper()
	why := o.Lacks[c]
	if why != "" {
		t.Logf("this kind of port lacks %q: %s", c, why)
	}
	return why == ""
}

// send makes the far side send frames.
func (o *bench) send(t testing.TB, frames ...frame.Frame) {
	t.Helper()
	for i, f := range frames {
		if err := o.Far.Send(f); err != nil {
			t.Fatalf("far side: send frame %d of %d octets: %v", i, len(f.Data), err)
		}
	}
}

// transmit makes the queue transmit frames, all of which it has to take.
func (o *bench) transmit(t testing.TB, frames ...frame.Frame) {
	t.Helper()
	b := frame.NewBatch(0)
	b.Frames = append(b.Frames, frames...)
	if sent, err := o.Queue.Transmit(b); sent != len(frames) || err != nil {
		t.Fatalf("transmit: got %d, %v, want %d, nil", sent, err, len(frames))
	}
}

// next waits for the next frame of the suite at the queue. It stays valid.
func (o *bench) next(t testing.TB) frame.Frame {
	t.Helper()
	b := frame.NewBatch(4 * (frame.MaxLen + 2*frame.Headroom))
	for end := time.Now().Add(patience); len(o.waiting) == 0; b.Reset() {
		if !poll(t, o.Queue.FD(), time.Until(end)) {
			t.Fatal("receive: the frame does not arrive")
		}
		if err := o.Queue.Receive(b); err != nil {
			t.Fatalf("receive: %v", err)
		}
		for _, f := range b.Frames {
			if ours(f) {
				f.Data = append([]byte(nil), f.Data...)
				o.waiting = append(o.waiting, f)
			}
		}
	}
	f := o.waiting[0]
	o.waiting = o.waiting[1:]
	return f
}

// arrive waits for the next frame of the suite at the far side.
func (o *bench) arrive(t testing.TB) frame.Frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		f, err := o.Far.Receive(ctx)
		if err != nil {
			t.Fatalf("far side: receive: %v", err)
		}
		if ours(f) {
			return f
		}
	}
}

// ours tells the suite's frames from what a kernel sends of its own accord,
// such as router solicitations.
func ours(f frame.Frame) bool {
	if len(f.Data) < frame.HeaderLen {
		return false
	}
	src := frame.MAC(f.Data[6:12])
	return src == near.MAC || src == away.MAC
}

// poll waits until fd is readable, at most d, and reports whether it is.
func poll(t testing.TB, fd int, d time.Duration) bool {
	t.Helper()
	end := time.Now().Add(d)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, max(0, int(time.Until(end).Milliseconds())))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatalf("poll: %v", err)
		}
		return n > 0
	}
}
