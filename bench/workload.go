package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tapestry-net/tapestry/bench/machine"
	"github.com/tapestry-net/tapestry/bench/pktgen"
)

// What a row's figures are set beside.
const (
	besideKernel = "kernel"
	besideSmall  = "2 ports"
	besideFresh  = "never watched"
)

// plan is how long and how often is measured.
type plan struct {
	rounds int
	window time.Duration
}

// warm is the part of a measurement before its window: connections open, TCP
// windows grow, addresses are learned.
func (p plan) warm() time.Duration { return min(p.window/4, 500*time.Millisecond) }

// workload is one row to be measured.
type workload struct {
	name, what, unit string
	beside           string
	target           *Target
	once             bool // the figure doesn't vary: one round
	// base measures what it is compared with; nil = nothing.
	base, ours func(ctx context.Context, r *rig, p plan) (Sample, error)
	// note explains a row with all its rounds; nil = nothing.
	note func(rounds []Round) string
}

func atLeast(ratio float64) *Target { return &Target{Of: "ratio", Op: ">=", Limit: ratio} }
func atMost(ratio float64) *Target  { return &Target{Of: "ratio", Op: "<=", Limit: ratio} }

func value(op string, limit float64) *Target { return &Target{Of: "value", Op: op, Limit: limit} }

// workloads are all rows, in the order of the report.
func workloads() []workload {
	tcp1 := pktgen.Flow{Kind: pktgen.TCP, Streams: 1}
	tcp4 := pktgen.Flow{Kind: pktgen.TCP, Streams: 4}
	// 18 octets of payload make a frame of 60, the smallest without FCS.
	small := pktgen.Flow{Kind: pktgen.Flood, Size: 18}
	rtt := pktgen.Flow{Kind: pktgen.PingPong, Size: 64}
	apart := rtt
	apart.Apart = true
	local := []workload{
		against("tcp1", "TCP, 1 stream, TAP ports", onKernel, onTAP, tcp1, atLeast(0.85)),
		against("tcp4", "TCP, 4 streams, TAP ports", onKernel, onTAP, tcp4, atLeast(0.42)),
		against("udp60", "UDP, 60-byte frames, TAP ports", onKernel, onTAP, small, atLeast(2.0)),
		against("rtt", "UDP round trip p50, TAP ports, ends on two CPUs", onKernel, onTAP, apart, atMost(0.75)),
		against("rtt-free", "UDP round trip p50, TAP ports, ends anywhere", onKernel, onTAP, rtt, nil),
		against("veth-tcp1", "TCP, 1 stream, veth ports by tc", onKernel, onVeth, tcp1, atLeast(0.85)),
		against("wide-tcp1", "TCP, 1 stream, beside 1,000 idle ports", onTAP, onWide, tcp1, atLeast(0.95)),
		against("wide-udp60", "UDP, 60-byte frames, beside 1,000 idle ports", onTAP, onWide, small, atLeast(0.95)),
		idleCPU(),
		memory("rss-1000", "resident memory, 1,002 ports", onWide, value("<=", 64)),
		memory("rss-2", "resident memory, 2 ports", onTAP, nil),
		fdbLookup(), fdbMemory(), learning(), observersOff(),
	}
	return append(local, tunnelWorkloads()...)
}

// Names are the names of all workloads, in order.
func Names() []string {
	var names []string
	for _, w := range workloads() {
		names = append(names, w.name)
	}
	return names
}

// units are what a kind of traffic is measured in, and the amount that its
// costs are given for.
var units = map[pktgen.Kind]struct {
	unit, amount string
	of           func(pktgen.Result) (value, amount float64)
}{
	pktgen.TCP: {"Gb/s", "GB", func(r pktgen.Result) (float64, float64) {
		return float64(r.Bytes) * 8 / 1e9 / r.Seconds, float64(r.Bytes) / 1e9
	}},
	pktgen.Flood: {"Mpps", "Mpkt", func(r pktgen.Result) (float64, float64) {
		return float64(r.Packets) / 1e6 / r.Seconds, float64(r.Packets) / 1e6
	}},
	pktgen.PingPong: {"µs", "M trips", func(r pktgen.Result) (float64, float64) {
		return r.P50, float64(r.Packets) / 1e6
	}},
}

// against is a flow over two subjects.
func against(name, what, left, right string, f pktgen.Flow, t *Target) workload {
	w := workload{
		name: name, what: what, unit: units[f.Kind].unit, beside: besideKernel, target: t,
		base: send(left, f), ours: send(right, f),
	}
	if left != onKernel {
		w.beside = besideSmall
	}
	w.note = func(rounds []Round) string { return costs(f.Kind, w.beside, rounds) }
	return w
}

// send measures a flow over a subject.
func send(name string, f pktgen.Flow) func(context.Context, *rig, plan) (Sample, error) {
	return func(ctx context.Context, r *rig, p plan) (Sample, error) {
		s, err := r.subject(ctx, name)
		if err != nil {
			return Sample{}, err
		}
		var m machine.Meter
		if s.daemon != nil {
			m.PIDs = s.daemon.pids
		}
		f.Warm, f.Window = p.warm(), p.window
		got, err := pktgen.Measure(ctx, r.program, s.ends, f, m.Begin, m.End)
		if err == nil {
			err = m.Err
		}
		if err != nil {
			return Sample{}, fmt.Errorf("%s: %w", name, err)
		}
		v, amount := units[f.Kind].of(got)
		if amount == 0 {
			return Sample{}, fmt.Errorf("%s: nothing arrived in %v", name, p.window)
		}
		return Sample{
			Value: v, SwitchCPU: m.Used.Seconds() / amount, SystemCPU: m.Busy.Seconds() / amount,
			Retransmits: float64(got.Retransmits), Offered: got.Offered / 1e6, P99: got.P99, Lost: float64(got.Lost),
		}, nil
	}
}

