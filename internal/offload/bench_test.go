package offload_test

import (
	"fmt"
	"testing"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// stream builds n frames of s, in turn of each flow.
func stream(t testing.TB, s spec, n, flows int) []frame.Frame {
	in := make([]frame.Frame, 0, n)
	for i := range n {
		s.flow = uint16(i % flows)
		s.id = uint16(i / flows)
		s.seq = uint32(i / flows * len(s.payload))
		in = append(in, build(t, s))
	}
	return in
}

func superFrame(t testing.TB) frame.Frame {
	f := build(t, spec{partial: true, flags: 0x10, payload: make([]byte, 44*1460)})
	f.GSO.Type, f.GSO.Size, f.GSO.HdrLen = frame.GSOTCPv4, 1460, 54
	return f
}

// workloads are what the loop meets most.
func workloads(t testing.TB) []struct {
	name string
	in   []frame.Frame
	can  frame.Offloads
	want int
} {
	udp := spec{udp: true, partial: true, payload: make([]byte, 18)}
	complete := udp
	complete.partial = false
	tcp := spec{partial: true, flags: 0x10, payload: make([]byte, 1460)}
	verified := tcp
	verified.partial = false
	return []struct {
		name string
		in   []frame.Frame
		can  frame.Offloads
		want int
	}{
		{"Coalesce/udp/60B/64", stream(t, udp, 64, 1), all, 1},
		{"Coalesce/udp/60B/64/verify", stream(t, complete, 64, 1), all, 1},
		{"Coalesce/tcp/1460B/44", stream(t, tcp, 44, 1), all, 1},
		{"Coalesce/tcp/1460B/44/verify", stream(t, verified, 44, 1), all, 1},
		{"Coalesce/udp/60B/4flows", stream(t, udp, 64, 4), all, 4},
		{"Coalesce/udp/60B/64flows", stream(t, udp, 64, 64), all, 64},
		{"Complete/tcp/1460B/44", stream(t, tcp, 44, 1), 0, 44},
		{"Segment/tcp/64K", []frame.Frame{superFrame(t)}, 0, 44},
		{"Segment/tcp/64K/partial", []frame.Frame{superFrame(t)}, frame.OffloadChecksum, 44},
		{"Pass/udp/60B/64", stream(t, udp, 64, 1), frame.OffloadChecksum, 64},
	}
}

func BenchmarkPlan(b *testing.B) {
	for _, w := range workloads(b) {
		b.Run(w.name, func(b *testing.B) {
			e, out := offload.NewEgress(), frame.NewBatch(0)
			octets := 0
			for i := range w.in {
				octets += w.in[i].Len()
			}
			b.SetBytes(int64(octets))
			b.ReportAllocs()
			for b.Loop() {
				e.Plan(w.in, w.can, true, out)
				out.Reset()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(w.in)), "ns/frame")
		})
	}
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 64, 1500, 65536} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			buf := random(n, 1)
			b.SetBytes(int64(n))
			for b.Loop() {
				offload.Sum(buf, 0)
			}
		})
	}
}

func TestPlanAllocatesNothing(t *testing.T) {
	e, out := offload.NewEgress(), frame.NewBatch(0)
	for _, w := range workloads(t) {
		if n := testing.AllocsPerRun(20, func() {
			for i := range w.in {
				if offload.Check(&w.in[i]) != nil {
					t.Error("a good frame fails Check")
				}
			}
			n := e.Plan(w.in, w.can, true, out)
			if n != len(w.in) || out.Len() != w.want {
				t.Errorf("%s: %d of %d frames made %d, want %d", w.name, n, len(w.in), out.Len(), w.want)
			}
			out.Reset()
		}); n != 0 {
			t.Errorf("%s: %v allocations", w.name, n)
		}
	}
}

func TestHeaderAllocatesNothing(t *testing.T) {
	g, buf := superFrame(t).GSO, make([]byte, offload.HeaderLenMerged)
	if n := testing.AllocsPerRun(100, func() {
		offload.PutHeader(buf, len(buf), g, 4)
		got, err := offload.ParseHeader(buf, len(buf))
		if err != nil || int(got.HdrLen) != int(g.HdrLen)+4 || int(got.CsumStart) != int(g.CsumStart)+4 {
			t.Error("header does not come back")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
