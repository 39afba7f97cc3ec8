package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tapestry-net/tapestry/bench"
	"github.com/tapestry-net/tapestry/bench/pktgen"
	"github.com/tapestry-net/tapestry/internal/api"
)

func (c *cli) bench() *cobra.Command {
	o := bench.Options{Version: version}
	var quick, tunnel bool
	var save string
	cmd := &cobra.Command{
		Use: "bench [--quick] [--tunnel] [--only NAME]... [--save]", Short: "Measure this machine: the switch beside the kernel's own bridge", Args: args(),
		Long: `Measures throughput, latency and memory of the switch and of the kernel's bridge
in alternating rounds, and prints medians and the median of the rounds' ratios.
Everything happens in namespaces of its own, which takes root; nothing is left
behind. A target that is missed is no failure: it may hold on another machine.

What each workload measures, and how, is in bench/README.md. They are:
  ` + strings.Join(bench.Names(), "\n  "),
		Example:               "  tapestry bench --quick\n  tapestry bench --only tcp1 --only rtt --rounds 9\n  tapestry bench --save",
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if tunnel && len(o.Only) > 0 {
				return usagef(cmd, "--tunnel is all rows of two hosts: leave it out to measure only %s", strings.Join(o.Only, ", "))
			}
			if tunnel {
				o.Only = append(o.Only, bench.TunnelNames()...)
			}
			if quick {
				o.Rounds, o.Window = 3, time.Second
			}
			if o.Rounds < 1 || o.Window < 100*time.Millisecond {
				return usagef(cmd, "--rounds %d --window %v: want at least one round of 100ms", o.Rounds, o.Window)
			}
			if stderr, ok := c.err.(*os.File); ok && term.IsTerminal(int(stderr.Fd())) {
				o.Progress = func(s string) { fmt.Fprintf(stderr, "\r\033[K%s", s) }
				defer fmt.Fprint(stderr, "\r\033[K")
			}
			r, err := bench.Run(cmd.Context(), o)
			switch {
			case errors.Is(err, bench.ErrNotRoot):
				return api.Errorf(api.CodeNotPermitted, "%v", err).WithHint("sudo tapestry bench")
			case errors.Is(err, bench.ErrUnknown):
				return usagef(cmd, "%v", err)
			case err != nil:
				return err
			}
			return c.benchDone(r, save)
		},
	}
	cmd.Flags().IntVar(&o.Rounds, "rounds", 5, "how often each workload is measured")
	cmd.Flags().DurationVar(&o.Window, "window", 3*time.Second, "how long each measurement counts")
	cmd.Flags().BoolVar(&quick, "quick", false, "3 rounds of 1s: a glance, too short to quote")
	cmd.Flags().BoolVar(&tunnel, "tunnel", false, "measure two hosts: tunnels beside the kernel's VXLAN device and bridge")
	cmd.Flags().StringArrayVar(&o.Only, "only", nil, "measure this workload only; may be given several times")
	cmd.Flags().StringVar(&save, "save", "", "write the results as JSON and Markdown to this folder (default bench/results)")
	cmd.Flags().Lookup("save").NoOptDefVal = "bench/results"
	return cmd
}

// benchDone prints and saves a report. Rows that failed are the command's error.
func (c *cli) benchDone(r *bench.Report, save string) error {
	if err := c.print(r, func() { r.Text(c.out) }); err != nil {
		return err
	}
	if save != "" {
		files, err := r.Save(save)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.err, "saved %s\n", strings.Join(files, ", "))
	}
	if failed := r.Failed(); len(failed) > 0 {
		return api.Errorf(api.CodeFailed, "could not measure %s", strings.Join(failed, ", "))
	}
	return nil
}

// benchInside and benchTraffic are the processes that bench consists of.
func (c *cli) benchInside() *cobra.Command {
	return &cobra.Command{
		Use: bench.Command + " SPEC", Hidden: true, Args: args("SPEC"),
		RunE: func(cmd *cobra.Command, a []string) error { return bench.Inside(cmd.Context(), a[0], c.out) },
	}
}

func (c *cli) benchTraffic() *cobra.Command {
	return &cobra.Command{
		Use: pktgen.Command + " SPEC", Hidden: true, Args: args("SPEC"),
		RunE: func(_ *cobra.Command, a []string) error { return pktgen.Main(a[0]) },
	}
}
