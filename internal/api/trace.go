package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/tapestry-net/tapestry/capture/trace"
)

// maxTraces is how many traces run at a time.
const maxTraces = 8

// TraceRequest asks for a probe, or with Watch for live traffic.
type TraceRequest struct {
	From   string `json:"from,omitempty"`   // the port that it starts at: PORT or HOST/PORT of this host
	To     string `json:"to,omitempty"`     // PORT, HOST/PORT or an address
	Source string `json:"source,omitempty"` // its source address; empty = the port's own
	Proto  string `json:"proto,omitempty"`  // icmp, udp, tcp; empty = icmp
	Port   int    `json:"port,omitempty"`   // destination port of udp and tcp; 0 = 33434 or 80
	TTL    int    `json:"ttl,omitempty"`    // 0 = 64
	// Inject puts the probe into the switch as if the port had received it,
	// instead of sending it from the port's namespace.
	Inject bool   `json:"inject,omitempty"`
	MAC    string `json:"mac,omitempty"` // destination of an injected probe; empty = found out
	WaitMS int    `json:"wait_ms,omitempty"`
	// Traceroute sends probes with TTL 1, 2 and so on up to TTL, until one is
	// answered by the destination.
	Traceroute bool `json:"traceroute,omitempty"`

	Watch  string `json:"watch,omitempty"`  // a tcpdump expression; with it nothing is sent
	Count  int    `json:"count,omitempty"`  // end after so many packets; 0 = never
	Kernel bool   `json:"kernel,omitempty"` // and show them on the interfaces of the host's kernel
}

// Traced is one line of a trace.
type Traced struct {
	Kind string `json:"kind"` // probe, hop, note, end
	// Hop is of a line of that kind, whose fields stand beside kind.
	*trace.Hop
	Seq   int         `json:"seq,omitempty"`   // of a hop that was watched: which packet
	Probe *TraceProbe `json:"probe,omitempty"` // what is sent
	What  string      `json:"what,omitempty"`  // of a note
	End   *TraceEnd   `json:"end,omitempty"`   // what became of it
}

// TraceProbe is what is sent.
type TraceProbe struct {
	Trace trace.ID `json:"trace"`
	Host  string   `json:"host"` // where it starts
	Port  string   `json:"port"`
	To    string   `json:"to"` // as it was asked for
	Proto string   `json:"proto"`
	Src   string   `json:"src"`
	Dst   string   `json:"dst"`
	DPort int      `json:"dport,omitempty"`
	TTL   int      `json:"ttl"`
	Sent  string   `json:"sent"` // from: the port's namespace, at: the switch's ingress
}

// TraceEnd is what became of a probe.
type TraceEnd struct {
	Answered bool   `json:"answered"` // an answer came back to the port
	Reached  bool   `json:"reached"`  // and is the destination's own
	Answer   string `json:"answer,omitempty"`
	By       string `json:"by,omitempty"`   // the address that it came from
	Host     string `json:"host,omitempty"` // the host that answered, or where the probe was lost
	RTTUS    int64  `json:"rtt_us,omitempty"`
	Lost     string `json:"lost,omitempty"` // where it died, and why
	// Causes is what the kernels of the hosts say about it.
	Causes []trace.Cause `json:"causes,omitempty"`
	Hint   string        `json:"hint,omitempty"` // the likely mend
	Moved  []trace.Moved `json:"moved,omitempty"`
}

// TraceRun is a trace that is ready to start. It hands over its lines one by one
// until it is done, ctx ends or take fails.
type TraceRun func(ctx context.Context, take func(Traced) error) error

// trace streams one JSON object a line.
func (s *Server) trace(w http.ResponseWriter, r *http.Request) {
	var q TraceRequest
	if err := decode(r.Body, &q); err != nil {
		s.fail(w, err)
		return
	}
	if !s.enter(w, s.traces, "%d traces are running already") {
		return
	}
	defer func() { <-s.traces }()
	run, err := s.backend.Trace(r.Context(), q)
	if err != nil {
		s.fail(w, err)
		return
	}
	c := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	if err := c.Flush(); err != nil {
		return
	}
	// As of an event stream: a caller that doesn't read holds up nobody.
	defer context.AfterFunc(r.Context(), func() { s.deadline(w, 0) })()
	err = run(r.Context(), func(t Traced) error {
		s.deadline(w, eventTimeout)
		return errors.Join(r.Context().Err(), Encode(w, t), c.Flush())
	})
	if err != nil && r.Context().Err() == nil {
		s.log.Debug("trace ended", "err", err)
	}
}

// Trace asks for a trace and hands over its lines until it ends or take returns
// an error.
func (c *Client) Trace(ctx context.Context, r TraceRequest, take func(Traced) error) error {
	body, err := json.Marshal(r)
	if err != nil {
		return Errorf(CodeInvalid, "write request: %v", err)
	}
	stream, err := c.call(ctx, http.MethodPost, "trace", bytes.NewReader(body))
	if err != nil {
		return c.unanswered(err)
	}
	defer stream.Close()
	for d := json.NewDecoder(stream); ; {
		var t Traced
		if err := d.Decode(&t); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return c.lost(err)
		}
		if err := take(t); err != nil {
			return err
		}
	}
}
