package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// fates collects, by the octet that fills a frame's payload, why its copies did
// not leave.
type fates struct {
	mu sync.Mutex
	of map[byte][]vswitch.Copy
}

func (o *fates) Observe(x *vswitch.Observation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.of[x.Frame.Data[len(x.Frame.Data)-1]] = slices.Clone(x.Copies)
}

// marked is a frame of a flow, whose payload is n octets that all are mark.
func marked(mark byte, flow uint16, udp bool, seq uint32, n int) []byte {
	from, to := switchtest.Station4(1), switchtest.Station4(2)
	from.Port += flow
	if flow%2 != 0 {
		from.Addr, to.Addr = switchtest.Station6(1).Addr, switchtest.Station6(2).Addr
	}
	payload := bytes.Repeat([]byte{mark}, n)
	if udp {
		return switchtest.UDPFrame(from, to, payload)
	}
	return switchtest.TCPFrame(from, to, switchtest.Segment{Seq: seq}, payload)
}

// payload is what follows the headers of b, which is as marked makes it.
func payload(b []byte) []byte {
	proto, l4 := b[23], 34
	if binary.BigEndian.Uint16(b[12:]) == uint16(frame.EtherTypeIPv6) {
		proto, l4 = b[20], 54
	}
	if proto == 17 {
		return b[l4+8:]
	}
	return b[l4+20:]
}

// drawMarked draws frames of three flows each way of a few protocols, each with a
// mark of its own: plain ones in sequence, super-frames of up to more segments
// than leave in one go, and some that claim to be one and can't be cut.
func drawMarked(t *rapid.T) []frame.Frame {
	var seq [6]uint32
	var frames []frame.Frame
	for i := range rapid.IntRange(1, 60).Draw(t, "frames") {
		flow := rapid.IntRange(0, 5).Draw(t, "flow")
		udp, size, n := flow < 3, 100, 100
		kind := rapid.IntRange(0, 9).Draw(t, "kind")
		if kind < 3 {
			size = rapid.IntRange(10, 90).Draw(t, "size")
			n = size * rapid.IntRange(1, 100).Draw(t, "segments")
		}
		b := marked(byte(i+1), uint16(flow), udp, seq[flow], n)
		seq[flow] += uint32(n)
		f := frame.Frame{Data: b}
		switch {
		case kind < 3:
			f = switchtest.Super(b, size)
		case kind < 6:
			f = switchtest.Partial(b)
		case kind == 6:
			f = switchtest.Super(b, size)
			f.GSO.NeedsCsum = false
		}
		frames = append(frames, f)
	}
	return frames
}

// TestRefusedCopies holds counters and observations of copies that were cut,
// coalesced and refused against what the port behind has heard: a copy was sent
// if each octet of its payload came out, and refused otherwise.
func TestRefusedCopies(t *testing.T) {
	const checksum, tcp = frame.OffloadChecksum, frame.OffloadTSO4 | frame.OffloadTSO6
	r := start(t, vswitch.Spec{})
	seen := &fates{}
	r.sw.Observe(seen)
	defer r.sw.Unobserve(seen)
	rapid.Check(t, func(t *rapid.T) {
		can := rapid.SampledFrom([]frame.Offloads{0, checksum, checksum | tcp, ^frame.Offloads(0)}).Draw(t, "offloads")
		from, to := openMem(t, mem.Options{}), openMem(t, mem.Options{Offloads: can, Depth: rapid.SampledFrom([]int{20, 100, 1 << 13}).Draw(t, "depth")})
		defer from.Close()
		defer to.Close()
		to.RefuseEvery(rapid.IntRange(0, 40).Draw(t, "every"), unix.ENOBUFS)
		spec := bridge(2)
		for i, q := range []*mem.Port{from, to} {
			spec.Ports[i].ID, spec.Ports[i].Name, spec.Ports[i].Queue = frame.PortID(i+1), string(rune('a'+i)), q
		}
		spec.Ports[1].NoCoalesce = rapid.Bool().Draw(t, "as they come")
		r.apply(spec)
		defer r.apply(vswitch.Spec{})
		seen.of = map[byte][]vswitch.Copy{}
		in := drawMarked(t)
		r.sent += uint64(from.InjectFrames(in...))
		r.settle()

		heard := map[byte]int{}
		for _, f := range to.Drain() {
			for _, mark := range payload(f.Data) {
				heard[mark]++
			}
		}
		var want vswitch.PortStats
		for i, f := range in {
			mark, why := byte(i+1), frame.QueueFull
			switch {
			case f.GSO.Type != frame.GSONone && !f.GSO.NeedsCsum:
				why = frame.TransmitRefused
			case heard[mark] == len(payload(f.Data)):
				why = frame.ReasonNone
				want.TX.Frames++
				want.TX.Bytes += uint64(len(f.Data))
			}
			if why != frame.ReasonNone {
				want.Drops[why]++
			}
			if d := cmp.Diff([]vswitch.Copy{{Port: 2, Refused: why}}, seen.of[mark]); d != "" {
				t.Errorf("frame %d, of which %d octets of %d came out: want (-), observed (+):\n%s", mark, heard[mark], len(payload(f.Data)), d)
			}
		}
		got, _ := r.sw.PortStats(2)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("port: want (-), counted (+):\n%s", d)
		}
	})
	r.conserve()
}

func openMem(t *rapid.T, o mem.Options) *mem.Port {
	p, err := mem.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRefusedTail refuses the last of the segments of one frame, which take two
// goes, and the second of two coalesced flows that came interleaved.
func TestRefusedTail(t *testing.T) {
	cut := switchtest.Super(marked(1, 0, true, 0, 100*100), 100)
	flows := []frame.Frame{
		{Data: marked(1, 0, true, 0, 50)}, {Data: marked(2, 2, true, 0, 50)},
		{Data: marked(3, 0, true, 0, 50)}, {Data: marked(4, 2, true, 0, 50)},
	}
	for name, tt := range map[string]struct {
		can   frame.Offloads
		every int
		in    []frame.Frame
		want  []byte // marks of the refused
	}{
		"last segment": {0, 100, []frame.Frame{cut}, []byte{1}},
		"each segment": {0, 1, []frame.Frame{cut}, []byte{1}},
		"second flow":  {^frame.Offloads(0), 2, flows, []byte{2, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			q := openPort(t, mem.Options{Offloads: tt.can})
			spec := bridge(2)
			spec.Ports[1].Queue = q
			r := start(t, spec)
			seen := &fates{of: map[byte][]vswitch.Copy{}}
			r.sw.Observe(seen)
			q.RefuseEvery(tt.every, unix.ENOBUFS)
			r.sendFrames(1, tt.in...)
			var got []byte
			for mark, copies := range seen.of {
				if copies[0].Refused == frame.QueueFull {
					got = append(got, mark)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("frames observed as refused: got %v, want %v", got, tt.want)
			}
			if n := r.drops(2, frame.QueueFull); n != uint64(len(tt.want)) {
				t.Errorf("refused copies counted: got %d, want %d", n, len(tt.want))
			}
			r.conserve()
		})
	}
}
