package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
)

func (c *cli) networkGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "network", Short: "Networks: ls, show, add, rm",
		Long:    "A network is one broadcast domain: an 802.1Q VLAN, and a VXLAN VNI when it spans hosts.",
		Example: "  tapestry network add blue --vlan 10 --mtu 1450",
	}
	cmd.AddCommand(c.networkLs(), c.networkShow(), c.networkAdd(), c.rm("network", c.networkNames))
	group(cmd)
	return cmd
}

func (c *cli) networkLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List networks", Args: args(),
		Long: "Lists the networks of the switch.", Example: "  tapestry network ls",
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.client().Networks(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(list, func() {
				t := c.table("NAME", "VLAN", "VNI", "MTU", "AGEING", "PORTS", "PEERS", "FDB")
				for _, n := range list {
					t.row(n.Name, n.VLAN, vni(n.VNI), n.MTU, ageing(n.Ageing), len(n.Ports), len(n.Peers), n.Entries)
				}
				t.flush()
			})
		},
	}
}

// vni shows a VNI; without one a network stays on this host.
func vni(n uint32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func (c *cli) networkShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show one network", Args: args("NAME"),
		Long: "Shows one network and its members.", Example: "  tapestry network show blue",
		ValidArgsFunction: c.complete(c.networkNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			list, err := c.client().Networks(cmd.Context())
			if err != nil {
				return err
			}
			return showOne(c, "network", a[0], list, func(n api.Network) string { return n.Name }, c.printNetwork)
		},
	}
}

func (c *cli) printNetwork(n api.Network) {
	t := c.table()
	t.row("network", n.Name)
	t.row("vlan", n.VLAN)
	t.row("vni", vni(n.VNI))
	t.row("mtu", n.MTU)
	t.row("encrypt", n.Encrypt)
	t.row("ageing", ageing(n.Ageing))
	t.row("ports", strings.Join(n.Ports, ", "))
	t.row("peers", strings.Join(n.Peers, ", "))
	t.row("fdb entries", n.Entries)
	t.flush()
}

func (c *cli) networkAdd() *cobra.Command {
	var vlan, mtu int
	var vni uint32
	var age time.Duration
	var encrypt, mode string
	cmd := &cobra.Command{
		Use: "add NAME [YAML] [flags]", Short: "Add a network", Args: args("NAME", "[YAML]"),
		Long: "Adds a network. Its value is given by flags, or as YAML as it would stand in the\n" +
			"file. A VLAN is chosen when none is named.",
		Example: "  tapestry network add blue --vlan 10 --mtu 1450\n" +
			"  tapestry network add red '{vlan: 20, vni: 10020, ageing: 60s}'",
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, a []string) error {
			v := given(cmd, map[string]any{"vlan": vlan, "vni": vni, "mtu": mtu, "encrypt": encrypt, "mode": mode, "ageing": age.String()})
			return c.item(cmd, "add", "network", a, v)
		},
	}
	f := cmd.Flags()
	f.IntVar(&vlan, "vlan", 0, "802.1Q VLAN, 1 to 4094")
	f.Uint32Var(&vni, "vni", 0, "VXLAN VNI, 1 to 16777215; without one the network stays on this host")
	f.IntVar(&mtu, "mtu", 0, "octets of the largest L3 packet")
	f.DurationVar(&age, "ageing", 0, "how long a silent address stays known, 0s = for ever")
	f.StringVar(&encrypt, "encrypt", "", "required: frames leave this host encrypted or not at all")
	f.StringVar(&mode, "mode", "", "default of its ports: bridge, vepa, private, passthru")
	return cmd
}

// given keeps those values whose flag of the same name was set; a dash in the
// flag is an underscore in the key.
func given(cmd *cobra.Command, all map[string]any) map[string]any {
	v := map[string]any{}
	for k, x := range all {
		if cmd.Flags().Changed(strings.ReplaceAll(k, "_", "-")) {
			v[k] = x
		}
	}
	return v
}

// position stands before an error of a value at a line and column of it.
var position = regexp.MustCompile(`(?m)^\d+:\d+: `)

// item sends one change. The value comes from the second argument as YAML, or
// from flags as JSON, which is YAML too, but whose columns mean nothing to who
// gave flags.
func (c *cli) item(cmd *cobra.Command, op, kind string, a []string, v any) error {
	r := api.ItemRequest{Op: op, Kind: kind, Name: a[0]}
	if len(a) > 1 {
		if m, ok := v.(map[string]any); ok && len(m) > 0 {
			return usagef(cmd, "give the value by flags or as YAML, not both")
		}
		r.YAML = a[1]
	} else if v != nil {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("write value: %w", err)
		}
		r.YAML = string(b)
	}
	err := c.sendItem(cmd.Context(), r)
	if e, ok := errors.AsType[*api.Error](err); ok && len(a) == 1 {
		e.Msg = position.ReplaceAllString(e.Msg, "")
	}
	return err
}

func (c *cli) sendItem(ctx context.Context, r api.ItemRequest) error {
	reply, err := c.client().Item(ctx, r)
	if err != nil {
		return err
	}
	return c.changes(reply)
}

// rm removes one thing by name.
func (c *cli) rm(kind string, names func(context.Context) []string) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Remove a " + kind, Args: args("NAME"),
		Long:              "Removes one " + kind + " from the running switch. Nothing of it is left behind.",
		Example:           "  tapestry " + kind + " rm " + map[string]string{"network": "blue", "port": "c1", "peer": "h130"}[kind],
		ValidArgsFunction: c.complete(names),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.item(cmd, "rm", kind, a, nil)
		},
	}
}

func (c *cli) networkNames(ctx context.Context) (names []string) {
	list, _ := c.client().Networks(ctx) // no daemon, no completion
	for _, n := range list {
		names = append(names, api.Clean(n.Name))
	}
	return names
}

func (c *cli) portNames(ctx context.Context) (names []string) {
	list, _ := c.client().Ports(ctx)
	for _, p := range list {
		names = append(names, api.Clean(p.Name))
	}
	return names
}
