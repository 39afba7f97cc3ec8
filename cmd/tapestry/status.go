package main

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// reasonDoc explains a reason by its name; empty for one of another version.
func reasonDoc(name string) string {
	var r frame.Reason
	if r.UnmarshalText([]byte(name)) != nil {
		return ""
	}
	return r.Doc()
}

func (c *cli) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "One screen of health", Args: args(),
		Long:    "Shows whether the switch is well, and for each problem what mends it.",
		Example: "  tapestry status",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := c.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(s, func() { c.printStatus(s) })
		},
	}
}

func (c *cli) printStatus(s api.Status) {
	state := "forwarding"
	if !s.Ready {
		state = "starting"
	}
	t := c.table()
	t.row("host", s.Host)
	t.row("version", s.Version)
	t.row("switch", state)
	t.row("networks", s.Networks)
	t.flush()
	c.printf("ports     %d up, %d down\n", s.Ports.Up, s.Ports.Down)
	if p := s.Peers; p.Connecting > 0 {
		c.printf("peers     %d up, %d down, %d connecting\n", p.Up, p.Down, p.Connecting)
	} else if p.Up+p.Down > 0 {
		c.printf("peers     %d up, %d down\n", p.Up, p.Down)
	}
	c.printf("fdb       %d of %d entries\n", s.FDB.Entries, s.FDB.Limit)
	if len(s.Problems) == 0 {
		c.printf("problems  none\n")
		return
	}
	c.printf("\nproblems\n")
	for _, p := range s.Problems {
		c.printf("  %s\n", p.What)
		if p.Hint != "" {
			c.printf("    hint: %s\n", p.Hint)
		}
	}
}

func (c *cli) stats() *cobra.Command {
	return &cobra.Command{
		Use: "stats", Short: "Counters of the whole switch", Args: args(),
		Long: "Shows what entered the switch, what was decided and what was not sent on.\n" +
			"Every received frame has a verdict; every copy is sent or refused for a reason.",
		Example: "  tapestry stats --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := c.client().Stats(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(s, func() { c.printStats(s) })
		},
	}
}

func (c *cli) printStats(s api.Stats) {
	c.printf("%s, worker %d, up %s, generation %d\n\n", s.Host, s.PID, seconds(s.UptimeS), s.Generation)
	t := c.table()
	t.row("received", s.RxFrames, "frames")
	if s.Own > 0 {
		t.row("  own", s.Own, "ICMP errors in the name of stations behind peers")
	}
	for _, a := range []string{"forward", "flood", "drop", "local"} {
		t.row("  "+a, s.Verdicts[a])
	}
	t.row("copies sent", s.Copies.Sent)
	t.row("copies refused", s.Copies.Refused)
	t.row("loops", s.Loop.Loops)
	t.row("  wakeups", s.Loop.Wakeups)
	t.row("  spins", s.Loop.Spins, "empty polls before sleeping")
	t.row("  writes", s.Loop.Writes, "after coalescing")
	t.row("  coalesced", s.Loop.Coalesced, "copies inside another's GSO frame")
	t.row("  segmented", s.Loop.Segmented, "GSO frames cut for an egress without offloads")
	t.row("station moves", s.Loop.Moves)
	t.row("fdb evictions", s.Loop.Evicted)
	t.flush()
	c.printf("\ndrops %d\n", total(s.Drops))
	c.drops(s.Drops)
	if s.Missed > 0 {
		c.printf("\ndropped by the kernel before the switch read them: %d datagrams\n", s.Missed)
	}
}

func (c *cli) events() *cobra.Command {
	var kinds []string
	var from string
	cmd := &cobra.Command{
		Use: "events [--kind KIND]... [--since TIME]", Short: "Follow what happens in the switch", Args: args(),
		Long: "Prints one line for each event as it happens, until interrupted; with --since first\n" +
			"those that are remembered: of ports, peers, loops, storms, flapping stations, workers\n" +
			"and configurations, not of frames and single moves.",
		Example:               "  tapestry events --kind port --kind loop\n  tapestry events --since -1h --json",
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			since, err := sinceFlag(cmd, from)
			if err != nil {
				return err
			}
			for e, err := range c.client().EventsSince(cmd.Context(), kinds, since) {
				if err != nil {
					return err
				}
				if err := c.print(e, func() {
					c.printf("%s  %-8s %s\n", e.Time.Format("15:04:05.000"), e.Kind, e.What)
				}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&kinds, "kind", nil, "only events of this kind: "+strings.Join(api.EventKinds, ", ")+" (repeatable)")
	cmd.Flags().StringVar(&from, "since", "", "begin with what is remembered since then: "+momentForms)
	return cmd
}

func (c *cli) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Version of this program", Args: args(),
		Long:    "Prints the version of this program; `tapestry status` prints that of the running switch.",
		Example: "  tapestry version",
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
				Commit  string `json:"commit"`
				Go      string `json:"go"`
				System  string `json:"system"`
			}{Version: version, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
			if b, ok := debug.ReadBuildInfo(); ok {
				for _, s := range b.Settings {
					if s.Key == "vcs.revision" {
						v.Commit = s.Value
					}
				}
			}
			return c.print(v, func() { c.printf("tapestry %s %s %s %s\n", v.Version, v.Commit, v.Go, v.System) })
		},
	}
}

func (c *cli) completion() *cobra.Command {
	return &cobra.Command{
		Use: "completion SHELL", Short: "Completion for bash, zsh, fish or powershell",
		Long:    "Prints a script that completes commands, flags and the names of ports and networks.\nSHELL is bash, zsh, fish or powershell.",
		Example: "  source <(tapestry completion bash)",
		Args:    args("SHELL"), ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, a []string) error {
			root := cmd.Root()
			switch a[0] {
			case "bash":
				return root.GenBashCompletionV2(c.out, true)
			case "zsh":
				return root.GenZshCompletion(c.out)
			case "fish":
				return root.GenFishCompletion(c.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(c.out)
			}
			return usagef(cmd, "unknown shell %q: want bash, zsh, fish or powershell", a[0])
		},
	}
}
