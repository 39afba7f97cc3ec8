package api

import (
	"context"
	"net/http"
	"time"
)

// MaxWatch bounds CheckRequest.WatchMS.
const MaxWatch = time.Minute

// maxChecks is how many of them run at a time; each has a ring of 8 MiB.
const maxChecks = 4

// CheckRequest asks for what disagrees in the running switch.
type CheckRequest struct {
	WatchMS int `json:"watch_ms"` // how long to look at traffic; 0 = not at all
}

// Finding is one thing that disagrees.
type Finding struct {
	Area    string `json:"area"`    // status, config, kernel, fdb, traffic, peer, counters
	Subject string `json:"subject"` // port c1, peer h130, …; may be empty
	What    string `json:"what"`    // one sentence, with both values
	Want    string `json:"want"`
	Got     string `json:"got"`
	Hint    string `json:"hint"` // what mends it
}

// CheckReply is the answer to `check --live`.
type CheckReply struct {
	Findings []Finding `json:"findings"`
	// What was looked at.
	Ports    int     `json:"ports"`
	Peers    int     `json:"peers"`
	Entries  int     `json:"entries"`
	Frames   int     `json:"frames"`
	Missed   uint64  `json:"missed"` // frames that came too fast, or of too many stations, to be compared
	WatchedS float64 `json:"watched_s"`
}

// checkRoute serves the comparison, which changes nothing but takes its time.
func (s *Server) checkRoute(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/check", func(w http.ResponseWriter, r *http.Request) {
		var q CheckRequest
		if err := decode(r.Body, &q); err != nil {
			s.fail(w, err)
			return
		}
		if q.WatchMS < 0 || q.WatchMS > int(MaxWatch/time.Millisecond) {
			s.fail(w, Errorf(CodeInvalid, "watch_ms %d: want 0 to %d", q.WatchMS, MaxWatch/time.Millisecond))
			return
		}
		if !s.enter(w, s.checks, "%d checks are running already") {
			return
		}
		defer func() { <-s.checks }()
		v, err := s.backend.Check(r.Context(), q)
		s.reply(w, v, err)
	})
}

// Check asks what disagrees in the running switch.
func (c *Client) Check(ctx context.Context, r CheckRequest) (CheckReply, error) {
	return tell[CheckReply](ctx, c, "check", r)
}
