package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tapestry-net/tapestry/internal/api"
)

// completionTime bounds how long a completion waits for the switch.
const completionTime = 300 * time.Millisecond

// complete offers for the n-th argument what the n-th function returns, such as
// the names that the running switch knows.
func (c *cli) complete(names ...func(context.Context) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, done []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(done) >= len(names) || names[len(done)] == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.offer(names[len(done)])(cmd, done, "")
	}
}

// offer is complete for a flag.
func (c *cli) offer(names func(context.Context) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		return names(ctx), cobra.ShellCompDirectiveNoFileComp
	}
}

// fileFlags take the name of a file or folder, which the shell completes.
var fileFlags = []string{"config", "write", "pcap", "state", "save", "fifo"}

// completeAll gives every argument and flag that has no completion yet one:
// names of the switch, fixed choices, or nothing where the shell would offer
// files.
func (c *cli) completeAll(cmd *cobra.Command) {
	fixed := map[string][]string{
		"via": {"tap", "veth"}, "mode": {"bridge", "vepa", "private", "passthru"}, "encrypt": {"required"},
		"direction": {"in", "out", "both"}, "kind": api.EventKinds,
	}
	known := map[string]func(context.Context) []string{
		"network": c.networkNames, "access": c.networkNames, "native": c.networkNames, "trunk": c.networkNames, "in": c.inNames,
	}
	switch cmd.CommandPath() {
	case "tapestry capture", "tapestry fdb ls", "tapestry fdb flush", "tapestry fdb history":
		known["port"] = c.inNames // elsewhere --port is a new name, or a number
	}
	if cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 && !cmd.HasSubCommands() {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		do := cobra.NoFileCompletions
		if names, ok := known[f.Name]; ok {
			do = c.offer(names)
		} else if words, ok := fixed[f.Name]; ok {
			do = cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
		} else if slices.Contains(fileFlags, f.Name) {
			return
		}
		_ = cmd.RegisterFlagCompletionFunc(f.Name, do) // fails for a flag that has one of its own
	})
	for _, sub := range cmd.Commands() {
		c.completeAll(sub)
	}
}

// namespaces are the named ones of this machine, as attach takes them.
func namespaces(context.Context) (targets []string) {
	list, _ := os.ReadDir("/run/netns") // none there, none offered
	for _, e := range list {
		targets = append(targets, "netns:"+api.Clean(e.Name()))
	}
	return targets
}

// attached are the namespaces that have a port, as detach takes them.
func (c *cli) attached(ctx context.Context) (targets []string) {
	list, _ := c.client().Ports(ctx)
	for _, p := range list {
		switch {
		case p.Netns == "":
		case strings.ContainsAny(p.Netns, ":/"):
			targets = append(targets, api.Clean(p.Netns))
		default:
			targets = append(targets, "netns:"+api.Clean(p.Netns))
		}
	}
	return targets
}

// stations are the MAC addresses that the switch knows.
func (c *cli) stations(ctx context.Context) (macs []string) {
	const most = 1000 // more are no help at a prompt
	list, _ := c.client().FDB(ctx)
	for _, e := range list[:min(len(list), most)] {
		macs = append(macs, e.MAC.String())
	}
	return macs
}
