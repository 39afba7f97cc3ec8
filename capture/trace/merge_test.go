package trace_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/capture/trace"
)

var start = time.Unix(1700000000, 0)

// journey is a random path, step by step in its true order.
type journey struct {
	t     *rapid.T
	hosts int
	host  int
	ttl   int
	what  trace.What
	now   time.Time
	truth []step
}

type step struct {
	host int
	trace.Event
}

func (j *journey) step(host int, e trace.Event) {
	j.now = j.now.Add(time.Duration(rapid.IntRange(1, 50).Draw(j.t, "gap")) * time.Microsecond)
	at := j.now
	if e.At == trace.AtSwitch { // shown with the time of the wake-up, which may be before the frame came
		at = at.Add(-time.Duration(rapid.IntRange(0, 100).Draw(j.t, "wake-up")) * time.Microsecond)
	}
	e.Time, e.TTL, e.What = at.UnixNano(), uint8(j.ttl), j.what
	j.truth = append(j.truth, step{host, e})
}

// way goes from the container of host until it arrives in another.
func (j *journey) way() {
	j.step(j.host, trace.Event{At: trace.AtOut, Port: "eth0", Far: "c1", Netns: "c1"})
	in, peer := "c1", false
	for {
		kinds := []string{"deliver", "route", "tunnel"}
		if peer || j.hosts == 1 {
			kinds = kinds[:2] // split horizon
		}
		if j.ttl == 1 {
			kinds = kinds[:1]
		}
		switch rapid.SampledFrom(kinds).Draw(j.t, "then") {
		case "deliver":
			j.step(j.host, trace.Event{At: trace.AtSwitch, Port: in, Peer: peer, Exits: []trace.Exit{{Port: "c2"}, {Port: "c3"}}})
			j.step(j.host, trace.Event{At: trace.AtIn, Port: "eth0", Far: "c2", Netns: "c2"})
			return
		case "tunnel":
			to := j.other("tunnel to")
			j.step(j.host, trace.Event{At: trace.AtSwitch, Port: in, Exits: []trace.Exit{{Port: fmt.Sprint("h", to), Peer: true}}})
			in, peer, j.host = fmt.Sprint("h", j.host), true, to
		case "route":
			j.step(j.host, trace.Event{At: trace.AtSwitch, Port: in, Peer: peer, Exits: []trace.Exit{{Port: "gw"}}})
			j.step(j.host, trace.Event{At: trace.AtIn, Port: "tap-gw", Far: "gw"})
			j.routes()
			in, peer = "gw2", false
		}
	}
}

func (j *journey) other(label string) int {
	return rapid.SampledFrom(slices.DeleteFunc([]int{0, 1, 2, 3}[:j.hosts], func(h int) bool { return h == j.host })).Draw(j.t, label)
}

// routes takes the packet from kernel to kernel, and into a switch again.
func (j *journey) routes() {
	for j.ttl > 2 && j.hosts > 1 && rapid.Bool().Draw(j.t, "on") {
		j.ttl--
		j.step(j.host, trace.Event{At: trace.AtOut, Port: "under0"})
		j.host = j.other("routed to")
		j.step(j.host, trace.Event{At: trace.AtIn, Port: "under0"})
	}
	j.ttl--
	j.step(j.host, trace.Event{At: trace.AtOut, Port: "tap-gw2", Far: "gw2"})
}

// name says where a step is.
func name(host, at, port string, ttl int, answer string) string {
	return fmt.Sprintf("%s %s %s %d %s", host, at, port, ttl, answer)
}

// want are the hops of the true order.
func (j *journey) want() []string {
	var out []string
	for i := 0; i < len(j.truth); i++ {
		s := j.truth[i]
		host, dir := fmt.Sprint("h", s.host), trace.Request
		if s.What != trace.Probe {
			dir = trace.Answer
		}
		switch {
		case s.At == trace.AtSwitch:
			first := trace.Ingress
			if s.Peer {
				first = trace.Decap
			}
			out = append(out, name(host, first, s.Port, int(s.TTL), dir), name(host, trace.Decide, s.Port, int(s.TTL), dir))
			for _, x := range s.Exits {
				last := trace.Egress
				if x.Peer {
					last = trace.Encap
				}
				out = append(out, name(host, last, x.Port, int(s.TTL), dir))
			}
		case s.At == trace.AtIn && i+1 < len(j.truth) && j.truth[i+1].At == trace.AtOut && j.truth[i+1].host == s.host && j.truth[i+1].TTL < s.TTL:
			out = append(out, name(host, trace.Route, s.Port, int(s.TTL), dir))
			i++
		default:
			out = append(out, name(host, trace.Wire, s.Port, int(s.TTL), dir))
		}
	}
	return out
}

