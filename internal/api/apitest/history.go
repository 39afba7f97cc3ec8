package apitest

import (
	"iter"
	"slices"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// History implements api.Backend.
func (s *Switch) History(r api.HistoryRequest) ([]api.Taught, error) {
	out := slices.DeleteFunc(slices.Clone(s.history), func(t api.Taught) bool {
		return !r.MAC.IsZero() && t.MAC != r.MAC || r.Network != "" && t.Network != r.Network ||
			r.Port != "" && t.Port != r.Port && t.OldPort != r.Port || t.Time.Before(r.Since)
	})
	return out[max(0, len(out)-r.Limit):], nil
}

// At implements api.Backend. The entries are those of the present, the second
// one of them unsure; the history reaches back to Start.
func (s *Switch) At(r api.PastRequest) (api.Past, iter.Seq[api.PastEntry], error) {
	if r.Network != "" && !slices.ContainsFunc(s.networks, func(n api.Network) bool { return n.Name == r.Network }) {
		return api.Past{}, nil, api.Errorf(api.CodeNotFound, "no network %s", r.Network)
	}
	p := api.Past{Time: r.Time, Reach: Start}
	if r.Time.Before(Start) {
		p.Missed = 3
	}
	return p, func(yield func(api.PastEntry) bool) {
		for e := range s.FDB() {
			if (r.Network == "" || e.Network == r.Network) && !yield(api.PastEntry{Entry: e, Known: !r.Time.Before(Start)}) {
				return
			}
		}
	}, nil
}

// Why implements api.Backend.
func (s *Switch) Why(mac string) (api.Why, error) {
	m, err := frame.ParseMAC(mac)
	if err != nil {
		return api.Why{}, api.Errorf(api.CodeInvalid, "%v", err)
	}
	w := api.Why{MAC: m, Reach: Start}
	for i, t := range s.history {
		if t.MAC == m {
			w.History = append(w.History, s.history[i])
		}
	}
	for e := range s.FDB() {
		if e.MAC != m {
			continue
		}
		b := api.Belief{Entry: e, AgeingLeft: 297, Rate: 1, Flap: s.flap}
		if len(w.History) > 0 {
			b.TaughtBy = &w.History[len(w.History)-1]
		}
		w.Entries = append(w.Entries, b)
	}
	if w.Entries == nil && w.History == nil {
		return w, api.Errorf(api.CodeNotFound, "no network has heard of %s", m)
	}
	return w, nil
}

// Flap makes the only station flap.
func (s *Switch) Flap() {
	s.flap = &api.Flap{Network: "blue", VLAN: 10, MAC: s.entries[0].MAC, Ports: []string{"c1", "c2"}, Rate: 12, Least: true, Since: Start,
		Cause: "a duplicate address", Hint: "give one of the machines another address"}
}
