package tracer_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/tracer"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/inject"
	"github.com/tapestry-net/tapestry/tunnel"
)

// desk is a host without frames: a test shows them to whoever observes.
type desk struct {
	here      tracer.Here
	observers chan vswitch.Observer // each that came
	left      chan vswitch.Observer // each that went
	drops     map[frame.PortID]tracer.Counts
	ask       func(id frame.PortID, text []byte, sealed bool) (tunnel.Told, error)
	looked    atomic.Int64 // how often somebody has looked at names or the table
}

func newDesk() *desk {
	return &desk{
		observers: make(chan vswitch.Observer, 10), left: make(chan vswitch.Observer, 10),
		here: tracer.Here{
			Host: "h1",
			Ports: map[string]tracer.Port{
				"c1":   {ID: 1, Request: keeper.PortRequest{Kind: keeper.KindTap, Netns: "red"}, Reply: keeper.PortReply{Device: "eth0", NetnsID: 7}},
				"c2":   {ID: 2, Request: keeper.PortRequest{Kind: keeper.KindVeth, Netns: "red"}, Reply: keeper.PortReply{Device: "eth1", NetnsID: 7, Splice: "s2", HostEnd: "v2"}},
				"gw":   {ID: 3, Request: keeper.PortRequest{Kind: keeper.KindHost}, Reply: keeper.PortReply{Device: "tap-blue"}},
				"up":   {ID: 4, Request: keeper.PortRequest{Kind: keeper.KindDevice, Device: "eth1"}, Reply: keeper.PortReply{Device: "eth1"}},
				"gone": {ID: 5, Request: keeper.PortRequest{Kind: keeper.KindTap}, Down: "namespace gone is gone", Hint: "ip netns add gone"},
			},
			Place:   func(id frame.PortID) (string, bool) { return "c" + string(rune('0'+id)), false },
			Network: func(frame.VID) tracer.Network { return tracer.Network{Name: "blue"} },
		},
	}
}

func (d *desk) Here() tracer.Here {
	d.looked.Add(1)
	return d.here
}
func (d *desk) Entry(_ frame.VID, _ frame.MAC, at frame.PortID) (string, string) {
	d.looked.Add(1)
	return fmt.Sprint("an entry at ", at), "a frame"
}
func (d *desk) Drops() map[frame.PortID]tracer.Counts { return d.drops }
func (d *desk) Observe(o, _ vswitch.Observer)         { d.observers <- o }
func (d *desk) Unobserve(o, _ vswitch.Observer)       { d.left <- o }
func (d *desk) Inject(inject.Frame) bool              { return true }
func (d *desk) Ask(_ context.Context, id frame.PortID, text []byte, sealed bool) (tunnel.Told, error) {
	if d.ask == nil {
		return tunnel.Told{}, tunnel.ErrNoAnswer
	}
	return d.ask(id, text, sealed)
}

