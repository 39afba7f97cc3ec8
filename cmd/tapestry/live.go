package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
)

// live is how to look at the running switch.
type live struct {
	on    bool
	watch time.Duration
}

// checkLive compares the running switch with what it should be, and with a file
// if text is not nil.
func (c *cli) checkLive(cmd *cobra.Command, l live, file string, text []byte) error {
	if l.watch < 0 || l.watch > api.MaxWatch {
		return usagef(cmd, "--for %v: want 0s to %v", l.watch, api.MaxWatch)
	}
	var differences []api.Finding
	if text != nil {
		r, err := c.client().Apply(cmd.Context(), api.ApplyRequest{File: file, YAML: string(text), DryRun: true})
		if err != nil {
			return err
		}
		for _, change := range r.Changes {
			differences = append(differences, api.Finding{
				Area: "config", Subject: file, What: "the file differs from the configuration in force: " + change,
				Want: file, Got: "the configuration in force", Hint: "tapestry apply -c " + file,
			})
		}
	}
	r, err := c.client().Check(cmd.Context(), api.CheckRequest{WatchMS: int(l.watch.Milliseconds())})
	if err != nil {
		return err
	}
	r.Findings = append(differences, r.Findings...)
	if err := c.print(r, func() { c.printLive(r) }); err != nil || len(r.Findings) == 0 {
		return err
	}
	return api.Errorf(api.CodeFailed, "check --live: %s", count(len(r.Findings), "finding"))
}

func (c *cli) printLive(r api.CheckReply) {
	for _, f := range r.Findings {
		c.printf("%-8s  %s\n", f.Area, f.What)
		if f.Hint != "" {
			c.printf("          mend: %s\n", f.Hint)
		}
	}
	said := "nothing disagrees"
	if len(r.Findings) > 0 {
		said = count(len(r.Findings), "finding")
	}
	c.printf("%s: %s, %s, %s in the FDB, %s in %.1f s\n", said, count(r.Ports, "port"), count(r.Peers, "peer"), entries(r.Entries), count(r.Frames, "frame"), r.WatchedS)
	if r.Missed > 0 {
		c.printf("%s came too fast, or of too many stations, and were not compared\n", count(int(r.Missed), "frame"))
	}
}

func entries(n int) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}