// TestMergeRestoresTheOrder: whatever way a packet takes between up to four
// hosts, whose clocks are hours apart and known to some milliseconds, and in
// whatever order they tell: the hops come out in the order of the truth.
func TestMergeRestoresTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := &journey{t: t, hosts: rapid.IntRange(1, 4).Draw(t, "hosts"), ttl: rapid.IntRange(1, 12).Draw(t, "ttl"), now: start}
		j.way()
		j.ttl, j.what = 64, trace.EchoReply
		j.way()
		accounts := make([]trace.Account, j.hosts)
		for i := range accounts {
			accounts[i].Host = fmt.Sprint("h", i)
			off := time.Duration(rapid.Int64Range(-int64(time.Hour), int64(time.Hour)).Draw(t, "offset"))
			wrong := time.Duration(rapid.IntRange(-5000, 5000).Draw(t, "wrong by")) * time.Microsecond
			accounts[i].Offset = off + wrong
			for _, s := range j.truth {
				if s.host == i {
					s.Time += int64(off)
					accounts[i].Events = append(accounts[i].Events, s.Event)
				}
			}
			accounts[i].Events = rapid.Permutation(accounts[i].Events).Draw(t, "told")
		}
		var got []string
		for i, h := range trace.Merge(1, rapid.Permutation(accounts).Draw(t, "accounts")) {
			if h.Hop != i+1 || h.SinceUS < 0 {
				t.Fatalf("hop %d has number %d, %d µs after the one before", i+1, h.Hop, h.SinceUS)
			}
			got = append(got, name(h.Host, h.At, h.Port, h.TTLIn, h.Direction))
		}
		if d := cmp.Diff(j.want(), got); d != "" {
			t.Fatalf("order (-true +merged):\n%s", d)
		}
	})
}

// TestMergeWithGaps: when events are missing, nothing else is lost, a TTL never
// rises on the way, and the answer comes behind the request.
func TestMergeWithGaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := &journey{t: t, hosts: rapid.IntRange(1, 4).Draw(t, "hosts"), ttl: 9, now: start}
		j.way()
		j.ttl, j.what = 64, trace.EchoReply
		j.way()
		a := make([]trace.Account, j.hosts)
		kept := 0
		for _, s := range j.truth {
			if rapid.IntRange(0, 3).Draw(t, "lost") > 0 {
				s.Exits = nil
				a[s.host].Events = append(a[s.host].Events, s.Event)
				kept++
			}
		}
		hops, events := trace.Merge(1, a), 0
		for i, h := range hops {
			switch h.At {
			case trace.Route:
				events += 2
			case trace.Wire, trace.Decide:
				events++
			}
			if i > 0 && (h.Direction == hops[i-1].Direction && h.TTLIn > hops[i-1].TTLOut || h.Direction == trace.Request && hops[i-1].Direction == trace.Answer) {
				t.Fatalf("hop %d, %s with TTL %d, is behind one with %d", h.Hop, h.Direction, h.TTLIn, hops[i-1].TTLOut)
			}
		}
		if events != kept {
			t.Fatalf("%d events came out, %d went in", events, kept)
		}
	})
}

// TestMergeForOthers: what an interface hears for another station no kernel
// takes, and none routes.
func TestMergeForOthers(t *testing.T) {
	at := start.UnixNano()
	hops := trace.Merge(1, []trace.Account{{Host: "a", Events: []trace.Event{
		{At: trace.AtIn, Other: true, Time: at, TTL: 64, Port: "veth0"},
		{At: trace.AtOut, Time: at + 1, TTL: 63, Port: "e"},
	}}})
	if len(hops) != 2 || hops[0].At != trace.Wire || hops[0].Action != "ignore" || hops[1].Action != "send" {
		t.Errorf("got %+v", hops)
	}
}

