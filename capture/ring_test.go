package capture

import (
	"testing"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// TestReserveAfterAPause is a writer that has read where the ring ends and goes on
// when others have written and the reader has read: it must not take that for a
// ring without room.
func TestReserveAfterAPause(t *testing.T) {
	r := NewRing(Choice{Direction: In}, 0)
	o := &frame.Observation{In: 1, Frame: &frame.Frame{Data: make([]byte, 60)}}
	var rec Record
	head := r.head.Load()
	for i := range 3 {
		r.Observe(o)
		if i > 0 { // gives the record before back
			r.Poll(&rec)
			r.Poll(&rec)
		}
		if _, ok, again := r.try(head, 4); ok || !again {
			t.Errorf("after %d records: reserved %v, tries again %v; want false, true", i+1, ok, again)
		}
	}
	if r.tail.Load() < head+4 {
		t.Fatalf("the reader is at %d, want it beyond %d", r.tail.Load(), head+4)
	}
	for _, ok := r.reserve(1000); ok; {
		_, ok = r.reserve(1000)
	}
	if _, ok, again := r.try(r.head.Load(), 1000); ok || again {
		t.Errorf("in a full ring: reserved %v, tries again %v; want false, false", ok, again)
	}
}
