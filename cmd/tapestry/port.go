package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
)

func (c *cli) portGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "port", Short: "Ports: ls, show, add, set, rm, history",
		Long:    "A port is where a container, an interface or this host meets the switch.",
		Example: "  tapestry port ls",
	}
	cmd.AddCommand(c.portLs(), c.portShow(), c.portAdd(), c.portSet(), c.rm("port", c.portNames), c.history("port", c.portNames))
	group(cmd)
	return cmd
}

func (c *cli) portLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List ports", Args: args(),
		Long:    "Lists the ports with the frames that entered (RX) and left (TX) the switch by them.",
		Example: "  tapestry port ls --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.client().Ports(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(list, func() {
				t := c.table("NAME", "STATE", "KIND", "NETWORK", "DEVICE", "NETNS", "MTU", "RX", "TX", "DROPS")
				for _, p := range list {
					t.row(p.Name, p.State, p.Kind, membership(p), p.Device, p.Netns, p.MTU, p.RX.Frames, p.TX.Frames, total(p.Drops))
				}
				t.flush()
			})
		},
	}
}

// membership names the networks of a port: blue, or trunk blue,red native blue.
func membership(p api.Port) string {
	if len(p.Trunk) == 0 {
		return p.Network
	}
	s := "trunk " + strings.Join(p.Trunk, ",")
	if p.Native != "" {
		s += " native " + p.Native
	}
	return s
}

func (c *cli) portShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show one port", Args: args("NAME"),
		Long: "Shows one port: its state and why, its place in the networks, its counters.", Example: "  tapestry port show c1",
		ValidArgsFunction: c.complete(c.portNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			list, err := c.client().Ports(cmd.Context())
			if err != nil {
				return err
			}
			return showOne(c, "port", a[0], list, func(p api.Port) string { return p.Name }, c.printPort)
		},
	}
}

func (c *cli) printPort(p api.Port) {
	state := p.State
	if p.Reason != "" {
		state += ": " + p.Reason
	}
	t := c.table()
	t.row("port", fmt.Sprintf("%s (%d)", p.Name, p.ID))
	t.row("state", state)
	t.row("since", clock(p.Since))
	t.row("kind", p.Kind)
	t.row("device", p.Device)
	t.row("netns", p.Netns)
	t.row("network", membership(p))
	t.row("mac", p.MAC)
	t.row("addresses", strings.Join(p.Addresses, ", "))
	t.row("mtu", p.MTU)
	t.row("offloads", strings.Join(p.Offloads, " "))
	t.row("origin", p.Origin)
	t.row("restarts", p.Restarts)
	t.row("fdb entries", p.Entries)
	t.row("received", fmt.Sprintf("%d frames, %d octets", p.RX.Frames, p.RX.Bytes))
	t.row("sent", fmt.Sprintf("%d frames, %d octets", p.TX.Frames, p.TX.Bytes))
	t.row("drops", total(p.Drops))
	t.flush()
	c.drops(p.Drops)
}

// portFlags are the flags of `port add`.
type portFlags struct {
	tap, veth, adopt, device, host string
	ifname, gateway, mac           string
	address, trunk                 []string
	access, native, mode           string
	isolated, hairpin, uplink      bool
	macPin                         bool
	mtu, fdbLimit                  int
}

func (c *cli) portAdd() *cobra.Command {
	var p portFlags
	cmd := &cobra.Command{
		Use: "add NAME [YAML] [flags]", Short: "Add a port", Args: args("NAME", "[YAML]"),
		Long: "Adds a port. Its value is given by flags, or as YAML as it would stand in the file.\n" +
			"NETNS is a name (ip netns), a path or pid:N; for a container see `tapestry attach`.",
		Example: "  tapestry port add c1 --tap c1 --address 10.1.0.2/24 --access blue\n" +
			"  tapestry port add up --device eth1 --trunk blue,red --native blue\n" +
			"  tapestry port add gw '{host: {ifname: tap-blue}, access: blue}'",
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, a []string) error {
			v, err := p.value(cmd, len(a) > 1)
			if err != nil {
				return err
			}
			return c.item(cmd, "add", "port", a, v)
		},
	}
	p.register(cmd)
	return cmd
}

