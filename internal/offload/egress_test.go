package offload_test

import (
	"slices"
	"testing"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

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
