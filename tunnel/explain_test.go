package tunnel_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
	"github.com/tapestry-net/tapestry/tunnel"
)

// results are what came of the steps of a stage, on one line each.
func results(steps []frame.Step, stage string) string {
	var list []string
	for _, s := range steps {
		if s.Stage == stage {
			list = append(list, s.What+": "+s.Result)
		}
	}
	return strings.Join(list, "\n")
}

// TestExplainPeer asks what becomes of copies that leave by a peer, then sends
// the frames.
func TestExplainPeer(t *testing.T) {
	const green frame.VID = 30
	h, q := loopHost(t, nil)
	h.nets = append(h.nets, tunnel.Network{VID: green, VNI: 10030, Encrypt: true})
	h.nets[0].Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.254")}
	h.local.Tagged = []frame.VID{green}
	far := newVTEP(t, "127.0.0.2:0", h.tun.Listen())
	id := h.peer(far.at(), blue, green)
	if err := h.tun.OpenAll(); err != nil { // no flow changes its port later
		t.Fatal(err)
	}
	long := switchtest.UDPFrame(bob, alice, make([]byte, 1500))
	for _, c := range []struct {
		name string
		data []byte
		want frame.Reason
		says string
	}{
		{"sent", hello, frame.ReasonNone, "VNI 10010"},
		{"tagged on the way in", switchtest.Tagged(blue, 5, hello), frame.ReasonNone, "VNI 10010"},
		{"header only", hello[:14], frame.ReasonNone, "50 octets"},
		{"too long", long, frame.MTUExceeded, "the path takes 1450"},
		{"encrypted", switchtest.Tagged(green, 0, hello), frame.NotEncryptedYet, "no encrypted link"},
		{"a second tag", switchtest.Tagged(blue, 0, switchtest.Tagged(7, 0, hello)), frame.InnerTagged, "far side"},
	} {
		x := h.sw.Explain(1, frame.Frame{Data: c.data})
		if len(x.Copies) != 1 || x.Copies[0].Refused != c.want {
			t.Errorf("%s: explained %+v, want one copy and %v", c.name, x.Copies, c.want)
		}
		if got := results(x.Steps, "tunnel"); !strings.Contains(got, c.says) {
			t.Errorf("%s: explained as\n%s\nwant %q in it", c.name, got, c.says)
		}
		before := h.sw.Stats()
		q.Inject(c.data)
		until(t, c.name, func() bool { return h.sw.Stats().RxFrames > before.RxFrames })
		if after := h.sw.Stats(); after.Drops[c.want]-before.Drops[c.want] != after.Refused-before.Refused {
			t.Errorf("%s: refused under another reason: %+v", c.name, after.Drops)
		}
		if c.want != frame.ReasonNone {
			continue
		}
		b, from := far.hear()
		want := frame.Outer{VNI: uint32(blueVNI), Source: from, Destination: netip.MustParseAddrPort(far.at()), TTL: 64, Len: len(b) + 28}
		if d := cmp.Diff(want, x.Outer[id], cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Errorf("%s: sent (-), explained (+):\n%s", c.name, d)
		}
	}
	if got := h.tun.Refused(); got != (tunnel.Drops{}) {
		t.Errorf("explaining counts: %v", got)
	}
}

