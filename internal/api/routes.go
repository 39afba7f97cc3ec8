package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// EventKinds are the kinds of event that a stream can be limited to. A stream
// without a limit has all but frame.
var EventKinds = []string{"port", "peer", "network", "fdb", "loop", "storm", "worker", "config", "frame"}

// maxHistory is more events than any history ring holds.
const maxHistory = 1 << 20

// asker serves a GET request with the parameters it may have.
type asker func(path string, params []string, answer func(q url.Values) (any, error))

func (s *Server) routes() http.Handler {
	b := s.backend
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics())
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("GET /v1/capture", s.capture)
	mux.HandleFunc("POST /v1/trace", s.trace)

	var ask asker = func(path string, params []string, answer func(q url.Values) (any, error)) {
		mux.HandleFunc("GET /v1/"+path, func(w http.ResponseWriter, r *http.Request) {
			q, err := query(r, params...)
			if err != nil {
				s.fail(w, err)
				return
			}
			v, err := answer(q)
			s.reply(w, v, err)
		})
	}
	ask("status", nil, func(url.Values) (any, error) { return b.Status(), nil })
	ask("stats", nil, func(url.Values) (any, error) { return b.Stats(), nil })
	ask("networks", nil, func(url.Values) (any, error) { return b.Networks(), nil })
	ask("ports", nil, func(url.Values) (any, error) { return b.Ports(), nil })
	ask("peers", nil, func(url.Values) (any, error) { return b.Peers(), nil })
	ask("fdb", nil, func(url.Values) (any, error) { return b.FDB(), nil })
	historyRoutes(b, ask)
	happenedRoutes(b, ask)

	s.checkRoute(mux)
	order(s, mux, "apply", b.Apply)
	order(s, mux, "item", b.Item)
	order(s, mux, "attach", b.Attach)
	order(s, mux, "detach", func(ctx context.Context, r DetachRequest) (struct{}, error) {
		return struct{}{}, b.Detach(ctx, r)
	})
	order(s, mux, "fdb/flush", func(_ context.Context, r FlushRequest) (FlushReply, error) { return b.Flush(r) })
	order(s, mux, "upgrade", func(ctx context.Context, _ struct{}) (UpgradeReply, error) { return b.Upgrade(ctx) })
	mux.HandleFunc("POST /v1/explain", func(w http.ResponseWriter, r *http.Request) {
		var q ExplainRequest
		v, err := ExplainReply{}, decode(r.Body, &q)
		if err == nil {
			if err = checkHex(q.Hex); err == nil {
				v, err = b.Explain(q)
			}
		}
		s.reply(w, v, err)
	})

	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, Errorf(CodeNotFound, "no such request: %s %s", clip(r.Method), clip(r.URL.Path)).
			WithHint("the switch and this program may be of different versions: see `tapestry version`"))
	})
	return mux
}

// order serves a POST request that changes something, and logs who asked.
func order[Q, A any](s *Server, mux *http.ServeMux, path string, do func(context.Context, Q) (A, error)) {
	mux.HandleFunc("POST /v1/"+path, func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := decode(r.Body, &q); err != nil {
			s.fail(w, err)
			return
		}
		start := time.Now()
		v, err := do(r.Context(), q)
		p, _ := r.Context().Value(peerKey{}).(peer)
		attrs := []any{"call", path, "peer", p, "took", time.Since(start)}
		if err != nil {
			attrs = append(attrs, "err", Clean(err.Error()))
		}
		s.log.Info("api call", attrs...)
		s.reply(w, v, err)
	})
}

// decode reads exactly one JSON document of the shape of v.
func decode(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one JSON document")
		}
	}
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return Errorf(CodeInvalid, "the request is larger than %d octets", maxBody)
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the body is empty")
	}
	return Errorf(CodeInvalid, "read request: %s", clip(strings.TrimPrefix(err.Error(), "json: ")))
}

// query returns the URL's parameters, each of which must be allowed.
func query(r *http.Request, allowed ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, Errorf(CodeInvalid, "read query: %s", clip(err.Error()))
	}
	for k := range q {
		if !slices.Contains(allowed, k) {
			return nil, Errorf(CodeInvalid, "unknown query parameter %q", clip(k))
		}
	}
	return q, nil
}

func limitOf(s string) (int, error) {
	if s == "" {
		return maxHistory, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxHistory {
		return 0, Errorf(CodeInvalid, "limit %q: want a number from 1 to %d", clip(s), maxHistory)
	}
	return n, nil
}

func checkHex(s string) error {
	if len(s) > 2*frame.MaxLen {
		return Errorf(CodeInvalid, "hex: a frame has at most %d octets, got %d", frame.MaxLen, len(s)/2)
	}
	if _, err := hex.DecodeString(s); err != nil {
		return Errorf(CodeInvalid, "hex: %v", err)
	}
	return nil
}

// clip bounds what an error repeats of a caller's words.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s… (%d octets)", strings.ToValidUTF8(s[:most], ""), len(s))
}