func TestTraceRefuses(t *testing.T) {
	tr := tracer.New(newDesk(), nil, slog.New(slog.DiscardHandler))
	defer tr.Close()
	for _, c := range []struct {
		r    api.TraceRequest
		code int
		want string
	}{
		{api.TraceRequest{From: "c1"}, api.CodeInvalid, "from and to"},
		{api.TraceRequest{From: "c1", To: "c2", Proto: "sctp"}, api.CodeInvalid, "sctp"},
		{api.TraceRequest{From: "c1", To: "c2", Port: 80}, api.CodeInvalid, "ICMP has no ports"},
		{api.TraceRequest{From: "c1", To: "c2", Proto: "tcp", Port: 65536}, api.CodeInvalid, "65536"},
		{api.TraceRequest{From: "c1", To: "c2", TTL: 256}, api.CodeInvalid, "256"},
		{api.TraceRequest{From: "c1", To: "c2", WaitMS: 10001}, api.CodeInvalid, "10001"},
		{api.TraceRequest{From: "c1", To: "c2", MAC: "02:00:00:00:00:01"}, api.CodeInvalid, "the namespace chooses"},
		{api.TraceRequest{From: "c9", To: "c2"}, api.CodeNotFound, "c9"},
		{api.TraceRequest{From: "h1/c9", To: "c2"}, api.CodeNotFound, "c9"},
		{api.TraceRequest{From: "gone", To: "c2"}, api.CodeFailed, "namespace gone is gone"},
		{api.TraceRequest{Watch: "icmp and hots 10.1.0.3"}, api.CodeInvalid, "column"},
		{api.TraceRequest{Watch: "icmp", Count: -1}, api.CodeInvalid, "-1"},
	} {
		_, err := tr.Trace(t.Context(), c.r)
		if e := api.AsError(err); err == nil || e.Code != c.code || !strings.Contains(e.Msg, c.want) {
			t.Errorf("%+v: got %v, want %q", c.r, err, c.want)
		}
	}
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestAddresses(t *testing.T) {
	own := prefixes("10.1.0.2/24", "10.9.0.2/24", "fe80::2/64", "fd00::2/64")
	for dst, want := range map[string]string{"10.9.0.7": "10.9.0.2", "192.0.2.1": "10.1.0.2", "fd00::7": "fd00::2", "fe80::7": "fe80::2"} {
		if got, ok := tracer.SourceFor(own, netip.MustParseAddr(dst)); !ok || got.String() != want {
			t.Errorf("to %s from %v, want %s", dst, got, want)
		}
	}
	if got, ok := tracer.SourceFor(own[:2], netip.MustParseAddr("fd00::7")); ok {
		t.Errorf("to IPv6 from %v", got)
	}
	for _, c := range []struct {
		theirs, own []netip.Prefix
		want        string
	}{
		{prefixes("fd00::3/64", "10.1.0.3/24"), own, "10.1.0.3"},
		{prefixes("fe80::3/64", "fd00::3/64"), own, "fd00::3"},
		{prefixes("10.1.0.3/24"), own[3:], "no address of a family"},
		{nil, own, "no address"},
	} {
		a, err := tracer.PickAddress("c2", c.theirs, c.own)
		if err == nil && a.String() != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("of %v: got %v, %v, want %s", c.theirs, a, err, c.want)
		}
	}
}

// TestEars: each namespace is listened in once; what the switch itself reads and
// writes is left out, and the far ends of its ports are known.
func TestEars(t *testing.T) {
	h := newDesk().here
	want := []map[string]string{
		{"port": "", "netns": "", "far tap-blue": "gw", "deaf eth1": "yes", "deaf s2": "yes", "deaf v2": "yes", "deaf ": "yes"},
		{"port": "c1", "netns": "red", "far eth0": "c1", "far eth1": "c2"},
	}
	for name, ends := range map[string][]string{"an end": {"c2", "c1", "up", "gone", "nobody", ""}, "a router": nil} {
		got, more := tracer.Ears(&h, ends...)
		if ends != nil {
			want[1]["port"] = "c2"
		} else {
			want[1]["port"] = "c1"
		}
		if d := cmp.Diff(want, got); d != "" || more != 0 {
			t.Errorf("ears where red is %s, %d more (-want +got):\n%s", name, more, d)
		}
	}
}

// TestEarsBound: of many containers that may route some are listened in, which
// ones is no matter of chance, and the others are counted.
func TestEarsBound(t *testing.T) {
	h := tracer.Here{Ports: map[string]tracer.Port{}}
	for i := range 40 {
		h.Ports[fmt.Sprintf("p%02d", i)] = tracer.Port{Request: keeper.PortRequest{Kind: keeper.KindTap}, Reply: keeper.PortReply{NetnsID: uint64(1 + i/2)}}
	}
	got, more := tracer.Ears(&h, "p39", "p03")
	var ports []string
	for _, e := range got {
		ports = append(ports, e["port"])
	}
	want := []string{"", "p39", "p03", "p00", "p04", "p06", "p08", "p10", "p12", "p14", "p16"}
	if d := cmp.Diff(want, ports); d != "" || more != 20-10 {
		t.Errorf("%d more, ears (-want +got):\n%s", more, d)
	}
}
