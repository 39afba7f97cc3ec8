package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/capture/dissect"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/frameexpr"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// question is what explain is asked.
type question struct {
	in, pcap string
	packet   int
	words    string
}

func (c *cli) explain() *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use: "explain --in PORT 'FRAME' | --pcap FILE", Short: "What would happen to this frame", DisableFlagsInUseLine: true,
		Long: `Shows each step of the decision about a frame that comes in by a port. Nothing is
sent and nothing is learned; the switch decides with the code that forwards.

FRAME is octets in hexadecimal, or one of
  arp who-has A [tell B]    icmp A > B            broadcast
  arp A is-at MAC           udp A.PORT > B.PORT   ip6 A > B
                            tcp A.PORT > B.PORT
followed by any of
  from MAC  to MAC          without them, the addresses of the ports are used
  vlan N [pcp P]            a tag; a second one stands inside the first
  len N | packet N          octets of the frame, or of the packet that an MTU limits
  ttl N  tos N  nodf        of IP; without nodf a packet must not be fragmented
  flags SFRPUEW.            of TCP, as tcpdump shows them
  gso N                     a frame not yet cut to segments of N octets of payload

--in peer/NAME takes the frame out of a VXLAN datagram of that peer. Such a frame may
have vni N and outer-tos N, or be "datagram" and the octets that the peer sends, VXLAN
header included. --in may be any address of the underlay, too.

--pcap takes the frame from a capture, pcap or pcapng; without --in it comes in where
it came in when tapestry captured it.`,
		Example: "  tapestry explain --in c1 'arp who-has 10.1.0.3 tell 10.1.0.2'\n" +
			"  tapestry explain --in c1 'udp 10.1.0.2.5000 > 10.1.0.3.53 vlan 20 pcp 5'\n" +
			"  tapestry explain --in c1 'icmp 10.1.0.2 > 10.2.0.3 ttl 3 packet 4000'\n" +
			"  tapestry explain --in peer/h130 'broadcast vni 10010'\n" +
			"  tapestry explain --pcap frames.pcapng --packet 17",
		RunE: func(cmd *cobra.Command, a []string) error {
			q.words = strings.Join(a, " ")
			switch {
			case len(a) == 0 && q.pcap == "":
				return args("FRAME")(cmd, a)
			case len(a) > 0 && q.pcap != "":
				return usagef(cmd, "give FRAME or --pcap, not both")
			case q.pcap == "" && cmd.Flags().Changed("packet"):
				return usagef(cmd, "--packet needs --pcap")
			}
			r, note, err := c.request(cmd, q)
			if err != nil {
				return err
			}
			x, err := c.client().Explain(cmd.Context(), r)
			if err != nil {
				return err
			}
			return c.print(x, func() { c.printExplanation(r, note, x) })
		},
	}
	cmd.Flags().StringVar(&q.in, "in", "", "the port that the frame comes in by, or peer/NAME")
	cmd.Flags().StringVar(&q.pcap, "pcap", "", "a capture file that has the frame, - = standard input")
	cmd.Flags().IntVar(&q.packet, "packet", 1, "which packet of the file, counted from 1")
	return cmd
}

// request is what the switch is asked. Note is what a person should know about
// the frame.
func (c *cli) request(cmd *cobra.Command, q question) (r api.ExplainRequest, note string, err error) {
	if q.pcap != "" {
		return c.recorded(cmd, q)
	}
	if q.in == "" {
		return r, "", usagef(cmd, "name the port with --in")
	}
	if err := c.knownIn(cmd.Context(), q.in); err != nil {
		return r, "", err
	}
	env, err := c.environment(cmd.Context(), q.in)
	if err != nil {
		return r, "", err
	}
	f, err := frameexpr.Parse(q.words, env)
	if err != nil {
		return r, "", usagef(cmd, "%v", err)
	}
	return api.ExplainRequest{
		In: q.in, Hex: hex.EncodeToString(f.Data), Segment: f.Segment, VNI: f.VNI, OuterTOS: f.OuterTOS, Datagram: f.Datagram,
	}, "", nil
}

