package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
)

// events streams one JSON object a line, each flushed at once, until the
// caller leaves, falls behind for eventTimeout, or the server closes.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "kind")
	if err != nil {
		s.fail(w, err)
		return
	}
	for _, k := range q["kind"] {
		if !slices.Contains(EventKinds, k) {
			s.fail(w, Errorf(CodeInvalid, "unknown kind of event %q", clip(k)).
				WithHint("kinds are %s", strings.Join(EventKinds, ", ")))
			return
		}
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		s.fail(w, Errorf(CodeFailed, "%d event streams are open already", maxStreams).WithHint("end one of them"))
		return
	}

	stream := s.backend.Events(r.Context(), q["kind"])
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
