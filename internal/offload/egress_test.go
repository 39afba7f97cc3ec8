package offload_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// TestCompleteCopies: copies of one frame that follow each other share what one
// completion made, whatever becomes of their tags, and no other frame does.
func TestCompleteCopies(t *testing.T) {
	one := build(t, spec{udp: true, partial: true, tags: 1, payload: []byte("abc")})
	two := build(t, spec{udp: true, partial: true, tags: 1, payload: []byte("abd")})
	tagged := one
	tagged.Pop, tagged.Push = true, frame.MakeTag(20, 0, false)
	moved := one
	moved.GSO.CsumOffset = 2
	bad := one
	bad.GSO.CsumStart = 60000
	short := one
	short.Data = one.Data[:len(one.Data)-1]
	in := []frame.Frame{one, tagged, one, two, two, one, moved, bad, bad, one, short}
	same := []bool{false, true, true, false, true, false, false, false, false} // as the one before it
	e, out := offload.NewEgress(), frame.NewBatch(0)
	if n := e.Plan(in, 0, false, out); n != len(in) || out.Len() != len(same) || e.Stats.Refused != 2 {
		t.Fatalf("%d of %d frames made %d, %d refused", n, len(in), out.Len(), e.Stats.Refused)
	}
	k := 0
	for i := range in {
		if in[i].Refused {
			continue
		}
		f := &out.Frames[k]
		if want := slowSegment(&in[i])[0]; !bytes.Equal(flat(f), want) || f.GSO != (frame.GSO{}) || f.Pop != in[i].Pop || f.Push != in[i].Push {
			t.Errorf("frame %d: got %x, want %x", i, flat(f), want)
		}
		if k > 0 {
			g := &out.Frames[k-1]
			if got := &g.Data[0] == &f.Data[0] && &g.Frags[0] == &f.Frags[0]; got != same[k] {
				t.Errorf("frame %d shares the octets of the one before: %v, want %v", i, got, same[k])
			}
		}
		k++
	}
}

// TestFail fails each frame that leaves for a few that were coalesced, cut and
// passed, and looks for the marks.
func TestFail(t *testing.T) {
	udp := stream(t, spec{udp: true, payload: make([]byte, 100)}, 6, 2) // A1 B1 A2 B2 A3 B3
	tcp := superFrame(t)
	tcp.GSO.Size = 1000 // 65 segments, which take two goes
	in := append(udp, tcp, build(t, spec{flags: 0x10, flow: 9, payload: make([]byte, 10)}))
	can := frame.OffloadChecksum | frame.OffloadUSO4
	marks := [][]int{{0, 2, 4}, {1, 3, 5}}
	for range 65 {
		marks = append(marks, []int{6})
	}
	marks = append(marks, []int{7})
	for fails := range marks {
		now := slices.Clone(in)
		e, out := offload.NewEgress(), frame.NewBatch(0)
		for k, rest := 0, now; len(rest) > 0; {
			n := e.Plan(rest, can, true, out)
			for j := range out.Frames {
				if k == fails {
					e.Fail(rest, j, frame.QueueFull)
					e.Fail(rest, j, frame.EgressDown) // what came first counts
				}
				k++
			}
			out.Reset()
			rest = rest[n:]
		}
		var got []int
		for i := range now {
			if now[i].Refused && now[i].Why == frame.QueueFull {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, marks[fails]) {
			t.Errorf("frame %d fails: marks %v, want %v", fails, got, marks[fails])
		}
	}
}
