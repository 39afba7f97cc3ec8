package main

import (
	"testing"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/api"
)

// TestTTLs: who took one from the TTL is named, and a router that nobody listened
// at isn't denied.
func TestTTLs(t *testing.T) {
	hop := func(at string, in, out int) *trace.Hop {
		return &trace.Hop{Direction: trace.Request, At: at, Host: "h1", TTLIn: in, TTLOut: out}
	}
	inside := hop(trace.Route, 64, 63)
	inside.Netns, inside.Far = "r", "r1"
	foreign := hop(trace.Route, 63, 62)
	foreign.Netns = "r"
	for _, c := range []struct {
		hops     []*trace.Hop
		answered bool
		want     string
	}{
		{nil, true, ""},
		{[]*trace.Hop{hop(trace.Ingress, 64, 64), hop(trace.Egress, 64, 64)}, true, "64 all the way: no router took one"},
		{[]*trace.Hop{hop(trace.Ingress, 64, 64)}, false, "64 as far as it came: no router took one"},
		{[]*trace.Hop{hop(trace.Ingress, 64, 64), inside, foreign}, true, "64 → 63 (the container behind h1/r1) → 62 (the container r of h1)"},
		{[]*trace.Hop{hop(trace.Egress, 64, 64), hop(trace.Ingress, 62, 62), hop(trace.Route, 62, 61)}, true, "64 → 62 (not seen) → 61 (h1)"},
		{[]*trace.Hop{hop(trace.Egress, 64, 64), hop(trace.Route, 63, 62), hop(trace.Egress, 62, 62)}, false, "64 → 63 (not seen) → 62 (h1)"},
	} {
		p := &tracePrinter{hops: c.hops, last: &api.TraceEnd{Answered: c.answered}}
		if got := p.ttls(trace.Request); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