func (p *portFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.tap, "tap", "", "a TAP in namespace `NETNS`, the fastest kind")
	f.StringVar(&p.veth, "veth", "", "a veth pair with its end in namespace `NETNS`")
	f.StringVar(&p.adopt, "adopt", "", "take over the veth end `IF` that someone else made")
	f.StringVar(&p.device, "device", "", "the existing interface `IF`")
	f.StringVar(&p.host, "host", "", "a TAP named `IF` in the daemon's own namespace")
	f.StringVar(&p.ifname, "ifname", "", "name of the interface in the namespace")
	f.StringSliceVar(&p.address, "address", nil, "address with prefix length, as 10.1.0.2/24 (repeatable)")
	f.StringVar(&p.gateway, "gateway", "", "default gateway inside the namespace")
	f.StringVar(&p.mac, "mac", "", "MAC address of the interface")
	f.StringVar(&p.access, "access", "", "untagged member of `NETWORK`")
	f.StringSliceVar(&p.trunk, "trunk", nil, "tagged member of `NETWORK`,… (repeatable)")
	f.StringVar(&p.native, "native", "", "the trunk's untagged `NETWORK`")
	f.StringVar(&p.mode, "mode", "", "bridge, vepa, private or passthru")
	f.BoolVar(&p.isolated, "isolated", false, "talk to ports that are not isolated only")
	f.BoolVar(&p.hairpin, "hairpin", false, "a frame may leave where it came in")
	f.BoolVar(&p.uplink, "uplink", false, "the port that leads out")
	f.BoolVar(&p.macPin, "mac-pin", false, "drop frames of any other source address")
	f.IntVar(&p.mtu, "mtu", 0, "octets of the largest L3 packet")
	f.IntVar(&p.fdbLimit, "fdb-limit", 0, "dynamic FDB entries that the port may own")
}

// value is the port as it would stand in the file.
func (p *portFlags) value(cmd *cobra.Command, yaml bool) (map[string]any, error) {
	link := given(cmd, map[string]any{"ifname": p.ifname, "address": p.address, "gateway": p.gateway, "mac": p.mac})
	v := given(cmd, map[string]any{"access": p.access, "trunk": p.trunk, "native": p.native, "mode": p.mode, "isolated": p.isolated,
		"hairpin": p.hairpin, "uplink": p.uplink, "mac_pin": p.macPin, "mtu": p.mtu, "fdb_limit": p.fdbLimit})
	kinds := map[string]string{"tap": "netns", "veth": "netns", "adopt": "adopt", "device": "name", "host": "ifname"}
	var chosen []string
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		if cmd.Flags().Changed(k) {
			chosen = append(chosen, k)
		}
	}
	if len(chosen) == 0 && yaml {
		maps.Copy(v, link)
		return v, nil
	}
	if len(chosen) != 1 {
		return nil, usagef(cmd, "say once what kind of port: --tap, --veth, --adopt, --device or --host, or give YAML")
	}
	kind := chosen[0]
	key := kinds[kind]
	if _, twice := link[key]; twice {
		return nil, usagef(cmd, "--%s names the interface already: leave --%s out", kind, key)
	}
	link[key] = cmd.Flag(kind).Value.String()
	if kind == "adopt" {
		kind = "veth"
	}
	v[kind] = link
	return v, nil
}

func (c *cli) portSet() *cobra.Command {
	return &cobra.Command{
		Use: "set NAME KEY=VALUE...", Short: "Change a port",
		Long: "Changes keys of a port as they stand in the file; a dot reaches into a key, and an\n" +
			"empty value removes it. Values are YAML.",
		Example: "  tapestry port set c1 access=red isolated=true",
		Args: func(cmd *cobra.Command, a []string) error {
			if len(a) < 2 {
				return args("NAME", "KEY=VALUE")(cmd, a)
			}
			return nil
		},
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     c.complete(c.portNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			y, err := assignments(cmd, a[1:])
			if err != nil {
				return err
			}
			return c.sendItem(cmd.Context(), api.ItemRequest{Op: "set", Kind: "port", Name: a[0], YAML: y})
		},
	}
}

// assignments turns key=value words into one YAML mapping.
func assignments(cmd *cobra.Command, words []string) (string, error) {
	tree := map[string]any{}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || strings.Trim(key, "abcdefghijklmnopqrstuvwxyz_.") != "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' }) {
			return "", usagef(cmd, "%q: want KEY=VALUE in one line, as mtu=1400", w)
		}
		at, path := tree, strings.Split(key, ".")
		for _, k := range path[:len(path)-1] {
			next, ok := at[k].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[k] = next
			}
			at = next
		}
		at[path[len(path)-1]] = value
	}
	return flow(tree), nil
}

// flow writes a tree in YAML's flow style. Values are the user's own YAML, but
// for plain ones with a colon, which flow style would misread.
func flow(tree map[string]any) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(tree)) {
		s, leaf := tree[k].(string)
		switch {
		case !leaf:
			s = flow(tree[k].(map[string]any))
		case s == "":
			s = "null"
		case strings.Contains(s, ":") && !strings.ContainsAny(s[:1], `[{"'`):
			s = fmt.Sprintf("%q", s)
		}
		parts = append(parts, k+": "+s)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
