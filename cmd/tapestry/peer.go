package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
)

func (c *cli) peerGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "peer", Short: "Tunnel peers: ls, show, add, rm, history",
		Long: "A peer is another host: its VXLAN tunnel end point (VTEP) carries the networks that\n" +
			"have a VNI. It may be another tapestry, the kernel's vxlan device or any other VTEP.",
		Example: "  tapestry peer add h130 --address 192.168.18.130",
	}
	cmd.AddCommand(c.peerLs(), c.peerShow(), c.peerAdd(), c.rm("peer", c.peerNames), c.history("peer", c.peerNames))
	group(cmd)
	return cmd
}

func (c *cli) peerLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List peers", Args: args(),
		Long: "Lists the peers with the longest inner packet that their path carries (MTU) and the\n" +
			"frames that came from them (RX) and went to them (TX).",
		Example: "  tapestry peer ls --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.client().Peers(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(list, func() {
				t := c.table("NAME", "STATE", "SINCE", "ADDRESS", "ENCRYPTION", "NETWORKS", "MTU", "RX", "TX", "DROPS")
				for _, p := range list {
					t.row(p.Name, peerState(p), clock(p.Since), p.Address, encryption(p), strings.Join(p.Networks, ","), p.MTU, p.RX.Frames, p.TX.Frames, total(p.Drops))
				}
				t.flush()
			})
		},
	}
}

// peerState tells apart those that answer probes and those that never do.
func peerState(p api.Peer) string {
	if p.Passive {
		return p.State + " (passive)"
	}
	return p.State
}

func (c *cli) peerShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show one peer", Args: args("NAME"),
		Long: "Shows one peer: whether it is there, what it may carry, its counters; of an\nencrypted link also cipher, age and use of the keys, and why the last one failed.", Example: "  tapestry peer show h130",
		ValidArgsFunction: c.complete(c.peerNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			list, err := c.client().Peers(cmd.Context())
			if err != nil {
				return err
			}
			return showOne(c, "peer", a[0], list, func(p api.Peer) string { return p.Name }, c.printPeer)
		},
	}
}

func (c *cli) printPeer(p api.Peer) {
	t := c.table()
	t.row("peer", fmt.Sprintf("%s (%d)", p.Name, p.ID))
	t.row("address", p.Address)
	t.row("state", peerState(p))
	t.row("since", clock(p.Since))
	t.row("encryption", encryption(p))
	if p.Link != nil {
		printLink(t, p)
	}
	t.row("networks", strings.Join(p.Networks, ", "))
	t.row("mtu", pathMTU(p))
	t.row("fdb entries", p.Entries)
	t.row("received", fmt.Sprintf("%d frames, %d octets", p.RX.Frames, p.RX.Bytes))
	t.row("sent", fmt.Sprintf("%d frames, %d octets", p.TX.Frames, p.TX.Bytes))
	t.row("drops", total(p.Drops))
	t.flush()
	c.drops(p.Drops)
}

// pathMTU is what is known of the path: only a peer that answers tells of it.
func pathMTU(p api.Peer) string {
	if p.Passive {
		return fmt.Sprintf("%d (what leaves this host: the peer answers no probe, so the path may carry less)", p.MTU)
	}
	return fmt.Sprint(p.MTU)
}

func (c *cli) peerAdd() *cobra.Command {
	var address string
	var networks []string
	cmd := &cobra.Command{
		Use: "add NAME [YAML] [flags]", Short: "Add a peer", Args: args("NAME", "[YAML]"),
		Long: "Adds a peer. Its value is given by flags, or as YAML as it would stand in the file.\n" +
			"A tunnel that isn't configured yet listens on 0.0.0.0:4789.",
		Example: "  tapestry peer add h130 --address 192.168.18.130 --network blue\n" +
			"  tapestry peer add h131 '{address: 192.168.18.131:8472}'",
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, a []string) error {
			v := map[string]any{}
			if address != "" {
				v["address"] = address
			}
			if len(networks) > 0 {
				v["networks"] = networks
			}
			return c.item(cmd, "add", "peer", a, v)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "where it listens: IP, IP:PORT or [IPv6]:PORT; without a port 4789")
	f.StringArrayVar(&networks, "network", nil, "network that it may carry, repeatable; without one every network that has a VNI")
	return cmd
}

func (c *cli) peerNames(ctx context.Context) (names []string) {
	list, _ := c.client().Peers(ctx)
	for _, p := range list {
		names = append(names, api.Clean(p.Name))
	}
	return names
}
