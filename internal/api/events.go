package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// events streams one JSON object a line, each flushed at once, until the
// caller leaves, falls behind for eventTimeout, or the server closes.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "kind", "since")
	var since time.Time
	if err == nil {
		err = checkKinds(q["kind"])
	}
	if err == nil {
		since, err = timeOf("since", q.Get("since"))
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	if !s.enter(w, s.streams, "%d event streams are open already") {
		return
	}
	defer func() { <-s.streams }()

	stream := s.backend.Events(r.Context(), q["kind"], since)
	c := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	// The caller learns that it is listening before anything happens.
	if err := c.Flush(); err != nil {
		return
	}
	// When the server closes, a caller that doesn't read must not hold up the next
	// worker: the deadline set last is this one, or the loop sees that it is over.
	defer context.AfterFunc(r.Context(), func() { s.deadline(w, 0) })()
	for e := range stream {
		s.deadline(w, eventTimeout)
		if r.Context().Err() != nil || Encode(w, e) != nil || c.Flush() != nil {
			return
		}
	}
}

// checkKinds refuses a kind of event that there isn't.
func checkKinds(kinds []string) error {
	for _, k := range kinds {
		if !slices.Contains(EventKinds, k) {
			return Errorf(CodeInvalid, "unknown kind of event %q", clip(k)).
				WithHint("kinds are %s", strings.Join(EventKinds, ", "))
		}
	}
	return nil
}

// HappenedRequest selects remembered events; zero fields match all. An event
// about no port and no peer, such as the start of a worker, is about all of
// them.
type HappenedRequest struct {
	Kinds []string
	Port  string
	Peer  string
	Since time.Time
	Limit int // the newest so many
}

// happenedRoutes serves what is remembered of ports, peers and the switch.
func happenedRoutes(b Backend, ask asker) {
	ask("history", []string{"kind", "port", "peer", "since", "limit"}, func(q url.Values) (any, error) {
		r := HappenedRequest{Kinds: q["kind"], Port: q.Get("port"), Peer: q.Get("peer")}
		err := checkKinds(r.Kinds)
		if err == nil {
			r.Since, err = timeOf("since", q.Get("since"))
		}
		if err == nil {
			r.Limit, err = limitOf(q.Get("limit"))
		}
		return b.Happened(r), err
	})
}

// Happened asks for what is remembered of ports, peers and the switch, oldest
// first.
func (c *Client) Happened(ctx context.Context, r HappenedRequest) ([]Event, error) {
	q := url.Values{}
	if len(r.Kinds) > 0 {
		q["kind"] = r.Kinds
	}
	for name, value := range map[string]string{"port": r.Port, "peer": r.Peer} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if !r.Since.IsZero() {
		q.Set("since", r.Since.Format(time.RFC3339Nano))
	}
	if r.Limit > 0 {
		q.Set("limit", strconv.Itoa(r.Limit))
	}
	return ask[[]Event](ctx, c, "history?"+q.Encode())
}
