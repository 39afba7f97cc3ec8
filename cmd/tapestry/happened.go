package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
)

// historyKinds are the kinds of event that concern a port or a peer.
var historyKinds = map[string][]string{
	"port": {"port", "loop", "storm", "worker"},
	"peer": {"peer", "worker"},
}

// history shows what happened to ports or peers.
func (c *cli) history(kind string, names func(context.Context) []string) *cobra.Command {
	var limit int
	var since string
	cmd := &cobra.Command{
		Use: "history [NAME] [flags]", Short: "What happened to " + kind + "s", Args: args("[NAME]"), DisableFlagsInUseLine: true,
		Long: "Lists what happened to one " + kind + ", or all of them, newest last: up and down with the reason,\n" +
			"changes of MTU, and the workers that came and went. The newest 64 events of each are\n" +
			"remembered, also when the worker or the whole switch is restarted.",
		Example:           "  tapestry " + kind + " history --since -1h",
		ValidArgsFunction: c.complete(names),
		RunE: func(cmd *cobra.Command, a []string) error {
			if limit < 1 {
				return usagef(cmd, "--limit %d: want a number from 1", limit)
			}
			r := api.HappenedRequest{Kinds: historyKinds[kind], Limit: limit}
			var err error
			if r.Since, err = sinceFlag(cmd, since); err != nil {
				return err
			}
			if len(a) > 0 {
				if kind == "port" {
					r.Port = a[0]
				} else {
					r.Peer = a[0]
				}
			}
			list, err := c.client().Happened(cmd.Context(), r)
			if err != nil {
				return err
			}
			// One that has gone has a past still.
			own := func(e api.Event) bool { return e.Port != "" || e.Peer != "" }
			if len(a) > 0 && !slices.ContainsFunc(list, own) {
				if err := known(kind, a[0], names(cmd.Context())); err != nil {
					return err
				}
			}
			return c.print(list, func() { c.printHappened(list) })
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many events")
	cmd.Flags().StringVar(&since, "since", "", "only from then on: "+momentForms)
	return cmd
}

func (c *cli) printHappened(list []api.Event) {
	for _, e := range list {
		c.printf("%s  %-6s %s\n", clock(e.Time), e.Kind, e.What)
	}
}