// costs says what the figures of a flow cost on both sides.
func costs(k pktgen.Kind, beside string, rounds []Round) string {
	both := func(f func(Sample) float64) (float64, float64) { return ours(rounds, f), base(rounds, f) }
	sys, sysBase := both(func(s Sample) float64 { return s.SystemCPU })
	sw := ours(rounds, func(s Sample) float64 { return s.SwitchCPU })
	unit := "s/" + units[k].amount
	if k == pktgen.PingPong {
		p99, p99Base := both(func(s Sample) float64 { return s.P99 })
		lost, lostBase := both(func(s Sample) float64 { return s.Lost })
		return fmt.Sprintf("p99 %s µs (%s %s); %s lost (%s %s)", figure(p99), beside, figure(p99Base), figure(lost), beside, figure(lostBase))
	}
	text := fmt.Sprintf("switch CPU %s %s, whole machine %s (%s %s)", figure(sw), unit, figure(sys), beside, figure(sysBase))
	if k == pktgen.TCP {
		re, reBase := both(func(s Sample) float64 { return s.Retransmits })
		return text + fmt.Sprintf("; %s retransmits (%s %s)", figure(re), beside, figure(reBase))
	}
	off, offBase := both(func(s Sample) float64 { return s.Offered })
	return text + fmt.Sprintf("; offered %s Mpps (%s %s)", figure(off), beside, figure(offBase))
}

// idleCPU is the processor time of a switch with 1,002 ports and no traffic.
func idleCPU() workload {
	return workload{
		name: "idle-cpu", what: "CPU of the switch with 1,002 ports, nothing flows", unit: "%", target: value("<", 0.5),
		ours: func(ctx context.Context, r *rig, p plan) (Sample, error) {
			s, err := r.subject(ctx, onWide)
			if err != nil {
				return Sample{}, err
			}
			if err := pause(ctx, p.warm()); err != nil {
				return Sample{}, err
			}
			keeper, worker := machine.Meter{PIDs: s.daemon.pids[:1]}, machine.Meter{PIDs: s.daemon.pids[1:]}
			begin := time.Now()
			keeper.Begin()
			worker.Begin()
			if err := pause(ctx, max(p.window, 2*time.Second)); err != nil {
				return Sample{}, err
			}
			keeper.End()
			worker.End()
			percent := 100 / time.Since(begin).Seconds()
			k, w := percent*keeper.Used.Seconds(), percent*worker.Used.Seconds()
			return Sample{Value: k + w, Keeper: k}, errors.Join(keeper.Err, worker.Err)
		},
		note: func(rounds []Round) string {
			k := ours(rounds, func(s Sample) float64 { return s.Keeper })
			return fmt.Sprintf("of one processor; keeper alone %s %%", figure(k))
		},
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// memory is the resident memory of a switch that has just carried traffic.
func memory(name, what, subject string, t *Target) workload {
	return workload{
		name: name, what: what, unit: "MB", target: t, once: true,
		ours: func(ctx context.Context, r *rig, p plan) (Sample, error) {
			if _, err := send(subject, pktgen.Flow{Kind: pktgen.TCP, Streams: 1})(ctx, r, p); err != nil {
				return Sample{}, err
			}
			d := r.subjects[subject].daemon
			s := Sample{StartS: d.startup.Seconds()}
			for i, pid := range d.pids {
				all, file, shared, err := machine.RSS(pid)
				if err != nil {
					return Sample{}, err
				}
				s.Value += all
				s.FileMB += file
				s.SharedMB += shared
				if i == 0 {
					s.Keeper = all
				}
			}
			return s, nil
		},
		note: func(rounds []Round) string {
			s := rounds[0].Ours
			return fmt.Sprintf("keeper %s, worker %s; of both, %s MB are pages of the program's file and %s MB the shared table; started in %s s",
				figure(s.Keeper), figure(s.Value-s.Keeper), figure(s.FileMB), figure(s.SharedMB), figure(s.StartS))
		},
	}
}

// measure runs all rounds of w. Even rounds begin with the base, odd ones with
// ours, so that neither side always finds the machine as the other left it.
func (w *workload) measure(ctx context.Context, r *rig, p plan, progress func(string)) Row {
	row := Row{Name: w.name, What: w.what, Unit: w.unit, Beside: w.beside, Target: w.target, Rounds: []Round{}}
	rounds := p.rounds
	if w.once {
		rounds = 1
	}
	for i := range rounds {
		progress(fmt.Sprintf("%s %d/%d", w.name, i+1, rounds))
		got, err := w.round(ctx, r, p, i%2 == 1)
		if err != nil {
			row.Error = err.Error()
			break
		}
		row.Rounds = append(row.Rounds, got)
	}
	row.settle()
	if w.note != nil && len(row.Rounds) > 0 {
		row.Note = w.note(row.Rounds)
	}
	return row
}

func (w *workload) round(ctx context.Context, r *rig, p plan, oursFirst bool) (got Round, err error) {
	sides := []func() error{
		func() error {
			if w.base == nil {
				return nil
			}
			s, err := w.base(ctx, r, p)
			got.Base = &s
			return err
		},
		func() error {
			got.Ours, err = w.ours(ctx, r, p)
			return err
		},
	}
	if oursFirst {
		sides[0], sides[1] = sides[1], sides[0]
	}
	for _, side := range sides {
		if err := side(); err != nil {
			return got, err
		}
	}
	if math.IsNaN(got.Ours.Value) || math.IsInf(got.Ours.Value, 0) {
		return got, fmt.Errorf("measured %v %s", got.Ours.Value, w.unit)
	}
	return got, nil
}
