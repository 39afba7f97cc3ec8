package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
)

// finding is one thing that doctor looked at.
type finding struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	Hint string `json:"hint"` // the command that mends it
}

func (c *cli) doctor() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check this machine and the running switch", Args: args(),
		Long: "Checks what the switch needs of this machine, and the running switch. Each finding\n" +
			"ends with the command that mends it; exit code 1 means that there is one.",
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
		if !f.OK {
			mark = "BAD "
		}
		c.printf("%s  %s\n", mark, f.What)
		if f.Hint != "" && !f.OK {
			c.printf("      mend: %s\n", f.Hint)
		}
	}
}

// machine looks at what a switch on this machine would need.
func machine() []finding {
	tun := finding{What: "/dev/net/tun opens", OK: true}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	switch {
	case err == nil:
		f.Close()
	case errors.Is(err, fs.ErrPermission):
		tun = finding{What: "/dev/net/tun may not be opened by this user", Hint: "sudo chmod 0666 /dev/net/tun"}
	default:
		tun = finding{What: "/dev/net/tun: " + err.Error(),
			Hint: "sudo modprobe tun; sudo mkdir -p /dev/net; sudo mknod -m 0666 /dev/net/tun c 10 200"}
	}
	return []finding{tun}
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
	for _, p := range s.Problems {
		list = append(list, finding{What: p.What, Hint: p.Hint})
	}
	return list
}
