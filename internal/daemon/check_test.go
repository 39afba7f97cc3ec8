package daemon

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/audit"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// TestLookEnds: traffic that is always faster than who looks at it holds nobody
// up, and what was there at the end is looked at.
func TestLookEnds(t *testing.T) {
	const there = 3 * portion
	for _, last := range []int{0, 1, portion, 10*portion + 7} {
		ring := capture.NewRing(capture.Choice{Direction: capture.In}, 0)
		observe := func() {
			ring.Observe(&frame.Observation{Time: time.Unix(1, 0), In: 1, Frame: &frame.Frame{Data: make([]byte, 60)}, Verdict: frame.Verdict{Action: frame.Flood, Reason: frame.BroadcastAddr}})
		}
		for range there {
			observe()
		}
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		if last == 0 {
			cancel()
		}
		look(ctx, ring, func(*capture.Record) {
			if n++; n == last {
				cancel()
			}
			if n < 1000*portion {
				observe()
			}
		})
		cancel()
		if n < last+there-1 || n > last+there+portion {
			t.Errorf("it ended after %d records; with %d in the ring, and time for %d, want %d at most", n, there, last, last+there+portion)
		}
	}
}

// TestPastsReadsOnce: all stations are answered from one reading of the history.
func TestPastsReadsOnce(t *testing.T) {
	d := remembering(t)
	at := time.Date(2026, 1, 2, 10, 2, 31, 0, time.Local)
	learn := func(i int, p frame.PortID) {
		d.table.Learn(fdb.MakeKey(10, mac(i)), p, tick(), &fdb.Teacher{Wall: at.UnixNano(), Len: 60, Head: make([]byte, 60)})
	}
	learn(1, 1)
	learn(1, 2)
	past := d.pasts()
	if got := past(audit.Key{VID: 10, MAC: mac(1)}); !strings.HasPrefix(got, "moved at 10:02:31, behind port b") {
		t.Errorf("got %q, want the last event", got)
	}
	if got := past(audit.Key{VID: 20, MAC: mac(1)}); got != "" {
		t.Errorf("in another network: got %q", got)
	}
	learn(2, 1)
	if got := past(audit.Key{VID: 10, MAC: mac(2)}); got != "" {
		t.Errorf("the history was read again: got %q", got)
	}
}
