package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"
)

// dialTimeout bounds connecting to a local socket, which is slow only when the
// daemon does not accept.
const dialTimeout = 5 * time.Second

// askTimeout and orderTimeout are how long a daemon that has the request may
// take to begin its answer: what is asked lies in memory, an order may open
// thousands of interfaces.
const (
	askTimeout   = 5 * time.Second
	orderTimeout = 5 * time.Minute
)

// askTries is how often a question is asked of a switch that hangs up.
const askTries = 5

// hungUp is the *Error of a call whose connection ended without an answer.
type hungUp struct{ error }

// Unwrap returns the *Error.
func (h hungUp) Unwrap() error { return h.error }

// unanswered is err, or of a connection that ended without an answer the error
// of an order, which may have been carried out.
func (c *Client) unanswered(err error) error {
	if _, ok := errors.AsType[hungUp](err); !ok {
		return err
	}
	return Errorf(CodeUnreachable, "the switch on %s ended before it answered: what was asked for may be done or not", c.socket).
		WithHint("`tapestry status` shows whether it is back; give the command again: what is done already changes nothing, or is refused as a conflict")
}

// Client asks one running switch. Its methods are those of Backend; their
// errors are *Error.
type Client struct {
	socket string
	asks   http.Client // GET
	orders http.Client // POST
}

// Dial returns a client of the switch that listens on socket. It connects with
// the first call, so that a daemon that is down is that call's error.
func Dial(socket string) *Client {
	return &Client{
		socket: socket,
		asks:   http.Client{Transport: transport(socket, askTimeout)},
		orders: http.Client{Transport: transport(socket, orderTimeout)},
	}
}

func transport(socket string, wait time.Duration) *http.Transport {
	var d net.Dialer
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return d.DialContext(ctx, "unix", socket)
		},
		DisableCompression:    true,
		IdleConnTimeout:       time.Minute,
		ResponseHeaderTimeout: wait,
	}
}

// Close lets go of idle connections.
func (c *Client) Close() {
	c.asks.CloseIdleConnections()
	c.orders.CloseIdleConnections()
}

// Status asks for one screen of health.
func (c *Client) Status(ctx context.Context) (Status, error) { return ask[Status](ctx, c, "status") }

// Stats asks for the counters.
func (c *Client) Stats(ctx context.Context) (Stats, error) { return ask[Stats](ctx, c, "stats") }

// Networks asks for all networks.
func (c *Client) Networks(ctx context.Context) ([]Network, error) {
	return ask[[]Network](ctx, c, "networks")
}

// Ports asks for all ports.
func (c *Client) Ports(ctx context.Context) ([]Port, error) { return ask[[]Port](ctx, c, "ports") }

// Peers asks for all tunnel peers.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) { return ask[[]Peer](ctx, c, "peers") }

// FDB asks for all entries.
func (c *Client) FDB(ctx context.Context) ([]Entry, error) { return ask[[]Entry](ctx, c, "fdb") }

// Apply makes the running switch match a file.
func (c *Client) Apply(ctx context.Context, r ApplyRequest) (ApplyReply, error) {
	return tell[ApplyReply](ctx, c, "apply", r)
}

// Item changes one network, port or static FDB entry.
func (c *Client) Item(ctx context.Context, r ItemRequest) (ApplyReply, error) {
	return tell[ApplyReply](ctx, c, "item", r)
}

// Attach gives a namespace a port.
func (c *Client) Attach(ctx context.Context, r AttachRequest) (Port, error) {
	return tell[Port](ctx, c, "attach", r)
}

// Detach takes a port away from a namespace.
func (c *Client) Detach(ctx context.Context, r DetachRequest) error {
	_, err := tell[struct{}](ctx, c, "detach", r)
	return err
}

// Flush removes dynamic FDB entries.
func (c *Client) Flush(ctx context.Context, r FlushRequest) (FlushReply, error) {
	return tell[FlushReply](ctx, c, "fdb/flush", r)
}

// Explain asks what would happen to a frame.
func (c *Client) Explain(ctx context.Context, r ExplainRequest) (ExplainReply, error) {
	return tell[ExplainReply](ctx, c, "explain", r)
}

// Upgrade swaps the worker for the binary on disk. The worker that answers the
// order cannot know its successor, so the client asks that one who it is.
func (c *Client) Upgrade(ctx context.Context) (UpgradeReply, error) {
	r, err := tell[UpgradeReply](ctx, c, "upgrade", struct{}{})
	if err != nil || r.NewPID != 0 {
		return r, err
	}
	for {
		c.Close() // what is open belongs to the old worker
		stats, err := c.Stats(ctx)
		if err != nil {
			return r, err
		}
		if stats.PID == r.OldPID {
			continue // it is on its way out, and still answers
		}
		status, err := c.Status(ctx)
		if err != nil {
			return r, err
		}
		r.NewPID, r.Generation, r.Version = stats.PID, stats.Generation, status.Version
		return r, nil
	}
}

// Events yields what happens, as it happens, until ctx or the loop ends. When
// the worker is replaced it goes on with the next one, after an event of kind
// lost. An error, if any, comes last; the end of ctx is none.
func (c *Client) Events(ctx context.Context, kinds []string) iter.Seq2[Event, error] {
	return c.EventsSince(ctx, kinds, time.Time{})
}

