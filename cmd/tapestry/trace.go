package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/api"
)

func (c *cli) trace() *cobra.Command {
	var r api.TraceRequest
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "trace SRC DST", Short: "Follow one packet through every bridge, tunnel and router, and its answer back", DisableFlagsInUseLine: true,
		Long: `Sends one marked probe from a port and shows each hop it takes, and each hop of its
answer: where, the TTL before and after, MAC addresses, VLAN and VNI, the entry of
the filtering database that was hit and the frame that taught it, the decision and
its reason. Hops on other hosts that run tapestry and are peers of this one are
shown with their names, and so are the hops that the kernels of those hosts take.

SRC is a port here; DST a port here, HOST/PORT at a peer, or an address. The probe
leaves from the port's own namespace, so its routes and firewall have their say.
Exit code 1 says that no answer came back; where and why is printed.

With --watch nothing is sent: packets of live traffic that match a tcpdump
expression are followed through this host, until interrupted. Other hosts are not
asked: run it there, too.`,
		Example: "  tapestry trace c1 c2\n  tapestry trace c1 h130/c2 --proto tcp --port 443\n  tapestry trace c1 192.0.2.7 --traceroute\n" +
			"  tapestry trace --watch 'icmp and host 10.1.0.3' --count 3",
		Args: func(cmd *cobra.Command, a []string) error {
			if r.Watch != "" {
				return args()(cmd, a)
			}
			return args("SRC", "DST")(cmd, a)
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			if r.Watch != "" {
				if err := checkFilter(r.Watch); err != nil {
					return err
				}
				return c.watchTrace(cmd.Context(), r)
			}
			for _, name := range []string{"ttl", "port"} {
				if f := cmd.Flag(name); f.Changed && f.Value.String() == "0" { // which asks the switch for the default
					return usagef(cmd, "--%s 0: want a number from 1", name)
				}
			}
			r.From, r.To, r.WaitMS = a[0], a[1], int(wait.Milliseconds())
			return c.sendTrace(cmd.Context(), r)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&r.Proto, "proto", "icmp", "icmp, udp or tcp: an echo request, a datagram or a SYN")
	fl.IntVar(&r.Port, "port", 0, "destination port of udp (default 33434) and tcp (default 80)")
	fl.IntVar(&r.TTL, "ttl", 0, "TTL or hop limit to send with (default 64)")
	fl.StringVar(&r.Source, "source", "", "source address (default: the port's own)")
	fl.DurationVar(&wait, "wait", 2*time.Second, "how long an answer may take, up to 10s")
	fl.BoolVar(&r.Traceroute, "traceroute", false, "one probe for each router: TTL 1, 2 and so on, up to --ttl (default 30)")
	fl.BoolVar(&r.Inject, "inject", false, "put the probe into the switch as if the port had received it")
	fl.StringVar(&r.MAC, "mac", "", "destination MAC address of an injected probe (default: found out)")
	fl.StringVar(&r.Watch, "watch", "", "follow live packets that match this tcpdump expression through this host instead")
	fl.IntVar(&r.Count, "count", 0, "end after so many watched packets")
	fl.BoolVar(&r.Kernel, "kernel", false, "show watched packets on the interfaces of the host's kernel, too")
	_ = cmd.RegisterFlagCompletionFunc("proto", cobra.FixedCompletions([]string{"icmp", "udp", "tcp"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.ValidArgsFunction = func(cmd *cobra.Command, done []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(done) > 1 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		return c.portNames(ctx), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// sendTrace shows the trace of a probe, or of several.
func (c *cli) sendTrace(ctx context.Context, r api.TraceRequest) error {
	p := &tracePrinter{c: c, routers: r.Traceroute}
	err := c.client().Trace(ctx, r, func(t api.Traced) error { return c.print(t, func() { p.show(t) }) })
	if err != nil {
		return err
	}
	if p.last == nil || p.last.Reached || p.last.Answered && r.TTL != 0 && !r.Traceroute {
		return nil
	}
	e := api.Errorf(api.CodeFailed, "trace %s %s: no answer from there", r.From, r.To)
	if p.last.Hint != "" {
		return e.WithHint("%s", p.last.Hint)
	}
	return e
}

// watchTrace shows live packets until the count is reached or ctx ends.
func (c *cli) watchTrace(ctx context.Context, r api.TraceRequest) error {
	p := &tracePrinter{c: c}
	err := c.client().Trace(ctx, r, func(t api.Traced) error { return c.print(t, func() { p.showLive(t) }) })
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// tracePrinter shows lines of a trace to people. What it is given it holds until
// the trace has ended, since columns are as wide as their widest cell.
type tracePrinter struct {
	c       *cli
	routers bool // one line a probe
	probe   *api.TraceProbe
	hops    []*trace.Hop
	notes   []string
	seq     int
	last    *api.TraceEnd
}

func (p *tracePrinter) show(t api.Traced) {
	switch t.Kind {
	case "probe":
		p.probe, p.hops, p.notes = t.Probe, nil, nil
		if !p.routers || t.Probe.TTL == 1 {
			p.heading()
		}
	case "note":
		p.notes = append(p.notes, t.What)
	case "hop":
		p.hops = append(p.hops, t.Hop)
	case "end":
		if p.last = t.End; p.routers {
			p.router()
			return
		}
		p.table()
		p.end()
	}
}

func (p *tracePrinter) heading() {
	b := p.probe
	what := map[string]string{"icmp": "an ICMP echo request", "udp": fmt.Sprintf("a UDP datagram to port %d", b.DPort), "tcp": fmt.Sprintf("a TCP SYN to port %d", b.DPort)}[b.Proto]
	from := "sent from the namespace of the port"
	if b.Sent == "at" {
		from = "put into the switch at the port"
	}
	ttl := fmt.Sprintf("TTL %d", b.TTL)
	if p.routers {
		what, ttl = what+" for each router", "TTL 1, 2 and so on"
	}
	p.c.printf("%s/%s to %s: %s, %s > %s, %s, %s\n\n", b.Host, b.Port, b.To, what, b.Src, b.Dst, ttl, from)
}

// router is the line of one probe of a traceroute.
func (p *tracePrinter) router() {
	e := p.last
	if !e.Answered {
		p.c.printf("%2d  no answer  %s\n", p.probe.TTL, e.Lost)
		return
	}
	host := e.Host
	if host == "" {
		host = "-"
	}
	p.c.printf("%2d  %-15s  %-10s  %-22s %8.3f ms\n", p.probe.TTL, e.By, host, e.Answer, float64(e.RTTUS)/1000)
}

// table prints the hops that were collected, a heading for each direction.
func (p *tracePrinter) table() {
	t := p.c.table()
	direction := ""
	for _, h := range p.hops {
		if h.Direction != direction {
			if direction != "" {
				t.row(" ")
			}
			direction = h.Direction
			t.row(strings.ToUpper(direction), "AFTER", "HOST", "WHERE", "TTL", "WHAT")
		}
		t.row(fmt.Sprintf("%3d", h.Hop), since(h), h.Host, where(h), ttlText(h), whatText(h))
		if h.TaughtBy != "" {
			t.row(" ", " ", " ", " ", " ", "taught by "+h.TaughtBy)
		}
	}
	t.flush()
	if len(p.hops) > 0 {
		p.c.printf("\n")
	}
}

// since is the time since the hop before, nothing for one that takes none of its
// own.
func since(h *trace.Hop) string {
	if h.At == trace.Decide || h.At == trace.Egress || h.At == trace.Encap {
		return " "
	}
	return fmt.Sprintf("%d µs", h.SinceUS)
}

// where is the place of a hop. Arrows lead into and out of the switch.
func where(h *trace.Hop) string {
	switch h.At {
	case trace.Ingress:
		return h.Port + " → switch"
	case trace.Decide:
		return "switch"
	case trace.Egress:
		return "switch → " + h.Port
	case trace.Encap:
		return "switch → tunnel to " + h.Port
	case trace.Decap:
		return "tunnel from " + h.Port + " → switch"
	case trace.Route:
		return interfaceOf(h) + " → " + h.Next
	}
	return interfaceOf(h)
}

// interfaceOf names an interface of a kernel, and whose it is.
func interfaceOf(h *trace.Hop) string {
	switch {
	case h.Netns == "":
		return h.Port
	case h.Far != "":
		return h.Far + "'s " + h.Port
	}
	return h.Port + " in " + h.Netns
}

func ttlText(h *trace.Hop) string {
	if h.TTLIn == h.TTLOut {
		return fmt.Sprint(h.TTLIn)
	}
	return fmt.Sprintf("%d → %d", h.TTLIn, h.TTLOut)
}

// whatText says in words what a hop did.
func whatText(h *trace.Hop) string {
	switch h.At {
	case trace.Ingress:
		return fmt.Sprintf("%s > %s, %s", h.SrcMAC, h.DstMAC, tagged(h.VLAN))
	case trace.Decap:
		return fmt.Sprintf("%s > %s, out of %s, VNI %d", h.SrcMAC, h.DstMAC, wrapping(h), h.VNI)
	case trace.Decide:
		return decided(h)
	case trace.Egress, trace.Encap:
		if h.Action == "refuse" {
			return "refused: " + h.Reason + ". " + reasonDoc(h.Reason)
		}
		what, who := tagged(h.VLAN), "bridge"
		if h.At == trace.Encap {
			what, who = fmt.Sprintf("into %s, VNI %d", wrapping(h), h.VNI), "tunnel"
		}
		if h.TTLIn == 0 { // no IP packet
			return what
		}
		return fmt.Sprintf("%s; TTL unchanged: a %s takes none", what, who)
	case trace.Route:
		nat := ""
		if h.NAT != "" {
			nat = "; NAT: " + h.NAT
		}
		return fmt.Sprintf("%s routed it%s; new MAC addresses %s > %s", router(h), nat, h.SrcMAC, h.DstMAC)
	}
	who := "the kernel of " + h.Host
	if h.Netns != "" {
		who = "the container"
	}
	switch h.Action {
	case "send":
		return fmt.Sprintf("%s sends %s", who, packetName(h))
	case "ignore":
		return fmt.Sprintf("for another station, not for %s", who)
	}
	return fmt.Sprintf("%s receives %s", who, packetName(h))
}

// router names the host, or the container of it, that routed a packet.
func router(h *trace.Hop) string {
	switch {
	case h.Netns == "":
		return h.Host
	case h.Far != "":
		return fmt.Sprintf("the container behind %s/%s", h.Host, h.Far)
	}
	return fmt.Sprintf("the container %s of %s", h.Netns, h.Host)
}

// packetName is what the packet is, with the sender of an ICMP error, who is not
// the one that was asked.
func packetName(h *trace.Hop) string {
	if h.Direction == trace.Live {
		return "it"
	}
	switch h.Packet {
	case "probe", "echo reply", "SYN-ACK", "RST", "datagram back":
		return "the " + h.Packet
	}
	return fmt.Sprintf("%s from %s", h.Packet, h.From)
}

func decided(h *trace.Hop) string {
	s := h.Action
	if h.Network != "" {
		s += " in " + h.Network
	}
	s += ": " + h.Reason
	if h.Next != "" {
		s += " → " + h.Next
	}
	switch {
	case h.Action == "drop":
		s += ". " + reasonDoc(h.Reason)
	case h.Entry != "":
		s += "; " + h.Entry
	}
	return s
}

// wrapping is what a tunnel carries a frame in.
func wrapping(h *trace.Hop) string {
	if h.Encrypted {
		return "DTLS"
	}
	return "VXLAN"
}

func tagged(vlan int) string {
	if vlan == 0 {
		return "untagged"
	}
	return fmt.Sprintf("tagged VLAN %d", vlan)
}

// end says in a few lines what became of the probe.
func (p *tracePrinter) end() {
	e := p.last
	if e.Answered {
		p.c.printf("answered: %s from %s (%s) after %.3f ms\n", e.Answer, e.By, e.Host, float64(e.RTTUS)/1000)
	} else {
		p.c.printf("no answer: %s\n", e.Lost)
	}
	for _, w := range e.Causes {
		p.c.printf("why: %s\n", w.What)
	}
	for _, m := range e.Moved {
		if m.Also {
			p.c.printf("also moved: %s %d at %s/%s\n", m.Reason, m.Frames, m.Host, m.Port)
			continue
		}
		p.c.printf("counted: %s %d at %s/%s. %s\n", m.Reason, m.Frames, m.Host, m.Port, reasonDoc(m.Reason))
	}
	for _, d := range []string{trace.Request, trace.Answer} {
		if s := p.ttls(d); s != "" {
			p.c.printf("TTL of the %s: %s\n", d, s)
		}
	}
	for _, n := range p.notes {
		p.c.printf("note: %s\n", n)
	}
}

// ttls is the way of one direction as its TTL and who took one: 64 → 63 (h1). A
// router that nobody listened at is known by what is missing behind it.
func (p *tracePrinter) ttls(direction string) string {
	var b strings.Builder
	ttl := 0
	for _, h := range p.hops {
		if h.Direction != direction {
			continue
		}
		if b.Len() == 0 {
			fmt.Fprint(&b, h.TTLIn)
			ttl = h.TTLIn
		}
		if h.TTLIn < ttl {
			fmt.Fprintf(&b, " → %d (not seen)", h.TTLIn)
		}
		if h.At == trace.Route {
			fmt.Fprintf(&b, " → %d (%s)", h.TTLOut, api.Clean(router(h)))
		}
		ttl = h.TTLOut
	}
	if direction == trace.Request && p.last.Answer == "time exceeded" {
		fmt.Fprintf(&b, " → 0 (%s)", api.Clean(p.last.Host))
	}
	switch {
	case b.Len() == 0 || strings.Contains(b.String(), "→"):
	case p.last.Answered:
		b.WriteString(" all the way: no router took one")
	default:
		b.WriteString(" as far as it came: no router took one")
	}
	return b.String()
}

// showLive prints the hops of watched packets as they come.
func (p *tracePrinter) showLive(t api.Traced) {
	switch t.Kind {
	case "note":
		p.c.printf("note: %s\n", t.What)
	case "hop":
		if t.Seq != p.seq {
			p.seq = t.Seq
			p.c.printf("packet %d: %s\n", t.Seq, t.Packet)
		}
		h := t.Hop
		ttl := ""
		if h.TTLIn > 0 {
			ttl = "TTL " + ttlText(h)
		}
		p.c.printf("  %s  %-8s  %-24s  %-12s  %s\n", h.Time.Format("15:04:05.000000"), h.Host, where(h), ttl, whatText(h))
	}
}
