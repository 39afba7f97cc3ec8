package main

import (
	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/probe"
	"github.com/tapestry-net/tapestry/internal/udpio"
)

// finding is one thing that doctor looked at.
type finding struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	Note bool   `json:"note"` // works, with less comfort
	Hint string `json:"hint"` // the command that mends it
}

func (c *cli) doctor() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check this machine and the running switch", Args: args(),
		Long: "Checks what the switch needs of this machine, and the running switch. Each finding\n" +
			"ends with the command that mends it; exit code 1 means that there is one. For traffic,\n" +
			"and a file, see `tapestry check --live`.",
		Example: "  tapestry doctor",
		RunE: func(cmd *cobra.Command, _ []string) error {
			list := append(machine(), c.running(cmd)...)
			if err := c.print(list, func() { c.printFindings(list) }); err != nil {
				return err
			}
			for _, f := range list {
				if !f.OK {
					return api.Errorf(api.CodeFailed, "something needs mending")
				}
			}
			return nil
		},
	}
}

func (c *cli) printFindings(list []finding) {
	for _, f := range list {
		mark := "ok  "
		switch {
		case !f.OK:
			mark = "BAD "
		case f.Note:
			mark = "note"
		}
		c.printf("%s  %s\n", mark, f.What)
		if f.Hint != "" && (f.Note || !f.OK) {
			c.printf("      mend: %s\n", f.Hint)
		}
	}
}

// machine looks at what a switch on this machine would need. What only makes it
// slower, or lets ordinary users run labs, is a note.
func machine() []finding {
	r := probe.Run()
	var list []finding
	for _, f := range []probe.Finding{r.NetAdmin, r.SysAdmin, r.Namespace, r.TUN} {
		list = append(list, finding{What: f.Text, OK: f.Answer == probe.Yes, Hint: f.Cure})
	}
	for _, f := range []probe.Finding{r.NetRaw, r.UserNS, r.VNetHdr, r.GSOWrite, r.TC, r.PacketVNet} {
		list = append(list, finding{What: f.Text, OK: true, Note: f.Answer != probe.Yes, Hint: f.Cure})
	}
	return append(list, udpOffloads()...)
}

// udpOffloads looks at what makes a tunnel fast.
func udpOffloads() []finding {
	f, err := udpio.Probe()
	if err != nil {
		return []finding{{What: err.Error(), OK: true, Note: true, Hint: "ip link set lo up"}}
	}
	const hint = "a kernel from Linux 5.0 on; without it a tunnel moves every datagram by itself"
	return []finding{
		{What: "UDP_SEGMENT: a run of datagrams leaves by one system call", OK: true, Note: !f.Segment, Hint: hint},
		{What: "UDP_GRO: datagrams of a run arrive together", OK: true, Note: !f.GRO, Hint: hint},
	}
}

// running asks the switch, if there is one.
func (c *cli) running(cmd *cobra.Command) []finding {
	s, err := c.client().Status(cmd.Context())
	if err != nil {
		e := api.AsError(err)
		return []finding{{What: e.Msg, Hint: e.Hint}}
	}
	list := []finding{{What: "the switch answers", OK: true}}
	if !s.Ready {
		list = append(list, finding{What: "the switch does not forward yet", Hint: "tapestry events"})
	}
	if s.Version != version {
		list = append(list, finding{What: "the running switch is " + s.Version + ", this program " + version, Hint: "tapestry upgrade"})
	}
	r, err := c.client().Check(cmd.Context(), api.CheckRequest{})
	if err != nil {
		for _, p := range s.Problems {
			list = append(list, finding{What: p.What, Hint: p.Hint})
		}
		e := api.AsError(err)
		return append(list, finding{What: e.Msg, Hint: e.Hint})
	}
	for _, f := range r.Findings {
		list = append(list, finding{What: f.What, Hint: f.Hint})
	}
	return list
}