// EventsSince is Events, preceded by what is remembered since then unless since
// is zero.
func (c *Client) EventsSince(ctx context.Context, kinds []string, since time.Time) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for first := true; ; first = false {
			q := url.Values{"kind": kinds}
			if !since.IsZero() {
				q.Set("since", since.Format(time.RFC3339Nano))
			}
			body, err := c.call(ctx, http.MethodGet, "events?"+q.Encode(), nil)
			if err != nil {
				if ctx.Err() == nil {
					yield(Event{}, err)
				}
				return
			}
			if !first && !yield(Event{Time: time.Now(), Kind: "lost", What: "the worker was replaced: frames and moves in between are lost"}, nil) {
				body.Close()
				return
			}
			since = time.Now()
			err = decodeEvents(body, func(e Event, err error) bool {
				since = e.Time.Add(time.Nanosecond) // the next worker remembers what comes after it
				return yield(e, err)
			})
			body.Close()
			if err == nil || ctx.Err() != nil {
				return
			}
			if e := c.lost(err); e.Code != CodeUnreachable {
				yield(Event{}, e)
				return
			}
		}
	}
}

// decodeEvents yields the events of one stream. It returns nil when the loop
// that reads them has ended.
func decodeEvents(r io.Reader, yield func(Event, error) bool) error {
	for d := json.NewDecoder(r); ; {
		var e Event
		if err := d.Decode(&e); err != nil {
			return err
		}
		if !yield(e, nil) {
			return nil
		}
	}
}

func ask[A any](ctx context.Context, c *Client, path string) (A, error) {
	a, err := answer[A](ctx, c, http.MethodGet, path, nil)
	// A worker that is being replaced may hang up on a connection that it has
	// just accepted. The next one answers, and asking again does no harm.
	for try := 1; try < askTries; try++ {
		if _, ok := errors.AsType[hungUp](err); !ok {
			break
		}
		c.Close()
		a, err = answer[A](ctx, c, http.MethodGet, path, nil)
	}
	if h, ok := errors.AsType[hungUp](err); ok {
		err = h.error
	}
	return a, err
}

// retryFor bounds how long a request that was put off is sent again, and
// retryEvery how often.
const (
	retryFor   = 15 * time.Second
	retryEvery = 50 * time.Millisecond
)

func tell[A any](ctx context.Context, c *Client, path string, q any) (A, error) {
	body, err := json.Marshal(q)
	if err != nil {
		var a A
		return a, Errorf(CodeInvalid, "write request: %v", err)
	}
	for end := time.Now().Add(retryFor); ; {
		a, err := answer[A](ctx, c, http.MethodPost, path, bytes.NewReader(body))
		if e, ok := errors.AsType[*Error](err); !ok || !e.Retry || time.Now().After(end) {
			return a, c.unanswered(err)
		}
		select {
		case <-ctx.Done():
			return a, err
		case <-time.After(retryEvery):
		}
	}
}

func answer[A any](ctx context.Context, c *Client, method, path string, q io.Reader) (A, error) {
	var a A
	body, err := c.call(ctx, method, path, q)
	if err != nil {
		return a, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&a); err != nil {
		return a, c.lost(err)
	}
	return a, nil
}

// call sends one request and returns the body of a good reply.
func (c *Client) call(ctx context.Context, method, path string, q io.Reader) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://tapestry/v1/"+path, q)
	if err != nil {
		return nil, Errorf(CodeInvalid, "write request: %v", err)
	}
	by := &c.asks
	switch {
	case method != http.MethodGet:
		r.Header.Set("Content-Type", "application/json")
		by = &c.orders
	case q != nil:
		// A body that tells by its end: the transport must wait neither for its
		// first octets, nor at the end of the reply for its last.
		r.TransferEncoding, r.Close = []string{"chunked"}, true
	}
	resp, err := by.Do(r)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return nil, hungUp{c.unreachable(err)}
	}
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	e := &Error{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(e); err != nil || e.Msg == "" {
		return nil, Errorf(CodeFailed, "%s answers %s, which is no answer of a tapestry", c.socket, resp.Status)
	}
	return nil, e
}

// unreachable says why the daemon could not be asked and what to do about it.
func (c *Client) unreachable(err error) *Error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	cause := err
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		cause = errno
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Errorf(CodeFailed, "interrupted")
	case errors.Is(err, fs.ErrPermission):
		return Errorf(CodeNotPermitted, "open control socket %s: %v", c.socket, cause).WithHint("%s", c.groupHint())
	case errors.Is(err, syscall.EINVAL):
		return Errorf(CodeInvalid, "open control socket %s: a socket's path has at most 107 octets", c.socket).
			WithHint("choose a shorter one with --socket or $TAPESTRY_SOCKET")
	}
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
		return Errorf(CodeUnreachable, "the switch on %s doesn't answer", c.socket).
			WithHint("it is stuck or very busy: see its log, and who listens with `ss -xlp`")
	}
	return Errorf(CodeUnreachable, "the switch can't be reached on %s: %v", c.socket, cause).
		WithHint("start it with `tapestry up -c FILE`, or name its socket with --socket or $TAPESTRY_SOCKET")
}

// lost says that the connection ended within a reply.
func (c *Client) lost(err error) *Error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return Errorf(CodeUnreachable, "the switch on %s ended while it answered", c.socket).
			WithHint("`tapestry status` shows whether it is back")
	}
	if errors.Is(err, context.Canceled) {
		return Errorf(CodeFailed, "interrupted")
	}
	return Errorf(CodeFailed, "read reply of %s: %v", c.socket, err).
		WithHint("the switch and this program may be of different versions: see `tapestry version`")
}

// groupHint names the group that may use the socket, if the file can be seen.
func (c *Client) groupHint() string {
	const root = "run the command as root"
	fi, err := os.Stat(c.socket)
	if err != nil {
		return root
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Gid == 0 {
		return root
	}
	name := strconv.FormatUint(uint64(st.Gid), 10)
	if g, err := user.LookupGroupId(name); err == nil {
		name = g.Name
	}
	return fmt.Sprintf("%s, or join the group of the socket and log in again: sudo usermod -aG %s $USER", root, name)
}
