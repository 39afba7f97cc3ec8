package main

import (
	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
)

func (c *cli) fdbGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "fdb", Short: "Filtering database: ls, add, rm, flush, why, history, at",
		Long:    "The filtering database (FDB) remembers behind which port each MAC address of each\nnetwork was last seen.",
		Example: "  tapestry fdb why 02:00:00:00:00:01",
	}
	cmd.AddCommand(c.fdbLs(), c.fdbAdd(), c.fdbRm(), c.fdbFlush(), c.fdbWhy(), c.fdbHistory(), c.fdbAt())
	group(cmd)
	return cmd
}

func (c *cli) fdbLs() *cobra.Command {
	var network, port string
	cmd := &cobra.Command{
		Use: "ls [flags]", Short: "List entries", Args: args(), DisableFlagsInUseLine: true,
		Long: "Lists the entries, of one network or port if wanted.", Example: "  tapestry fdb ls --network blue",
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.client().FDB(cmd.Context())
			if err != nil {
				return err
			}
			if network != "" {
				if err := known("network", network, c.networkNames(cmd.Context())); err != nil {
					return err
				}
			}
			if port != "" {
				if err := known("port", port, c.portNames(cmd.Context())); err != nil {
					return err
				}
			}
			list := all[:0]
			for _, e := range all {
				if (network == "" || e.Network == network) && (port == "" || e.Port == port || e.Peer != "" && port == "peer/"+e.Peer) {
					list = append(list, e)
				}
			}
			return c.print(list, func() {
				t := c.table("NETWORK", "VLAN", "MAC", "PORT", "PEER", "KIND", "AGE", "MOVES")
				for _, e := range list {
					t.row(e.Network, e.VLAN, e.MAC, e.Port, e.Peer, e.Kind, seconds(e.AgeS), e.Moves)
				}
				t.flush()
			})
		},
	}
	cmd.Flags().StringVar(&network, "network", "", "only this network")
	cmd.Flags().StringVar(&port, "port", "", "only this port, or peer/NAME")
	return cmd
}

func (c *cli) fdbAdd() *cobra.Command {
	return &cobra.Command{
		Use: "add NETWORK MAC PORT", Short: "Add a static entry", Args: args("NETWORK", "MAC", "PORT"),
		Long:              "Adds a static entry: it never ages and is never learned elsewhere.",
		Example:           "  tapestry fdb add blue 02:00:00:00:00:09 c1",
		ValidArgsFunction: c.complete(c.networkNames, nil, c.portNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			m, err := parseMAC(cmd, a[1])
			if err != nil {
				return err
			}
			return c.item(cmd, "add", "fdb", []string{""}, map[string]any{"network": a[0], "mac": m.String(), "port": a[2]})
		},
	}
}

func (c *cli) fdbRm() *cobra.Command {
	return &cobra.Command{
		Use: "rm NETWORK MAC", Short: "Remove a static entry", Args: args("NETWORK", "MAC"),
		Long:              "Removes a static entry; `tapestry fdb flush` removes dynamic ones.",
		Example:           "  tapestry fdb rm blue 02:00:00:00:00:09",
		ValidArgsFunction: c.complete(c.networkNames, c.stations),
		RunE: func(cmd *cobra.Command, a []string) error {
			m, err := parseMAC(cmd, a[1])
			if err != nil {
				return err
			}
			return c.item(cmd, "rm", "fdb", []string{""}, map[string]any{"network": a[0], "mac": m.String()})
		},
	}
}

func parseMAC(cmd *cobra.Command, s string) (frame.MAC, error) {
	m, err := frame.ParseMAC(s)
	if err != nil {
		return m, usagef(cmd, "%v", err)
	}
	return m, nil
}

func (c *cli) fdbFlush() *cobra.Command {
	var r api.FlushRequest
	cmd := &cobra.Command{
		Use: "flush [flags]", Short: "Forget dynamic entries", Args: args(), DisableFlagsInUseLine: true,
		Long:    "Forgets dynamic entries: those that match all flags, or all of them. The switch floods\nframes for a forgotten address until it hears from it.",
		Example: "  tapestry fdb flush --port c1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.MAC != "" {
				if _, err := parseMAC(cmd, r.MAC); err != nil {
					return err
				}
			}
			reply, err := c.client().Flush(cmd.Context(), r)
			if err != nil {
				return err
			}
			return c.print(reply, func() { c.printf("removed %d\n", reply.Removed) })
		},
	}
	cmd.Flags().StringVar(&r.Network, "network", "", "only this network")
	cmd.Flags().StringVar(&r.Port, "port", "", "only this port")
	cmd.Flags().StringVar(&r.MAC, "mac", "", "only this address")
	return cmd
}
