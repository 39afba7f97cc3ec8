package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/capture/filter"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
)

// newcomers is how many stations one round of learning brings.
const newcomers = 1 << 18

// engine is a real switch with two ports in memory. What leaves is counted and
// thrown away.
type engine struct {
	table    *table
	sw       *vswitch.Switch
	in, out  *mem.Port
	in1, in2 frame.PortID
}

func newEngine() (e *engine, err error) {
	e = &engine{in1: 1, in2: 2}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if e.table, err = newTable(tableLimit); err != nil {
		return e, err
	}
	if e.in, err = mem.New(mem.Options{Discard: true}); err != nil {
		return e, err
	}
	if e.out, err = mem.New(mem.Options{Discard: true}); err != nil {
		return e, err
	}
	if e.sw, err = vswitch.New(vswitch.Options{FDB: e.table.Table, Loops: 1, Spin: 20 * time.Microsecond}); err != nil {
		return e, err
	}
	err = e.sw.Apply(vswitch.Spec{
		Networks: []vswitch.Network{{Name: "bench", VID: benchVID, MTU: 1500, Ageing: 5 * time.Minute}},
		Ports: []vswitch.Port{
			{ID: e.in1, Name: "in", Queue: e.in, Native: benchVID},
			{ID: e.in2, Name: "out", Queue: e.out, Native: benchVID},
		},
	})
	return e, err
}

func (e *engine) close() {
	if e.sw != nil {
		_ = e.sw.Close()
	}
	for _, p := range []*mem.Port{e.in, e.out} {
		if p != nil {
			_ = p.Close()
		}
	}
	if e.table != nil {
		e.table.close()
	}
}

// smallFrame is a frame of 60 octets without meaning behind its header.
func smallFrame(dst, src frame.MAC) frame.Frame {
	b := make([]byte, 60)
	copy(b, dst[:])
	copy(b[6:], src[:])
	b[12], b[13] = 0x88, 0xb5 // IEEE 802 local experimental EtherType
	return frame.Frame{Data: b}
}

// introduce makes the switch know the station behind the second port.
func (e *engine) introduce(ctx context.Context, m frame.MAC) error {
	e.out.Inject(smallFrame(station(newcomers), m).Data)
	return until(ctx, func() bool { return e.table.PortLen(e.in2) == 1 })
}

// errStuck means that frames which a port took never came to their end.
var errStuck = errors.New("the switch stands still")

// until looks every 100 µs whether done, for ten seconds at most.
func until(ctx context.Context, done func() bool) error {
	t := time.NewTicker(100 * time.Microsecond)
	defer t.Stop()
	for begin := time.Now(); !done(); {
		if time.Since(begin) > 10*time.Second {
			return errStuck
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func learning() workload {
	return workload{
		name: "learn", what: "learning new stations, through the switch", unit: "M/s", target: value(">=", 1),
		ours: func(ctx context.Context, _ *rig, _ plan) (Sample, error) {
			e, err := newEngine()
			if err != nil {
				return Sample{}, err
			}
			defer e.close()
			dst := station(newcomers + 1)
			if err := e.introduce(ctx, dst); err != nil {
				return Sample{}, err
			}
			frames := make([]frame.Frame, newcomers)
			for i := range frames {
				frames[i] = smallFrame(dst, station(i))
			}
			begin := time.Now()
			if err := e.in.Replay(frames, newcomers); err != nil {
				return Sample{}, err
			}
			replay := time.Since(begin) // copies the frames before the first is heard
			err = until(ctx, func() bool { return e.table.PortLen(e.in1) == newcomers })
			took := time.Since(begin) - replay
			if err == nil && e.out.Stats().Sent < newcomers {
				err = until(ctx, func() bool { return e.out.Stats().Sent >= newcomers })
			}
			return Sample{Value: newcomers / took.Seconds() / 1e6}, err
		},
		note: func([]Round) string {
			return fmt.Sprintf("%d frames of 60 octets, each from a new station, forwarded to a known one; ports in memory", newcomers)
		},
	}
}

func observersOff() workload {
	return workload{
		name: "observers-off", what: "forwarding after captures and explanations, all over", unit: "Mpps",
		beside: besideFresh, target: atLeast(0.98),
		base: func(ctx context.Context, _ *rig, p plan) (Sample, error) { return forwardRate(ctx, p, false) },
		ours: func(ctx context.Context, _ *rig, p plan) (Sample, error) { return forwardRate(ctx, p, true) },
		note: func([]Round) string {
			return "60-octet frames between ports in memory; the target is that nothing is measurable, 2 % for noise"
		},
	}
}

// lookAround uses everything that shows frames, and puts it away again: captures
// of all and of some, one that nobody reads until it overflows, and explanations.
func lookAround(e *engine, f frame.Frame) error {
	some, err := filter.Compile("vlan 10 or ip[8] < 2 or ether proto 0x88b5")
	if err != nil {
		return err
	}
	for _, c := range []capture.Choice{{}, {Filter: some}, {Drops: true}, {Ports: []frame.PortID{e.in2}, Direction: capture.Out}} {
		r := capture.NewRing(c, 0)
		e.sw.Observe(r)
		for n := e.sw.Stats().RxFrames; e.sw.Stats().RxFrames < n+1000; {
			e.in.Inject(f.Data)
		}
		e.sw.Explain(e.in1, frame.Frame{Data: f.Data})
		e.sw.Unobserve(r)
	}
	return nil
}

// forwardRate is how many million frames a second cross a switch that nobody
// watches. One that was watched has been captured and explained before.
func forwardRate(ctx context.Context, p plan, watched bool) (Sample, error) {
	e, err := newEngine()
	if err != nil {
		return Sample{}, err
	}
	defer e.close()
	src, dst := station(0), station(1)
	if err := e.introduce(ctx, dst); err != nil {
		return Sample{}, err
	}
	f := smallFrame(dst, src)
	if watched {
		if err := lookAround(e, f); err != nil {
			return Sample{}, err
		}
	}
	frames := make([]frame.Frame, frame.BatchLen)
	for i := range frames {
		frames[i] = f
	}
	if err := e.in.Replay(frames, 1<<62); err != nil {
		return Sample{}, err
	}
	if err := pause(ctx, p.warm()); err != nil {
		return Sample{}, err
	}
	n0, t0 := e.sw.Stats().Sent, time.Now()
	if err := pause(ctx, p.window); err != nil {
		return Sample{}, err
	}
	n := e.sw.Stats().Sent - n0
	return Sample{Value: float64(n) / 1e6 / time.Since(t0).Seconds()}, nil
}
