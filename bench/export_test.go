package bench

import (
	"context"
	"time"

	"github.com/tapestry-net/tapestry/bench/pktgen"
)

// For the tests of this package.
var (
	Median     = median
	Figure     = figure
	ConfigText = configText
	Insert     = insert
)

// Met exports Target.met.
func (t Target) Met(v float64) bool { return t.met(v) }

// Settle exports Row.settle.
func (r *Row) Settle() { r.settle() }

// KernelAlone measures a flow over the kernel's bridge, on both sides of a row.
func KernelAlone(ctx context.Context, program, dir string, f pktgen.Flow, window time.Duration) (Row, error) {
	r, err := newRig(program, dir)
	if err != nil {
		return Row{}, err
	}
	defer r.close()
	w := against("kernel", "kernel beside itself", onKernel, onKernel, f, atLeast(0.01))
	return w.measure(ctx, r, plan{rounds: 1, window: window}, func(string) {}), nil
}