// TestMergeFloodedAndRouted: copies of a flood that others hear in between hide
// no router.
func TestMergeFloodedAndRouted(t *testing.T) {
	at := start.UnixNano()
	hops := trace.Merge(1, []trace.Account{{Host: "a", Events: []trace.Event{
		{At: trace.AtIn, Time: at, TTL: 64, Port: "eth0", Netns: "r", Far: "r1"},
		{At: trace.AtIn, Other: true, Time: at + 1, TTL: 64, Port: "eth0", Netns: "c", Far: "c2"},
		{At: trace.AtIn, Time: at + 2, TTL: 64, Port: "eth0.10", Netns: "r"},
		{At: trace.AtIn, Other: true, Time: at + 3, TTL: 64, Port: "eth0", Netns: "d", Far: "c3"},
		{At: trace.AtOut, Time: at + 4, TTL: 63, Port: "eth1", Netns: "r", Far: "r2"},
	}}})
	var got []string
	for _, h := range hops {
		got = append(got, fmt.Sprint(h.At, " ", h.Far, " ", h.Port, " ", h.Next, " ", h.TTLIn, " ", h.TTLOut))
	}
	want := []string{"wire r1 eth0  64 64", "wire c2 eth0  64 64", "wire c3 eth0  64 64", "route  eth0.10 eth1 64 63"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("hops (-want +got):\n%s", d)
	}
}

// TestMergeContradiction: causes that contradict each other end in some order.
func TestMergeContradiction(t *testing.T) {
	in, out := trace.Event{At: trace.AtIn, Port: "e"}, trace.Event{At: trace.AtOut, Port: "e"}
	hops := trace.Merge(1, []trace.Account{{Host: "a", Events: []trace.Event{in, out}}, {Host: "b", Events: []trace.Event{in, out}}})
	if len(hops) != 4 {
		t.Errorf("%d hops, want 4", len(hops))
	}
}

// TestMergeBounds: no more than MaxEvents are ordered.
func TestMergeBounds(t *testing.T) {
	e := slices.Repeat([]trace.Event{{At: trace.AtIn}}, 3*trace.MaxEvents)
	if n := len(trace.Merge(1, []trace.Account{{Events: e}})); n != trace.MaxEvents {
		t.Errorf("%d hops, want %d", n, trace.MaxEvents)
	}
}

// Two containers of two hosts that static routes join: 64, 63, 62.
func ExampleMerge() {
	us := func(n int64) int64 { return start.UnixNano() + n*1000 }
	h1 := []trace.Event{
		{At: trace.AtSwitch, Time: us(0), TTL: 64, Port: "c1", Network: "blue", Action: "forward", Reason: "known_unicast", Exits: []trace.Exit{{Port: "gw"}}},
		{At: trace.AtIn, Time: us(10), TTL: 64, Port: "tap-blue", Far: "gw"},
		{At: trace.AtOut, Time: us(20), TTL: 63, Port: "ens18"},
	}
	h2 := []trace.Event{ // whose clock is a second behind
		{At: trace.AtIn, Time: us(50 - 1e6), TTL: 63, Port: "ens18"},
		{At: trace.AtOut, Time: us(60 - 1e6), TTL: 62, Port: "tap-blue", Far: "gw"},
		{At: trace.AtSwitch, Time: us(70 - 1e6), TTL: 62, Port: "gw", Network: "blue", Action: "forward", Reason: "known_unicast", Exits: []trace.Exit{{Port: "c2"}}},
	}
	for _, h := range trace.Merge(1, []trace.Account{{Host: "h2", Offset: -time.Second, Events: h2}, {Host: "h1", Events: h1}}) {
		fmt.Println(h.Hop, h.Host, h.At, strings.TrimSuffix(h.Port+" > "+h.Next, " > "), h.TTLIn, h.TTLOut, h.SinceUS)
	}
	// Output:
	// 1 h1 ingress c1 64 64 0
	// 2 h1 decide c1 > gw 64 64 0
	// 3 h1 egress gw 64 64 0
	// 4 h1 route tap-blue > ens18 64 63 20
	// 5 h2 route ens18 > tap-blue 63 62 40
	// 6 h2 ingress gw 62 62 10
	// 7 h2 decide gw > c2 62 62 0
	// 8 h2 egress c2 62 62 0
}

func TestOffset(t *testing.T) {
	asked := start
	for _, off := range []time.Duration{0, time.Hour, -time.Minute} {
		there, work, back := 3*time.Millisecond, 40*time.Millisecond, 3*time.Millisecond
		heard := asked.Add(there + off)
		told := heard.Add(work)
		got, trip := trace.Offset(asked, heard, told, told.Add(back-off))
		if got != off || trip != there+back {
			t.Errorf("offset %v in %v, want %v in %v", got, trip, off, there+back)
		}
	}
}
