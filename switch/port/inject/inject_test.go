package inject_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/inject"
)

// readable reports whether a poll of s would return at once.
func readable(t *testing.T, s *inject.Source) bool {
	t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.FD()), Events: unix.POLLIN}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

func TestSource(t *testing.T) {
	s, err := inject.New()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if readable(t, s) || s.Waiting() {
		t.Error("a new source has frames")
	}
	put := 0
	for s.Put(inject.Frame{In: 3, VID: 10, Own: put%2 == 1, Data: []byte{byte(put), 1, 2}}) {
		put++
	}
	if put != inject.Max || !readable(t, s) {
		t.Errorf("%d frames fit, want %d", put, inject.Max)
	}
	if s.Put(inject.Frame{Data: make([]byte, frame.MaxLen+1)}) {
		t.Error("an endless frame is taken")
	}
	b := frame.NewBatch(2 * (frame.MaxLen + 2*frame.Headroom))
	got := 0
	for s.Waiting() {
		b.Reset()
		if err := s.Receive(b); err != nil || b.Len() == 0 {
			t.Fatalf("%d frames, %v", b.Len(), err)
		}
		for _, f := range b.Frames {
			if f.In != 3 || f.VID != 10 || f.Own != (got%2 == 1) || len(f.Data) != 3 || int(f.Data[0]) != got {
				t.Errorf("frame %d is %+v", got, f)
			}
			got++
		}
	}
	if got != put || readable(t, s) {
		t.Errorf("%d frames came out, want %d", got, put)
	}
	if !s.Put(inject.Frame{Data: []byte{1}}) || !readable(t, s) {
		t.Error("an emptied source takes nothing")
	}
}
