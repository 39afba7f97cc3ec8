package vswitch_test

import (
	"cmp"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/fdb"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// fan hands frames to the queues of its ports, and refuses those to one of them.
type fan struct {
	queues  map[frame.PortID]*mem.Port
	refuses frame.PortID
	calls   atomic.Int64
	one     *frame.Batch
	order   []delivery // of marked frames, those that were refused too
}

// delivery is a marked frame that a port was given.
type delivery struct {
	port frame.PortID
	mark byte
}

func (f *fan) TransmitTo(to []frame.PortID, b *frame.Batch) (sent int, err error) {
	f.calls.Add(1)
	for i := range b.Frames {
		if to[i] == f.refuses {
			b.Frames[i].Refused, err = true, errors.New("refused")
			continue
		}
		f.one.Reset()
		f.one.Frames = append(f.one.Frames, b.Frames[i])
		n, e := f.queues[to[i]].Transmit(f.one)
		if sent += n; n == 0 {
			b.Frames[i].Refused, err = true, e
		}
		f.order = append(f.order, delivery{to[i], mark(&b.Frames[i])})
	}
	return sent, err
}

// mark is that of a marked frame.
func mark(f *frame.Frame) byte {
	last := f.Data
	if n := len(f.Frags); n > 0 {
		last = f.Frags[n-1]
	}
	return last[len(last)-1]
}

// blade is a queue of a fan.
type blade struct {
	*mem.Port
	of *fan
}

func (q blade) Fan() frame.Fan { return q.of }

// TestFan floods to a port, three ports of one fan, and a port behind them.
func TestFan(t *testing.T) {
	f := &fan{queues: map[frame.PortID]*mem.Port{}, refuses: 4, one: frame.NewBatch(0)}
	spec := bridge(6)
	for i := 2; i <= 4; i++ {
		q := openPort(t, mem.Options{Offloads: ^frame.Offloads(0)})
		f.queues[frame.PortID(i)] = q
		spec.Ports[i-1].Queue = blade{q, f}
	}
	spec.Ports[5].Queue = nil
	r := start(t, spec)
	for i, q := range f.queues {
		r.ports[i-1] = q
	}
	r.expect("a flood through a fan", 1, eth(frame.Broadcast, mac(1)), 2, 3, 5, 6)
	if n := f.calls.Load(); n != 1 {
		t.Errorf("the fan was called %d times for one flood, want once", n)
	}
	if n := r.drops(4, frame.TransmitRefused); n != 1 {
		t.Errorf("port 4 refused %d copies, want 1", n)
	}
	r.expect("one frame to one port of the fan", 3, eth(mac(9), mac(3)), 1, 2, 5, 6)
	r.expect("a known station behind the fan", 1, eth(mac(3), mac(1)), 3)
	if n := f.calls.Load(); n != 2 {
		t.Errorf("the fan was called %d times, want only for what goes to several of its ports", n)
	}
	// A checksum that is left to be filled in is none of the fan's business.
	r.sendFrames(1, frame.Frame{Data: eth(frame.Broadcast, mac(1)), GSO: frame.GSO{NeedsCsum: true, CsumStart: 14, CsumOffset: 6}})
	r.sendFrames(1, frame.Frame{Data: eth(frame.Broadcast, mac(1)), GSO: frame.GSO{NeedsCsum: true, CsumStart: 50, CsumOffset: 60}})
	if n := f.calls.Load(); n != 4 {
		t.Errorf("the fan was called %d times, want once for each flood", n)
	}
	r.conserve()
}

// TestFanRefusals floods and forwards to the ports of a fan, some of which refuse,
// and holds counters and observations against what they have heard. The copies of
// one frame come one behind the other, and those to one port in order.
func TestFanRefusals(t *testing.T) {
	r := start(t, vswitch.Spec{})
	seen := &fates{}
	r.sw.Observe(seen)
	defer r.sw.Unobserve(seen)
	rapid.Check(t, func(t *rapid.T) {
		f := &fan{queues: map[frame.PortID]*mem.Port{}, one: frame.NewBatch(0)}
		spec := bridge(4)
		for i := range spec.Ports {
			q := openMem(t, mem.Options{})
			defer q.Close()
			p := &spec.Ports[i]
			p.ID, p.Name, p.Queue = frame.PortID(i+1), string(rune('a'+i)), q
			if i > 0 {
				p.Queue, f.queues[p.ID] = blade{q, f}, q
				q.RefuseEvery(rapid.IntRange(0, 4).Draw(t, "every"), unix.ENOBUFS)
			}
			r.table.Learn(fdb.MakeKey(10, mac(i+1)), p.ID, 0, nil)
		}
		r.apply(spec)
		defer r.apply(vswitch.Spec{})
		seen.of = map[byte][]vswitch.Copy{}
		in := drawFlood(t)
		r.sent += uint64(spec.Ports[0].Queue.(*mem.Port).InjectFrames(in...))
		r.settle()
		checkFan(t, r, f, seen, in)
	})
	r.conserve()
}

// drawFlood draws marked frames to all and to one, whose checksums are complete,
// partial or beyond completing; their copies to three ports leave in one go.
func drawFlood(t *rapid.T) []frame.Frame {
	var frames []frame.Frame
	for i := range rapid.IntRange(1, frame.BatchLen/3).Draw(t, "frames") {
		f := frame.Frame{Data: marked(byte(i+1), 0, true, 0, 20)}
		if kind := rapid.IntRange(0, 4).Draw(t, "kind"); kind > 1 {
			if f = switchtest.Partial(f.Data); kind == 2 {
				f.GSO.CsumStart = 60000
			}
		}
		dst := rapid.SampledFrom([]frame.MAC{frame.Broadcast, frame.Broadcast, mac(2), mac(3), mac(4)}).Draw(t, "dst")
		copy(f.Data, dst[:])
		frames = append(frames, f)
	}
	return frames
}

func checkFan(t *rapid.T, r *rig, f *fan, seen *fates, in []frame.Frame) {
	var want, left []delivery
	for i := range in {
		for _, c := range seen.of[byte(i+1)] {
			d := delivery{c.Port, byte(i + 1)}
			if in[i].GSO.CsumStart != 60000 {
				want = append(want, d)
			}
			if c.Refused == frame.ReasonNone {
				left = append(left, d)
			}
		}
	}
	// Only what leaves for several ports together goes through the fan.
	byFrame := slices.Clone(f.order)
	slices.SortStableFunc(byFrame, func(a, b delivery) int { return cmp.Or(cmp.Compare(a.mark, b.mark), cmp.Compare(a.port, b.port)) })
	inOrder := slices.IsSortedFunc(f.order, func(a, b delivery) int { return cmp.Compare(a.mark, b.mark) })
	if len(f.order) > 0 && !(inOrder && slices.Equal(byFrame, want)) {
		t.Errorf("the fan was given %v, want %v", f.order, want)
	}
	for id, q := range f.queues {
		var heard, want []byte
		for _, f := range q.Drain() {
			heard = append(heard, payload(f.Data)[0])
		}
		var bytes uint64
		for _, d := range left {
			if d.port == id {
				want = append(want, d.mark)
				bytes += uint64(len(in[d.mark-1].Data))
			}
		}
		if !slices.Equal(heard, want) {
			t.Errorf("port %d heard %v, want as observed %v", id, heard, want)
		}
		if got, _ := r.sw.PortStats(id); got.TX != (vswitch.Counter{Frames: uint64(len(want)), Bytes: bytes}) {
			t.Errorf("port %d counts %+v sent, want %d of %d octets", id, got.TX, len(want), bytes)
		}
	}
}

var _ vswitch.Queue = blade{}
