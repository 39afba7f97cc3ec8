package apitest

import (
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
