package api_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
)

func TestTrace(t *testing.T) {
	sw, c := serve(t)
	r := api.TraceRequest{From: "c1", To: "h130/c2", Proto: "tcp", Port: 443, TTL: 3, Inject: true, MAC: "02:00:00:00:00:02", WaitMS: 100, Traceroute: true}
	var kinds []string
	err := c.Trace(t.Context(), r, func(l api.Traced) error {
		kinds = append(kinds, l.Kind)
		switch {
		case l.Kind == "hop" && (l.Hop == nil || l.Hop.Port != "c1" || l.Hop.TTLIn != 64):
			t.Errorf("hop %+v", l.Hop)
		case l.Kind == "end" && (l.End == nil || !l.End.Reached || l.Hop != nil):
			t.Errorf("end %+v, hop %+v", l.End, l.Hop)
		}
		return nil
	})
	if err != nil || strings.Join(kinds, " ") != "probe note hop end" {
		t.Errorf("got %v, %v", kinds, err)
	}
	if asked := sw.Asked(); asked[len(asked)-1] != any(r) {
		t.Errorf("the switch was asked %+v, want %+v", asked[len(asked)-1], r)
	}
	if err := c.Trace(t.Context(), api.TraceRequest{From: "c9"}, nil); api.AsError(err).Code != api.CodeNotFound {
		t.Errorf("a port that isn't there: got %v", err)
	}
	enough := errors.New("enough")
	if err := c.Trace(t.Context(), r, func(api.Traced) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("a caller that has enough: got %v", err)
	}
}

func TestTraceRefusesNonsense(t *testing.T) {
	sw, _ := serve(t)
	for _, body := range []string{"", "{", `{"from":"c1"} {}`, `{"colour":"red"}`, `{"ttl":"many"}`} {
		w := httptest.NewRecorder()
		handler(sw).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/trace", strings.NewReader(body)))
		if w.Code != http.StatusBadRequest {
			t.Errorf("%s: got status %d: %s", body, w.Code, w.Body)
		}
	}
}
