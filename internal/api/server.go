package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits of one connection. Callers are local, so a slow one is stuck.
const (
	maxBody      = 4 << 20          // octets of one request body
	maxUnread    = 4 * maxBody      // octets thrown away of one that was refused
	maxHeader    = 16 << 10         // octets of one request header
	readTimeout  = 10 * time.Second // for the whole request
	writeTimeout = 30 * time.Second // for a reply once the Backend has answered
	eventTimeout = 10 * time.Second // for one line of the event stream
	idleTimeout  = 2 * time.Minute
	closeTimeout = 2 * time.Second // for calls under way when the server closes
	maxStreams   = 64              // event streams at a time
)

// Server serves the control API of one Backend.
type Server struct {
	backend Backend
	log     *slog.Logger
	http    http.Server
	streams chan struct{} // one token an event stream under way
	// captures has one token a capture under way.
	captures chan struct{}
	traces   chan struct{} // one token a trace under way
	checks   chan struct{} // one token a check under way

	// stop ends the event streams, which would otherwise never end.
	stop func()

	mu     sync.Mutex
	access access // of the listener being served
}

// NewServer returns a server that answers for backend and logs to log; it
// serves nothing until Serve.
func NewServer(backend Backend, log *slog.Logger) *Server {
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{backend: backend, log: log, stop: stop, streams: make(chan struct{}, maxStreams), captures: make(chan struct{}, maxCaptures),
		traces: make(chan struct{}, maxTraces), checks: make(chan struct{}, maxChecks)}
	s.http = http.Server{
		Handler:           s.guard(s.routes()),
		ReadTimeout:       readTimeout,
		ReadHeaderTimeout: readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       s.connContext,
	}
	return s
}

// Serve answers the connections that l accepts until Close, and then returns
// nil. l is a unix socket; it is closed when Serve returns.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	s.access = accessOf(l)
	s.mu.Unlock()
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends the event streams at once, lets other calls under way finish for
// a moment, and closes every connection. It is idempotent.
func (s *Server) Close() error {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.http.Shutdown(ctx); err == nil {
		return nil
	}
	return s.http.Close()
}

type peerKey struct{}

// connContext reads the credentials once a connection. A connection without
// any is refused by guard.
func (s *Server) connContext(ctx context.Context, c net.Conn) context.Context {
	p, err := peerOf(c)
	if err != nil {
		s.log.Warn("api connection refused", "err", err)
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// guard refuses callers that may not speak and bounds what the others send.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := r.Context().Value(peerKey{}).(peer)
		s.mu.Lock()
		a := s.access
		s.mu.Unlock()
		if !ok || !a.admits(p) {
			s.log.Warn("api call refused", "path", r.URL.Path, "peer", p)
			s.fail(w, Errorf(CodeNotPermitted, "user %d may not speak to the switch", p.uid).
				WithHint("run the command as root, or join the group that owns the socket"))
			return
		}
		body := r.Body
		r.Body = http.MaxBytesReader(w, body, maxBody)
		next.ServeHTTP(w, r)
		// Who is still writing when the connection closes never reads why.
		_, _ = io.Copy(io.Discard, io.LimitReader(body, maxUnread))
	})
}

// enter takes one of the places for streams of a kind, for the caller to give back
// by receiving from it. Without a free one it answers with full, which is told how
// many there are, and reports false.
func (s *Server) enter(w http.ResponseWriter, places chan struct{}, full string) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		s.fail(w, Errorf(CodeFailed, full, cap(places)).WithHint("end one of them"))
		return false
	}
}

// reply sends v, or the error.
func (s *Server) reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		s.fail(w, err)
		return
	}
	s.send(w, http.StatusOK, v)
}

// fail sends err with the status of its code.
func (s *Server) fail(w http.ResponseWriter, err error) {
	e := AsError(err)
	s.send(w, status(e.Code), Error{Code: e.Code, Msg: Clean(e.Msg), Hint: Clean(e.Hint), Retry: e.Retry})
}

func (s *Server) send(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	s.deadline(w, writeTimeout)
	w.WriteHeader(status)
	if err := Encode(w, v); err != nil {
		s.log.Debug("api reply lost", "err", err)
	}
}

// deadline gives the next writes d from now.
func (s *Server) deadline(w http.ResponseWriter, d time.Duration) {
	// A writer without deadlines is one of a test.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		s.log.Debug("api write deadline not set", "err", err)
	}
}

// metrics serves the Prometheus text of a registry of its own: the switch's
// counters, and those of the Go runtime and the worker's process.
func (s *Server) metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(newCollector(s.backend), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		MaxRequestsInFlight: 4,
		Timeout:             writeTimeout,
	})
}