// TestExplainArrival asks what becomes of datagrams.
func TestExplainArrival(t *testing.T) {
	h, _ := loopHost(t, nil)
	h.nets = append(h.nets, tunnel.Network{VID: 20, VNI: 10020}, tunnel.Network{VID: 30, VNI: 10030, Encrypt: true})
	id := h.peer("127.0.0.2:4789", blue, 30)
	from := netip.MustParseAddr("127.0.0.2")
	ect := slices.Clone(hello)
	ect[15] |= 2
	for _, c := range []struct {
		name string
		from netip.Addr
		b    []byte
		tos  uint8
		want frame.Reason
	}{
		{"admitted", from, in(blueVNI, hello), 0, frame.ReasonNone},
		{"mapped address", netip.MustParseAddr("::ffff:127.0.0.2"), in(blueVNI, hello), 0, frame.ReasonNone},
		{"congestion, told on", from, in(blueVNI, ect), 3, frame.ReasonNone},
		{"stranger", netip.MustParseAddr("127.0.0.3"), in(blueVNI, hello), 0, frame.UnknownPeer},
		{"no network", from, in(77, hello), 0, frame.UnknownVNI},
		{"not this peer's", from, in(10020, hello), 0, frame.VNINotAllowed},
		{"in the clear", from, in(10030, hello), 0, frame.PlaintextRefused},
		{"in the clear, of a stranger", netip.MustParseAddr("127.0.0.3"), in(10030, hello), 0, frame.PlaintextRefused},
		{"tagged", from, in(blueVNI, switchtest.Tagged(5, 0, hello)), 0, frame.InnerTagged},
		{"short", from, in(blueVNI, hello[:13]), 0, frame.InnerShort},
		{"empty", from, nil, 0, frame.InnerShort},
		{"flags", from, make([]byte, 60), 0, frame.VXLANFlags},
		{"reserved", from, append([]byte{8, 1}, in(blueVNI, hello)[2:]...), 0, frame.VXLANReserved},
		{"congestion, not told on", from, in(blueVNI, hello), 3, frame.BadHeader},
	} {
		was := slices.Clone(c.b)
		x := h.tun.Explain(c.from, c.b, c.tos, false)
		if x.Refused != c.want {
			t.Errorf("%s: got %v, want %v", c.name, x.Refused, c.want)
		}
		if !slices.Equal(was, c.b) {
			t.Errorf("%s: the datagram was changed", c.name)
		}
		if c.want == frame.ReasonNone && (x.Frame.In != id || x.Frame.VID != blue) {
			t.Errorf("%s: got %+v", c.name, x.Frame)
		}
		if c.want != frame.ReasonNone && !strings.Contains(x.Steps[len(x.Steps)-1].Result, c.want.String()) {
			t.Errorf("%s: steps %+v don't name %v", c.name, x.Steps, c.want)
		}
	}
	x := h.tun.Explain(from, in(blueVNI, ect), 3, false)
	if got := x.Frame.Data[15] & 3; got != 3 {
		t.Errorf("inner ECN behind outer CE: got %d, want 3", got)
	}
	if y := h.sw.Explain(id, x.Frame); y.Verdict.Action != frame.Flood || y.Verdict.VID != blue {
		t.Errorf("the switch makes of it %+v", y.Verdict)
	}
	if got := h.tun.Refused(); got != (tunnel.Drops{}) {
		t.Errorf("explaining counts: %v", got)
	}
}

// untold are the reasons that no explanation gives, and why.
var untold = map[frame.Reason]string{
	frame.QueueFull:           "only the kernel knows whether a receiver reads",
	frame.BadRecord:           "an explained datagram is not encrypted",
	frame.Replayed:            "an explained datagram is not encrypted",
	frame.TTLExceeded:         "no router but the host's own",
	frame.NoRoute:             "no router but the host's own",
	frame.Martian:             "no router but the host's own",
	frame.BadChecksum:         "no router but the host's own",
	frame.NeighbourUnresolved: "no router but the host's own",
	frame.FragNeeded:          "no router but the host's own",
}

// TestEveryReasonIsExplained: each reason is one that TestExplainForetells must
// meet, is asked for here, or is known to be beyond what can be foretold.
func TestEveryReasonIsExplained(t *testing.T) {
	h, _ := loopHost(t, nil)
	asked := map[frame.Reason]vswitch.Explanation{
		frame.TooLong:  h.sw.Explain(1, frame.Frame{Data: make([]byte, frame.MaxLen)}),
		frame.PortDown: h.sw.Explain(99, frame.Frame{Data: hello}),
	}
	for r, x := range asked {
		if x.Verdict.Reason != r {
			t.Errorf("got %v, want %v", x.Verdict.Reason, r)
		}
	}
	for r := frame.ReasonNone + 1; r < frame.NumReasons; r++ {
		_, isAsked := asked[r]
		_, isUntold := untold[r]
		n := 0
		for _, is := range []bool{isAsked, isUntold, slices.Contains(foretold, r)} {
			if is {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%v: met, asked for or untold in %d places, want 1", r, n)
		}
	}
}
