package offload_test

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// between is what lies between the frames of a buffer, as the headers of a tunnel.
const between = 8

// lay puts frames one behind the other and returns each where it lies, with the
// capacity that a train may use.
func lay(in []frame.Frame, spare int) [][]byte {
	n := spare
	for _, f := range in {
		n += between + len(f.Data)
	}
	buf, list := make([]byte, 0, n), [][]byte(nil)
	for _, f := range in {
		buf = append(buf, make([]byte, between)...)
		at := len(buf)
		buf = append(buf, f.Data...)
		list = append(list, buf[at:])
	}
	return list
}

// join runs one train after the other over list, as the receiver of a tunnel does.
func join(t *offload.Train, list [][]byte, out []frame.Frame) []frame.Frame {
	open := false
	end := func() {
		if !open {
			return
		}
		if b, g, ok := t.Frame(); ok {
			out[len(out)-1].Data, out[len(out)-1].GSO = b, g
		}
	}
	for _, b := range list {
		if open && t.Append(b) {
			continue
		}
		end()
		out = append(out, frame.Frame{Data: b, Copies: 1})
		open = t.Start(b)
	}
	end()
	return out
}

func TestTrainRoundTrip(t *testing.T) { rapid.Check(t, trainRoundTrip(t)) }

func FuzzTrain(f *testing.F) {
	f.Add(random(16<<10, 2))
	f.Fuzz(func(t *testing.T, b []byte) { rapid.MakeFuzz(trainRoundTrip(t))(t, b) })
}

// trainRoundTrip: cutting what a train has joined restores every octet in order,
// damage included.
func trainRoundTrip(t testing.TB) func(*rapid.T) {
	var train offload.Train
	return func(rt *rapid.T) {
		in := traffic(rt, t)
		for i := range in {
			in[i].GSO = frame.GSO{} // what comes from a wire has none
		}
		slices.SortStableFunc(in, func(a, b frame.Frame) int { return bytes.Compare(flowOf(a.Data), flowOf(b.Data)) })
		var want [][]byte
		for _, f := range in {
			want = append(want, trim(f.Data))
		}
		var have [][]byte
		for _, f := range join(&train, lay(in, rapid.SampledFrom([]int{0, 1 << 16}).Draw(rt, "spare")), nil) {
			if err := offload.Check(&f); err != nil {
				rt.Fatalf("joined frame %+v: %v", f.GSO, err)
			}
			for _, b := range slowSegment(&f) {
				have = append(have, trim(b))
			}
		}
		if len(have) != len(want) {
			rt.Fatalf("%d frames, want %d", len(have), len(want))
		}
		for i := range want {
			if !bytes.Equal(have[i], want[i]) {
				rt.Fatalf("frame %d\n got %x\nwant %x", i, have[i], want[i])
			}
		}
	}
}

// flowOf is the ports of b, which the builder makes different for each flow.
func flowOf(b []byte) []byte {
	l4 := 34
	if b[12] == 0x81 {
		l4 += 4
	}
	if b[l4-22] == 0x86 {
		l4 += 20
	}
	return b[l4 : l4+4]
}

// TestTrain joins 40 segments without allocating, and not one more than fits.
func TestTrain(t *testing.T) {
	in := stream(t, spec{flags: 0x10, payload: make([]byte, 1300)}, 40, 1)
	var train offload.Train
	out := make([]frame.Frame, 0, len(in))
	list := lay(in, 0)
	buf := bytes.Clone(list[0][:cap(list[0])])
	if n := testing.AllocsPerRun(20, func() {
		copy(list[0][:cap(list[0])], buf)
		out = join(&train, list, out[:0])
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	if len(out) != 1 || len(out[0].Data) != 54+40*1300 || out[0].GSO.Size != 1300 {
		t.Errorf("%d frames, the first of %d octets in segments of %d, want 1 of %d in segments of 1300",
			len(out), len(out[0].Data), out[0].GSO.Size, 54+40*1300)
	}
	for i, f := range in {
		list[i] = bytes.Clone(f.Data)[:len(f.Data):len(f.Data)]
	}
	if out = join(&train, list, nil); len(out) != len(in) {
		t.Errorf("%d frames of memory without room, want %d", len(out), len(in))
	}
}
