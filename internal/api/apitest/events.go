package apitest

import (
	"context"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
)

// happened is what a Switch remembers.
var happened = []api.Event{
	{Time: Start, Kind: "worker", What: "worker 4242 forwards (generation 1)"},
	{Time: Start.Add(time.Second), Kind: "port", What: "port c2 is down: namespace c2 is gone", Port: "c2",
		Fields: map[string]any{"state": "down", "reason": "namespace c2 is gone"}},
	{Time: Start.Add(2 * time.Second), Kind: "peer", What: "peer h131 is down", Peer: "h131"},
}

// Happened implements api.Backend.
func (s *Switch) Happened(r api.HappenedRequest) []api.Event {
	out := slices.DeleteFunc(slices.Clone(happened), func(e api.Event) bool {
		whole := e.Port == "" && e.Peer == ""
		return len(r.Kinds) > 0 && !slices.Contains(r.Kinds, e.Kind) || e.Time.Before(r.Since) ||
			r.Port != "" && r.Port != e.Port && !whole || r.Peer != "" && r.Peer != e.Peer && !whole
	})
	return out[max(0, len(out)-r.Limit):]
}

// Check implements api.Backend. The status' problems are what it finds, and an
// MTU while there are some.
func (s *Switch) Check(_ context.Context, r api.CheckRequest) (api.CheckReply, error) {
	if err := s.note(r); err != nil {
		return api.CheckReply{}, err
	}
	reply := api.CheckReply{Ports: 2, Peers: 1, Entries: 1, Frames: r.WatchMS, WatchedS: float64(r.WatchMS) / 1000}
	for _, p := range s.Status().Problems {
		reply.Findings = append(reply.Findings, api.Finding{Area: "status", What: p.What, Hint: p.Hint},
			api.Finding{Area: "kernel", Subject: "port c1", What: "port c1: interface eth0 has MTU 1400, its network wants 1450", Want: "1450", Got: "1400",
				Hint: "ip netns exec c1 ip link set eth0 mtu 1450"})
	}
	return reply, nil
}
