package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"
)

// maxCaptures is how many captures run at a time; each has a ring of 8 MiB.
const maxCaptures = 8

// CaptureRequest chooses packets. It travels as the parameters of a URL.
type CaptureRequest struct {
	Ports     []string // PORT, peer/NAME, tunnel/unknown, dev/INTERFACE, or any of them behind HOST/; none = all of the switch
	Filter    string   // a tcpdump expression
	Direction string   // in, out, both; empty = both
	Drops     bool     // only what was dropped or refused
	Snaplen   int      // octets kept of each packet; 0 = all
	Count     uint64   // end after so many packets; 0 = never
	Segment   bool     // GSO frames as the segments that they stand for
	JSON      bool     // one Captured a line instead of a pcapng
	Keys      bool     // with the secrets of encrypted links, for root only
}

// Captured is one line of a capture as JSON.
type Captured struct {
	Kind      string    `json:"kind"` // packet, or count: the port's counters since the start
	Time      time.Time `json:"time"`
	Host      string    `json:"host"`
	Port      string    `json:"port"`
	Direction string    `json:"direction,omitempty"` // in, out: as seen from the switch
	Length    int       `json:"length,omitempty"`    // octets of the frame
	Network   string    `json:"network,omitempty"`
	VLAN      int       `json:"vlan,omitempty"`
	Action    string    `json:"action,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Refused   string    `json:"refused,omitempty"` // why this copy did not leave
	Decision  string    `json:"decision,omitempty"`
	Note      string    `json:"note,omitempty"`
	Data      string    `json:"data,omitempty"`  // the octets kept, hexadecimal, as `explain` takes them
	Frame     string    `json:"frame,omitempty"` // one line; the client adds it
	Delivered uint64    `json:"delivered,omitempty"`
	Lost      uint64    `json:"lost,omitempty"` // of a packet: just before it; of a count: in all
}

// CaptureRun is a capture that is ready to start. It writes to w, and calls
// flush when what it has written should travel, until ctx ends, the count is
// reached or w fails.
type CaptureRun func(ctx context.Context, w io.Writer, flush func() error) error

func (r CaptureRequest) query() url.Values {
	q := url.Values{}
	if len(r.Ports) > 0 {
		q["port"] = r.Ports
	}
	set := func(name, v string, given bool) {
		if given {
			q.Set(name, v)
		}
	}
	set("filter", r.Filter, r.Filter != "")
	set("direction", r.Direction, r.Direction != "")
	set("drops", "true", r.Drops)
	set("segment", "true", r.Segment)
	set("keys", "true", r.Keys)
	set("snaplen", strconv.Itoa(r.Snaplen), r.Snaplen != 0)
	set("count", strconv.FormatUint(r.Count, 10), r.Count != 0)
	set("format", "json", r.JSON)
	return q
}

func captureRequest(r *http.Request) (CaptureRequest, error) {
	q, err := query(r, "port", "filter", "direction", "drops", "segment", "snaplen", "count", "format", "keys")
	if err != nil {
		return CaptureRequest{}, err
	}
	c := CaptureRequest{Ports: q["port"], Filter: q.Get("filter"), Direction: q.Get("direction")}
	for name, to := range map[string]*bool{"drops": &c.Drops, "segment": &c.Segment, "keys": &c.Keys} {
		if v := q.Get(name); v != "" {
			if *to, err = strconv.ParseBool(v); err != nil {
				return c, Errorf(CodeInvalid, "%s %q: want true or false", name, clip(v))
			}
		}
	}
	if v := q.Get("snaplen"); v != "" {
		if c.Snaplen, err = strconv.Atoi(v); err != nil || c.Snaplen < 0 {
			return c, Errorf(CodeInvalid, "snaplen %q: want a number of octets", clip(v))
		}
	}
	if v := q.Get("count"); v != "" {
		if c.Count, err = strconv.ParseUint(v, 10, 64); err != nil {
			return c, Errorf(CodeInvalid, "count %q: want a number of packets", clip(v))
		}
	}
	switch v := q.Get("format"); v {
	case "", "pcapng":
	case "json":
		c.JSON = true
	default:
		return c, Errorf(CodeInvalid, "format %q: want pcapng or json", clip(v))
	}
	return c, nil
}

// capture streams packets until the caller leaves. A caller that is slow loses
// packets and is told how many; it may be as slow as it likes, but its number
// is bounded.
func (s *Server) capture(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	ctx, heard := callerEnds(r, c)
	defer heard()
	q, err := captureRequest(r)
	if err != nil {
		s.fail(w, err)
		return
	}
	if q.Keys {
		p, ok := r.Context().Value(peerKey{}).(peer)
		if !ok || p.uid != 0 && int(p.uid) != os.Geteuid() {
			s.fail(w, Errorf(CodeNotPermitted, "the secrets of encrypted links are for root only"))
			return
		}
		s.log.Warn("the secrets of encrypted links are captured", "peer", p)
	}
	if !s.enter(w, s.captures, "%d captures are running already") {
		return
	}
	defer func() { <-s.captures }()
	run, err := s.backend.Capture(q)
	if err != nil {
		s.fail(w, err)
		return
	}
	// A writer without deadlines is one of a test. When the server closes, a
	// caller that doesn't read must not hold up the next worker.
	_ = c.SetWriteDeadline(time.Time{})
	defer context.AfterFunc(r.Context(), func() { _ = c.SetWriteDeadline(time.Now()) })()
	w.Header().Set("Content-Type", "application/x-pcapng")
	if q.JSON {
		w.Header().Set("Content-Type", "application/x-ndjson")
	}
	w.WriteHeader(http.StatusOK)
	_ = c.Flush() // where it fails, what run writes does too
	if err := run(ctx, w, c.Flush); err != nil && ctx.Err() == nil {
		s.log.Debug("capture ended", "err", err)
	}
}

// callerEnds returns a context that ends with r, or before it when the caller
// ends the body of the request, if it has sent one. heard must be called.
func callerEnds(r *http.Request, c *http.ResponseController) (ctx context.Context, heard func()) {
	ctx, cancel := context.WithCancel(r.Context())
	if r.ContentLength >= 0 || c.EnableFullDuplex() != nil {
		return ctx, cancel
	}
	_ = c.SetReadDeadline(time.Time{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
	}()
	return ctx, func() {
		cancel()
		_ = c.SetReadDeadline(time.Now()) // the server must find nobody reading
		<-done
	}
}

// captureGrace is how long a capture that is to end may go on delivering.
const captureGrace = time.Second

// Capture asks for packets. The stream is a pcapng, or with r.JSON one Captured
// a line; it ends with io.EOF when the count is reached, and with another error
// when the worker was replaced. When ctx ends the switch delivers what it has,
// and the last counters, before io.EOF; it has a second for that.
func (c *Client) Capture(ctx context.Context, r CaptureRequest) (io.ReadCloser, error) {
	live, cut := context.WithCancel(context.WithoutCancel(ctx))
	until, end := io.Pipe()
	stop := context.AfterFunc(ctx, func() {
		_ = end.Close()
		time.AfterFunc(captureGrace, cut)
	})
	body, err := c.call(live, http.MethodGet, "capture?"+r.query().Encode(), until)
	if err != nil {
		stop()
		cut()
		return nil, err
	}
	return &capturing{body, func() { stop(); _ = end.Close(); cut() }}, nil
}

// capturing is the stream of a capture.
type capturing struct {
	io.ReadCloser
	end func()
}

// Close ends the capture at once.
func (c *capturing) Close() error {
	c.end()
	return c.ReadCloser.Close()
}

// DecodeCaptured reads the lines of a JSON capture until an error or until take
// returns one.
func DecodeCaptured(r io.Reader, take func(*Captured) error) error {
	for d := json.NewDecoder(r); ; {
		var p Captured
		if err := d.Decode(&p); err != nil {
			return err
		}
		if err := take(&p); err != nil {
			return err
		}
	}
}

// Broken reports whether err, of reading a stream, means that the worker ended
// while it answered.
func (c *Client) Broken(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}
