package main

import (
	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
)

const targetHelp = `TARGET is netns:NAME, pid:N, the absolute path of a namespace such as
/proc/N/ns/net, or the name or ID of a Docker container.`

func (c *cli) attach() *cobra.Command {
	var r api.AttachRequest
	cmd := &cobra.Command{
		Use: "attach TARGET --network NETWORK [flags]", Short: "Give a container or namespace a port", Args: args("TARGET"),
		Long: "Gives a running container or namespace an interface that is a port of the switch.\n" + targetHelp,
		Example: "  tapestry attach web --network blue --address 10.1.0.9/24\n" +
			"  tapestry attach netns:c3 --network blue --address 10.1.0.4/24 --gateway 10.1.0.1",
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     c.complete(namespaces),
		RunE: func(cmd *cobra.Command, a []string) error {
			if r.Network == "" {
				return usagef(cmd, "name the network with --network").WithHint("`tapestry network ls` lists them")
			}
			t, err := resolve(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			r.Netns, r.Label = t.Netns, t.Label
			p, err := c.client().Attach(cmd.Context(), r)
			if err != nil {
				return err
			}
			return c.print(p, func() {
				c.printf("port %s: %s %s in %s, network %s, MAC %s, MTU %d\n", p.Name, p.Kind, p.Device, p.Netns, p.Network, p.MAC, p.MTU)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Network, "network", "", "the network to join")
	f.StringVar(&r.Port, "port", "", "name of the port (default made from TARGET)")
	f.StringVar(&r.Ifname, "ifname", "eth0", "name of the interface in the namespace")
	f.StringSliceVar(&r.Addresses, "address", nil, "address with prefix length, as 10.1.0.9/24 (repeatable)")
	f.StringVar(&r.Gateway, "gateway", "", "default gateway inside the namespace")
	f.StringVar(&r.MAC, "mac", "", "MAC address of the interface")
	f.StringVar(&r.Via, "via", "tap", "tap or veth")
	return cmd
}

func (c *cli) detach() *cobra.Command {
	var r api.DetachRequest
	cmd := &cobra.Command{
		Use: "detach TARGET [--ifname eth0]", Short: "Take a port away from a container or namespace", Args: args("TARGET"),
		Long:                  "Removes the interface and the port, and leaves nothing behind.\n" + targetHelp,
		Example:               "  tapestry detach web",
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     c.complete(c.attached),
		RunE: func(cmd *cobra.Command, a []string) error {
			t, err := resolve(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			r.Netns = t.Netns
			if err := c.client().Detach(cmd.Context(), r); err != nil {
				return err
			}
			return c.print(r, func() { c.printf("detached %s from %s\n", r.Ifname, a[0]) })
		},
	}
	cmd.Flags().StringVar(&r.Ifname, "ifname", "eth0", "name of the interface in the namespace")
	return cmd
}
