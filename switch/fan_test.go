package vswitch_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"

	vswitch "github.com/tapestry-net/tapestry/switch"
)

// fan hands frames to the queues of its ports, and refuses those to one of them.
type fan struct {
	queues  map[frame.PortID]*mem.Port
	refuses frame.PortID
	calls   atomic.Int64
	one     *frame.Batch
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
		n, _ := f.queues[to[i]].Transmit(f.one)
		sent += n
	}
	return sent, err
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

var _ vswitch.Queue = blade{}
