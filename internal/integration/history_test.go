package integration_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TestHistoryOfFlap has one address speak behind two ports in turn: why,
// history, status and metrics tell of it, and the table of before is known
// still, also to the next worker.
func TestHistoryOfFlap(t *testing.T) {
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := start(t, trio(a, b, c))
	inject(t, a, hello(9))
	mac := station(9).MAC.String()
	at := func(when time.Time) string {
		var p api.Past
		n.json(&p, "fdb", "at", when.Format(time.RFC3339Nano))
		for _, e := range p.Entries {
			if e.MAC.String() == mac {
				if !e.Known {
					t.Errorf("at %v: %+v isn't known", when, e)
				}
				return e.Port
			}
		}
		return ""
	}
	var w api.Why
	heard := func() bool {
		out, _, code := n.try("fdb", "why", mac)
		return code == 0 && strings.Contains(out, "behind port c1")
	}
	n.until("the station is learned", heard)
	before := time.Now()

	moves := 0
	for range 4 {
		inject(t, b, hello(9))
		inject(t, a, hello(9))
		moves += 2
		n.until("the station has moved twice", func() bool {
			n.json(&w, "fdb", "why", mac)
			return len(w.Entries) == 1 && w.Entries[0].Moves == moves
		})
	}
	e := w.Entries[0]
	if e.Flap == nil || e.Rate != moves || e.TaughtBy == nil || e.TaughtBy.Port != "c1" || e.AgeingLeft < 200 {
		t.Fatalf("why: %+v", e)
	}
	if got := fmt.Sprint(e.Flap.Ports); got != "[c1 c2]" || e.Flap.Cause == "" || e.Flap.Hint == "" {
		t.Errorf("flap: %+v", e.Flap)
	}
	if out := n.cli("fdb", "history", "--mac", mac, "--limit", "1"); !strings.Contains(out, "c2 → c1") || !strings.Contains(out, "8 moves in a minute: it flaps") {
		t.Errorf("history: %s", out)
	}
	if out := n.cli("status"); !strings.Contains(out, "station "+mac+" flaps between c1 and c2 in network blue") {
		t.Errorf("status: %s", out)
	}
	m := scrape(t, n.socket)
	if m["tapestry_fdb_flapping_stations"] != 1 || m[`tapestry_port_fdb_moves_total{port="c2"}`] != 4 {
		t.Errorf("metrics: %v stations flap, %v moved to c2", m["tapestry_fdb_flapping_stations"], m[`tapestry_port_fdb_moves_total{port="c2"}`])
	}

	if got := at(before); got != "c1" {
		t.Errorf("before the moves it was at %q, want c1", got)
	}
	if got := at(e.Flap.Since); got != "c2" {
		t.Errorf("after the first move it was at %q, want c2", got)
	}
	if got := at(before.Add(-time.Minute)); got != "" {
		t.Errorf("before its first frame it was at %q", got)
	}
	die(t, n.workerPID())
	if got := at(before); got != "c1" {
		t.Errorf("the next worker says %q, want c1", got)
	}
	n.cli("fdb", "flush", "--mac", mac)
	out, errs, code := n.try("fdb", "why", mac)
	if code != 5 || !strings.Contains(out, "flushed") || !strings.Contains(errs, "it was flushed at") {
		t.Errorf("after a flush: exit %d\n%s%s", code, out, errs)
	}
}
