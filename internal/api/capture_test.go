package api_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
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
