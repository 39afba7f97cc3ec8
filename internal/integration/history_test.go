package integration_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// whats are the events of one command, one line each.
func (n *node) whats(args ...string) string {
	n.t.Helper()
	var list []api.Event
	n.json(&list, args...)
	var lines []string
	for _, e := range list {
		lines = append(lines, e.What)
	}
	return strings.Join(lines, "\n")
}

// TestHistoryOfPorts: what happens to a port is remembered, by the next worker
// and by the next switch too, and a stream can begin with it.
func TestHistoryOfPorts(t *testing.T) {
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	begin := time.Now()
	a.Run("ip", "link", "set", "eth0", "down")
	n.becomes("c1", "down", "set down")
	a.Run("ip", "link", "set", "eth0", "up")
	n.becomes("c1", "up", "")
	n.applies(trio(a, b, c))
	n.applies(strings.Replace(trio(a, b, c), "vlan: 10", "vlan: 10, mtu: 1400", 1))
	n.cli("port", "rm", "c3")
	n.onDisk("port c3 is removed", "configuration 3: ")
	die(t, n.workerPID())
	n.cli("upgrade")
	check := func() {
		t.Helper()
		if got, want := n.whats("port", "history", "c1", "--since", begin.Format(time.RFC3339Nano)), []string{
			"port c1 is down: interface eth0 is set down", "port c1 is up", "(generation 2, restart)", "(generation 3, upgrade)",
		}; !inOrder(got, want...) {
			t.Errorf("c1: got\n%s\nwant %q", got, want)
		}
		if got, want := n.whats("port", "history", "c3"), []string{"port c3 is up", "port c3: MTU 1500 → 1400", "port c3 is removed"}; !inOrder(got, want...) {
			t.Errorf("c3: got\n%s\nwant %q", got, want)
		}
	}
	check()
	var s api.Status
	if n.json(&s, "status"); s.Revision != 3 {
		t.Errorf("configuration %d, want 3", s.Revision)
	}
	n.onDisk("(generation 3, upgrade)")
	n.kill()
	n.up()
	check()

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := api.Dial(n.socket)
	defer client.Close()
	var configs []string
	for e, err := range client.EventsSince(ctx, []string{"config"}, begin) {
		if err != nil {
			t.Fatal(err)
		}
		if configs = append(configs, e.What); len(configs) == 3 {
			n.cli("port", "rm", "c2") // the stream goes on with what happens now
		}
		if len(configs) == 4 {
			break
		}
	}
	want := []string{"configuration 1: ", "configuration 2: ", "configuration 3: ", "configuration 4: "}
	if !slices.EqualFunc(configs, want, strings.HasPrefix) {
		t.Errorf("configurations: %q", configs)
	}
}

// onDisk waits until the journal tells of something in its file: a worker that is
// killed takes with it what it hasn't written yet.
func (n *node) onDisk(parts ...string) {
	n.t.Helper()
	for _, p := range parts {
		n.until("on disk: "+p, func() bool {
			text, _ := os.ReadFile(filepath.Join(n.state, "journal"))
			return strings.Contains(string(text), p)
		})
	}
}

// inOrder reports whether s has all parts, one behind the other.
func inOrder(s string, parts ...string) bool {
	for _, p := range parts {
		_, rest, ok := strings.Cut(s, p)
		if !ok {
			return false
		}
		s = rest
	}
	return true
}

// TestHistoryOfPeers: a peer that comes, goes and comes is remembered.
func TestHistoryOfPeers(t *testing.T) {
	f := newFabric(t, 2)
	config := f.file(false, 8472, 1, 2)
	one, two := f.up(1, config), f.up(2, config)
	state := func(want string) {
		one.until("h2 is "+want, func() bool { return one.peers()["h2"].State == want })
	}
	state("up")
	two.kill()
	state("down")
	two.up()
	state("up")
	one.until("all is told", func() bool {
		return inOrder(one.whats("peer", "history", "h2"), "h2 at", "is up", "is down", "is up")
	})
	if got := one.whats("peer", "history", "h2", "--limit", "1"); strings.Contains(got, "\n") || !strings.Contains(got, "peer h2") {
		t.Errorf("last event: %q", got)
	}
}
