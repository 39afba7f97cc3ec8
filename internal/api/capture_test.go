package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/api/apitest"
)

func TestCapture(t *testing.T) {
	_, c := serve(t)
	body, err := c.Capture(t.Context(), api.CaptureRequest{Ports: []string{"c1"}, Filter: "tcp or udp", Direction: "in", Drops: true,
		Snaplen: 100, Count: 1, Segment: true, JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	var got []string
	err = api.DecodeCaptured(body, func(p *api.Captured) error {
		got = append(got, p.Port+" "+p.Decision)
		return nil
	})
	if !errors.Is(err, io.EOF) || strings.Join(got, ";") != "c1 flood blue broadcast → c2" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := c.Capture(t.Context(), api.CaptureRequest{Ports: []string{"nobody"}}); api.AsError(err).Code != api.CodeNotFound {
		t.Errorf("a port that isn't there: got %v", err)
	}
}

// TestCaptureEnds: the end of the caller's context ends the capture in the switch,
// and the stream with it, whole.
func TestCaptureEnds(t *testing.T) {
	_, c := serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	body, err := c.Capture(ctx, api.CaptureRequest{JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	var got []string
	err = api.DecodeCaptured(body, func(p *api.Captured) error {
		got = append(got, p.Kind)
		cancel()
		return nil
	})
	if !errors.Is(err, io.EOF) || strings.Join(got, " ") != "packet count" {
		t.Errorf("got %q, %v; want a packet and its count", got, err)
	}
}

// TestCaptureSlots: there are eight captures at most, and one that ends makes room.
func TestCaptureSlots(t *testing.T) {
	_, c := serve(t)
	var open []io.Closer
	for range 8 {
		body, err := c.Capture(t.Context(), api.CaptureRequest{})
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, body)
	}
	if _, err := c.Capture(t.Context(), api.CaptureRequest{}); err == nil || !strings.Contains(err.Error(), "8 captures are running") {
		t.Errorf("the ninth: got %v", err)
	}
	for _, b := range open {
		b.Close()
	}
}

// TestCaptureKeys: who may speak to the switch, but is neither root nor the user
// that it runs as, gets no secrets, and the log tells of those who do.
func TestCaptureKeys(t *testing.T) {
	own := uint32(os.Geteuid())
	for _, c := range []struct {
		uid    uint32
		path   string
		status int
		told   string
	}{
		{0, "keys=true", http.StatusOK, "secrets of encrypted links are captured"},
		{own, "keys=true", http.StatusOK, "secrets of encrypted links are captured"},
		{own + 1234, "keys=true", http.StatusForbidden, ""},
		{own + 1234, "keys=1&format=json", http.StatusForbidden, ""},
		{own + 1234, "keys=false", http.StatusOK, ""},
		{own + 1234, "", http.StatusOK, ""},
	} {
		var log bytes.Buffer
		h := api.NewServer(apitest.New(), slog.New(slog.NewTextHandler(&log, nil))).HandlerFor(c.uid)
		w := do(h, http.MethodGet, "/v1/capture?count=1&"+c.path, "")
		if w.Code != c.status || (c.status != http.StatusOK) != strings.Contains(w.Body.String(), "for root only") {
			t.Errorf("user %d, %s: got status %d: %s", c.uid, c.path, w.Code, w.Body)
		}
		if !strings.Contains(log.String(), c.told) || c.told == "" && strings.Contains(log.String(), "secrets") {
			t.Errorf("user %d, %s: got the log %s", c.uid, c.path, &log)
		}
	}
}

func TestCaptureParameters(t *testing.T) {
	sw, _ := serve(t)
	for _, q := range []string{"drops=perhaps", "snaplen=-1", "snaplen=x", "count=-1", "format=xml", "colour=red", "segment=2"} {
		w := httptest.NewRecorder()
		handler(sw).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/capture?"+q, nil))
		if w.Code != http.StatusBadRequest {
			t.Errorf("%s: got status %d: %s", q, w.Code, w.Body)
		}
	}
}
