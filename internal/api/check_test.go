package api_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/api/apitest"
)

// looking is a switch whose checks go on until their callers leave.
type looking struct {
	*apitest.Switch
	began chan struct{}
}

func (l looking) Check(ctx context.Context, _ api.CheckRequest) (api.CheckReply, error) {
	l.began <- struct{}{}
	<-ctx.Done()
	return api.CheckReply{}, ctx.Err()
}

// TestCheckSlots: there are four checks at most, and one that ends makes room.
func TestCheckSlots(t *testing.T) {
	l := looking{apitest.New(), make(chan struct{})}
	h := api.NewServer(l, slog.New(slog.DiscardHandler)).Handler()
	ctx, cancel := context.WithCancel(t.Context())
	ask := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/check", strings.NewReader(`{"watch_ms":1}`)))
		return w
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { ask() })
		<-l.began
	}
	if w := ask(); !strings.Contains(w.Body.String(), "4 checks are running already") {
		t.Errorf("the fifth: got status %d: %s", w.Code, w.Body)
	}
	cancel()
	all.Wait()
	all.Go(func() { <-l.began })
	ctx, cancel = context.WithCancel(t.Context())
	go func() { all.Wait(); cancel() }()
	if w := ask(); strings.Contains(w.Body.String(), "running") {
		t.Errorf("the four have ended: got %s", w.Body)
	}
}
