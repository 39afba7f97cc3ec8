package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
)

func (c *cli) fdbGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "fdb", Short: "Filtering database: ls, add, rm, flush, why, history",
		Long:    "The filtering database (FDB) remembers behind which port each MAC address of each\nnetwork was last seen.",
		Example: "  tapestry fdb why 02:00:00:00:00:01",
	}
	cmd.AddCommand(c.fdbLs(), c.fdbAdd(), c.fdbRm(), c.fdbFlush(), c.fdbWhy(), c.fdbHistory())
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
		Long:    "Adds a static entry: it never ages and is never learned elsewhere.",
		Example: "  tapestry fdb add blue 02:00:00:00:00:09 c1",
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
		Long:    "Removes a static entry; `tapestry fdb flush` removes dynamic ones.",
		Example: "  tapestry fdb rm blue 02:00:00:00:00:09",
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

func (c *cli) fdbWhy() *cobra.Command {
	return &cobra.Command{
		Use: "why MAC", Short: "Why the switch believes that an address is where it is", Args: args("MAC"),
		Long:    "Says which frame on which port taught the switch an address, when, and where the\naddress was before.",
		Example: "  tapestry fdb why 02:00:00:00:00:01",
		RunE: func(cmd *cobra.Command, a []string) error {
			if _, err := parseMAC(cmd, a[0]); err != nil {
				return err
			}
			w, err := c.client().Why(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			return c.print(w, func() { c.printWhy(w) })
		},
	}
}

func (c *cli) printWhy(w api.Why) {
	if len(w.Entries) == 0 {
		c.printf("The switch knows no port for %s now: frames for it are flooded.\n", w.MAC.String())
	}
	for _, e := range w.Entries {
		place := "port " + e.Port
		if e.Peer != "" {
			place = "peer " + e.Peer
		}
		if e.Kind == "static" {
			c.printf("%s is at %s in network %s (VLAN %d), because a static entry says so.\n", e.MAC.String(), place, e.Network, e.VLAN)
			continue
		}
		c.printf("%s is behind %s in network %s (VLAN %d), last heard %s ago.\n", e.MAC.String(), place, e.Network, e.VLAN, seconds(e.AgeS))
		if t, ok := taughtBy(w.History, e); ok {
			c.printf("A frame that came in by port %s at %s taught it: %s.\n", t.Port, clock(t.Time), t.Frame)
		} else {
			c.printf("The frame that taught it is older than the history reaches back.\n")
		}
	}
	if len(w.History) > 0 {
		c.printf("\nhistory, newest last\n")
		c.printHistory(w.History)
	}
}

// taughtBy is the newest event that put e where it is.
func taughtBy(history []api.Taught, e api.Entry) (api.Taught, bool) {
	for i := len(history) - 1; i >= 0; i-- {
		t := history[i]
		if t.VLAN == e.VLAN && (t.Event == "learned" || t.Event == "moved") {
			return t, t.Port == e.Port || e.Peer != "" && t.Port == "peer/"+e.Peer
		}
	}
	return api.Taught{}, false
}

func (c *cli) fdbHistory() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "history [--limit N]", Short: "What was learned, moved and forgotten", Args: args(), DisableFlagsInUseLine: true,
		Long:    "Lists the newest events of the FDB, newest last: who taught what, when, by which frame.",
		Example: "  tapestry fdb history --limit 20",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usagef(cmd, "--limit %d: want a number from 1", limit)
			}
			list, err := c.client().History(cmd.Context(), limit)
			if err != nil {
				return err
			}
			return c.print(list, func() { c.printHistory(list) })
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many events")
	return cmd
}

func (c *cli) printHistory(list []api.Taught) {
	t := c.table()
	for _, h := range list {
		place := h.Port
		if h.OldPort != "" {
			place = h.OldPort + " → " + h.Port
		}
		t.row(clock(h.Time), h.Event, h.Network, h.MAC, strings.TrimSpace(place), fmt.Sprint(h.Frame))
	}
	t.flush()
}
