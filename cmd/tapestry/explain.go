package main

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/frameexpr"
	"github.com/tapestry-net/tapestry/switch/frame"
)

func (c *cli) explain() *cobra.Command {
	var in string
	cmd := &cobra.Command{
		Use: "explain --in PORT 'FRAME'", Short: "What would happen to this frame", DisableFlagsInUseLine: true,
		Long: `Shows each step of the decision about a frame that comes in by a port. Nothing is
sent and nothing is learned; the switch decides with the code that forwards.

FRAME is octets in hexadecimal, or one of
  arp who-has A tell B      icmp A > B      ip6 A > B      broadcast
  udp A.PORT > B.PORT       tcp A.PORT > B.PORT
followed by any of: from MAC, to MAC, vlan N [pcp P], len N.
Without from and to, the addresses of the ports are used.`,
		Example: "  tapestry explain --in c1 'arp who-has 10.1.0.3 tell 10.1.0.2'\n" +
			"  tapestry explain --in c1 'udp 10.1.0.2.5000 > 10.1.0.3.53 vlan 20 pcp 5'",
		Args: func(cmd *cobra.Command, a []string) error {
			if len(a) == 0 {
				return args("FRAME")(cmd, a)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			if in == "" {
				return usagef(cmd, "name the port with --in")
			}
			ports, err := c.client().Ports(cmd.Context())
			if err != nil {
				return err
			}
			if err := known("port", in, c.portNames(cmd.Context())); err != nil {
				return err
			}
			b, err := frameexpr.Parse(strings.Join(a, " "), environment(in, ports))
			if err != nil {
				return usagef(cmd, "%v", err)
			}
			r, err := c.client().Explain(cmd.Context(), api.ExplainRequest{In: in, Hex: hex.EncodeToString(b)})
			if err != nil {
				return err
			}
			return c.print(r, func() { c.printExplanation(r) })
		},
	}
	cmd.Flags().StringVar(&in, "in", "", "the port that the frame comes in by")
	_ = cmd.RegisterFlagCompletionFunc("in", c.complete(c.portNames))
	return cmd
}

// environment lets the addresses of the ports stand for what a frame leaves out.
func environment(in string, ports []api.Port) frameexpr.Env {
	var env frameexpr.Env
	known := map[netip.Addr]frame.MAC{}
	for _, p := range ports {
		m, err := frame.ParseMAC(p.MAC)
		if err != nil {
			continue
		}
		if p.Name == in {
			env.From = m
		}
		for _, s := range p.Addresses {
			if prefix, err := netip.ParsePrefix(s); err == nil {
				known[prefix.Addr()] = m
			}
		}
	}
	env.MAC = func(a netip.Addr) (frame.MAC, bool) { m, ok := known[a]; return m, ok }
	return env
}

func (c *cli) printExplanation(r api.ExplainReply) {
	t := c.table()
	last := ""
	for _, s := range r.Steps {
		t.row(s.Stage, s.What, s.Result)
		last = s.Stage
	}
	if last != "verdict" {
		t.row("verdict", fmt.Sprintf("%s (%s)", strings.ToUpper(r.Action.String()), r.Reason), copies(r.Out))
	}
	t.flush()
	for _, e := range r.Out {
		if e.Reason != "" {
			c.printf("refused at %s: %s. %s\n", e.Port, e.Reason, reasonDoc(e.Reason))
		}
	}
	if r.Action == frame.Drop {
		c.printf("%s\n", r.Reason.Doc())
	}
}

// copies lists where a frame leaves.
func copies(out []api.Egress) string {
	var s []string
	for _, e := range out {
		if e.Reason == "" {
			s = append(s, e.Port+" "+e.Tag)
		}
	}
	if len(s) == 0 {
		return "no copy"
	}
	return strings.Join(s, ", ")
}
