package main

import (
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
)

// TestPathMTU says of a path that nobody has probed that nobody has.
func TestPathMTU(t *testing.T) {
	if got := pathMTU(api.Peer{State: "up", MTU: 1450}); got != "1450" {
		t.Errorf("a peer that answers: %q, want 1450", got)
	}
	if got := pathMTU(api.Peer{State: "up", Passive: true, MTU: 1450}); !strings.HasPrefix(got, "1450 (") || !strings.Contains(got, "answers no probe") {
		t.Errorf("a passive peer: %q, want the number and that it isn't probed", got)
	}
}