// recorded makes a request of a packet of a capture file, which is read here and
// never by the switch.
func (c *cli) recorded(cmd *cobra.Command, q question) (r api.ExplainRequest, note string, err error) {
	file := os.Stdin
	if q.pcap != "-" {
		if file, err = os.Open(q.pcap); err != nil {
			return r, "", api.FileError(fmt.Errorf("read capture: %w", err))
		}
		defer file.Close()
	}
	p, err := capture.ReadPacket(file, q.packet)
	if err != nil {
		return r, "", api.Errorf(api.CodeInvalid, "%s: %v", q.pcap, err)
	}
	missing := p.Len - len(p.Data)
	if missing > 0 {
		note = fmt.Sprintf("the capture kept %d of %d octets: the others are taken to be zero", len(p.Data), p.Len)
		p.Data = append(p.Data, make([]byte, missing)...)
	}
	if h, ok := frame.Parse(p.Data); ok && h.Dst.IsZero() && h.Src.IsZero() {
		// What a tunnel refused is recorded as the datagram that came.
		if d, ok := capture.DatagramOf(p.Data); ok {
			return api.ExplainRequest{In: d.From.String(), Hex: hex.EncodeToString(d.Payload), Datagram: true, OuterTOS: d.TOS}, note, nil
		}
	}
	in := q.in
	if in == "" {
		_, port, _ := strings.Cut(p.Interface, "/") // tapestry's are HOST/PORT
		switch {
		case port == "":
			return r, "", usagef(cmd, "%s does not say by which port packet %d came in: name it with --in", q.pcap, q.packet)
		case p.Outbound:
			return r, "", usagef(cmd, "packet %d left the switch by %s: name the port that it shall come in by with --in", q.packet, port)
		}
		in = port
	}
	if err := c.knownIn(cmd.Context(), in); err != nil {
		return r, "", err
	}
	return api.ExplainRequest{In: in, Hex: hex.EncodeToString(p.Data)}, note, nil
}

// inNames are the names that --in takes, addresses apart.
func (c *cli) inNames(ctx context.Context) []string {
	names := c.portNames(ctx)
	for _, p := range c.peerNames(ctx) {
		names = append(names, peerPrefix+p)
	}
	return names
}

// peerPrefix stands before a peer's name where a port's is expected.
const peerPrefix = "peer/"

func (c *cli) knownIn(ctx context.Context, in string) error {
	if _, err := netip.ParseAddr(in); err == nil {
		return nil
	}
	return known("port", in, c.inNames(ctx))
}

// environment lets what the switch knows stand for what a frame leaves out: the
// addresses of the ports, and for a source behind a port that has none, a station
// that the switch has learned there.
func (c *cli) environment(ctx context.Context, in string) (frameexpr.Env, error) {
	var env frameexpr.Env
	ports, err := c.client().Ports(ctx)
	if err != nil {
		return env, err
	}
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
			prefix, err := netip.ParsePrefix(s)
			if err != nil {
				continue
			}
			known[prefix.Addr()] = m
			if p.Name == in {
				env.Own = append(env.Own, prefix.Addr())
			}
		}
	}
	env.MAC = func(a netip.Addr) (frame.MAC, bool) { m, ok := known[a]; return m, ok }
	if !env.From.IsZero() {
		return env, nil
	}
	entries, err := c.client().FDB(ctx)
	if err != nil {
		return env, err
	}
	for _, e := range entries {
		if e.Port == in || e.Peer != "" && peerPrefix+e.Peer == in {
			env.From = e.MAC
			break
		}
	}
	return env, nil
}

func (c *cli) printExplanation(r api.ExplainRequest, note string, x api.ExplainReply) {
	if b, err := hex.DecodeString(r.Hex); err == nil && !r.Datagram {
		c.printf("%s, %d octets", dissect.Line(b), len(b))
		if r.Segment > 0 {
			c.printf(", to be cut to segments of %d", r.Segment)
		}
		c.printf("\n")
	}
	t := c.table()
	last := ""
	for _, s := range x.Steps {
		t.row(s.Stage, s.What, s.Result)
		last = s.Stage
	}
	if last != "verdict" {
		t.row("verdict", fmt.Sprintf("%s (%s)", strings.ToUpper(x.Action.String()), x.Reason), copies(x.Out))
	}
	t.flush()
	if note != "" {
		c.printf("note: %s\n", note)
	}
	told := map[string]bool{}
	for _, e := range x.Out {
		if e.Reason == "" {
			continue
		}
		c.printf("refused at %s: %s", e.Port, e.Reason)
		if !told[e.Reason] {
			c.printf(". %s", reasonDoc(e.Reason))
		}
		told[e.Reason] = true
		c.printf("\n")
	}
	if x.Action == frame.Drop {
		c.printf("%s\n", x.Reason.Doc())
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
