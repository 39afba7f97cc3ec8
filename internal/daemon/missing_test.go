package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/tunnel"
)

// TestMissingIsAProblemWhileItIsNew counts a loss from its beginning, and forgets
// it when it is over.
func TestMissingIsAProblemWhileItIsNew(t *testing.T) {
	var m missing
	now := time.Unix(1e9, 0)
	look := func(missed uint64, buffer, want int, substrings ...string) {
		t.Helper()
		m.look(tunnel.Overflow{Missed: missed, Buffer: buffer, Wanted: 1 << 24}, now)
		got := m.problems(now)
		if len(got) != want {
			t.Fatalf("%d datagrams missed: problems %+v, want %d", missed, got, want)
		}
		for _, s := range substrings {
			if !strings.Contains(got[0].What+" | "+got[0].Hint, s) {
				t.Errorf("problem %+v, want it to say %q", got[0], s)
			}
		}
	}
	m.begin(tunnel.Overflow{Missed: 7}) // a former worker's
	look(7, 1<<24, 0)
	now = now.Add(time.Second)
	look(10, 1<<24, 1, "dropped 3 datagrams", "16384 KiB", "processor time")
	now = now.Add(time.Second)
	look(12, 1<<18, 1, "dropped 5 datagrams", "net.core.rmem_max=16777216")
	now = now.Add(2 * missingFor)
	look(12, 1<<24, 0)
	look(13, 1<<24, 1, "dropped 1 datagrams")
	m.begin(tunnel.Overflow{}) // another socket
	look(2, 1<<24, 1, "dropped 3 datagrams")
	if m.total != 8 {
		t.Errorf("%d in all, want 8", m.total)
	}
}
