package main

import (
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/capture/filter"
	"github.com/tapestry-net/tapestry/capture/record"
	"github.com/tapestry-net/tapestry/internal/api"
)

// extcapPrefix is in front of the ports' names in Wireshark's list.
const extcapPrefix = "tapestry-"

// extcapSlash stands for a slash, which Wireshark takes for a path's. No name has
// a colon.
const extcapSlash = ":"

// extcapAll is the interface that stands for all ports.
const extcapAll = "tapestry"

type extcapFlags struct {
	interfaces, dlts, config, capture bool
	iface, fifo, filter, version      string
}

// extcap speaks Wireshark's extcap protocol (doc/README.extcap of Wireshark 4.0).
func (c *cli) extcap() *cobra.Command {
	var f extcapFlags
	cmd := &cobra.Command{
		Use: "extcap [flags]", Short: "Show the ports in Wireshark's list of interfaces", Args: args(), DisableFlagsInUseLine: true,
		Long: "Wireshark calls this by a wrapper in its extcap folder; see docs/howto/wireshark.md.",
		Example: `  printf '#!/bin/sh\nexec tapestry extcap "$@"\n' > ~/.config/wireshark/extcap/tapestry
  tapestry extcap --extcap-interfaces`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.runExtcap(cmd, &f) },
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.interfaces, "extcap-interfaces", false, "list the interfaces")
	fl.BoolVar(&f.dlts, "extcap-dlts", false, "tell the link type of --extcap-interface")
	fl.BoolVar(&f.config, "extcap-config", false, "list the options of --extcap-interface")
	fl.BoolVar(&f.capture, "capture", false, "capture from --extcap-interface into --fifo")
	fl.StringVar(&f.iface, "extcap-interface", "", "an interface")
	fl.StringVar(&f.fifo, "fifo", "", "where the pcapng goes")
	fl.StringVar(&f.filter, "extcap-capture-filter", "", "a tcpdump expression")
	fl.StringVar(&f.version, "extcap-version", "", "the version of Wireshark")
	fl.Lookup("extcap-version").NoOptDefVal = "-"
	return cmd
}

func (c *cli) runExtcap(cmd *cobra.Command, f *extcapFlags) error {
	switch {
	case f.interfaces:
		return c.extcapInterfaces(cmd)
	case f.dlts:
		c.printf("dlt {number=1}{name=EN10MB}{display=Ethernet}\n")
		return nil
	case f.config:
		return nil // no options
	case f.capture:
		if f.fifo == "" {
			return usagef(cmd, "--fifo is missing")
		}
		r := api.CaptureRequest{Filter: f.filter}
		if port, ok := strings.CutPrefix(f.iface, extcapPrefix); ok {
			r.Ports = []string{strings.ReplaceAll(port, extcapSlash, "/")}
		} else if f.iface != extcapAll {
			return notFound("interface", f.iface, []string{extcapAll})
		}
		return c.recordPackets(cmd.Context(), r, f.fifo, record.Rotation{})
	case f.filter != "":
		// Wireshark asks whether the filter is good: silence means yes.
		if _, err := filter.Compile(f.filter); err != nil {
			c.printf("%v\n", err)
		}
		return nil
	}
	return usagef(cmd, "say what to do").WithHint("Wireshark calls this command: see docs/howto/wireshark.md")
}

func (c *cli) extcapInterfaces(cmd *cobra.Command) error {
	c.printf("extcap {version=1.0}{help=https://github.com/tapestry-net/tapestry}{display=tapestry}\n")
	client := c.client()
	s, err := client.Status(cmd.Context())
	if err != nil {
		return nil // no switch runs, so there is nothing to show
	}
	c.printf("interface {value=%s}{display=%s: all ports}\n", extcapAll, s.Host)
	ports, err := client.Ports(cmd.Context())
	if err != nil {
		return err
	}
	peers, err := client.Peers(cmd.Context())
	if err != nil {
		return err
	}
	var names []string
	for _, p := range ports {
		names = append(names, p.Name)
	}
	for _, p := range peers {
		names = append(names, "peer/"+p.Name)
	}
	if len(peers) > 0 {
		names = append(names, "tunnel/unknown")
	}
	// Wireshark can't capture from an interface and from the switch at once, and
	// so not with one clock; the switch can.
	if list, err := net.Interfaces(); err == nil {
		for _, i := range list {
			if i.Flags&net.FlagUp != 0 {
				names = append(names, "dev/"+i.Name)
			}
		}
	}
	for _, name := range names {
		c.printf("interface {value=%s%s}{display=%s/%s}\n", extcapPrefix, strings.ReplaceAll(name, "/", extcapSlash), s.Host, name)
	}
	return nil
}
