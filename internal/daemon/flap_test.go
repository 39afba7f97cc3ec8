package daemon

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// remembering is a daemon with a table and three ports, of which c has the
// address that a has too, and no frames.
func remembering(t *testing.T) *Daemon {
	t.Helper()
	table, err := fdb.Open(make([]byte, fdb.Size(1000)), 1000)
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{
		table: table, ports: map[string]*port{}, eff: parse(t, three), hub: newHub(), log: slog.New(slog.DiscardHandler),
		st: state{VLANs: map[string]frame.VID{"blue": 10, "red": 20}, Peers: map[string]frame.PortID{"h": 9}},
	}
	d.eff = d.eff.Resolved("here", d.st.VLANs)
	for i, name := range []string{"a", "b", "c"} {
		m := frame.MACFromUint64(0x02_0000_0000_a0 + uint64(i&1))
		d.ports[name] = &port{name: name, id: frame.PortID(i + 1), reply: keeper.PortReply{MAC: m}}
	}
	d.names.Store(&names{
		ports:    map[frame.PortID]string{1: "a", 2: "b", 3: "c", 9: "peer/h"},
		peers:    map[frame.PortID]string{9: "h"},
		networks: map[frame.VID]string{10: "blue", 20: "red"},
	})
	return d
}

// flap has a station move n times between two ports, the last time just now.
func (d *Daemon) flap(m frame.MAC, n int, ports ...frame.PortID) {
	now := time.Now().UnixNano()
	for i := range n + 1 {
		d.table.Learn(fdb.MakeKey(10, m), ports[i%len(ports)], tick(), &fdb.Teacher{Wall: now - int64(n-i), Len: 60, Head: make([]byte, 60)})
	}
}

func mac(i int) frame.MAC { return frame.MACFromUint64(0x02_0000_0000_00 + uint64(i)) }

// TestFlapCause names what makes stations flap, once for all that flap alike.
func TestFlapCause(t *testing.T) {
	for _, c := range []struct {
		name  string
		flap  func(d *Daemon)
		cause string
		what  string
		rows  int
	}{
		{"none", func(d *Daemon) { d.flap(mac(1), 3, 1, 2) }, "", "", 0},
		{"duplicate", func(d *Daemon) { d.flap(mac(1), 9, 1, 2) }, "duplicate address on two machines", "flaps between a and b in network blue, 9 moves a minute", 1},
		{"two interfaces", func(d *Daemon) { d.flap(mac(0xa0), 9, 1, 3) }, "interfaces of the ports a and c both have it", "flaps", 1},
		{"an interface", func(d *Daemon) { d.flap(mac(0xa1), 9, 1, 2) }, "interface of port b, which another port hears too", "flaps", 1},
		{"VRRP", func(d *Daemon) { d.flap(frame.MustParseMAC("00:00:5e:00:01:07"), 9, 1, 2) }, "VRRP", "flaps", 1},
		{"two hosts", func(d *Daemon) { d.flap(mac(1), 9, 1, 9) }, "speaks on two hosts", "between a and peer/h", 1},
		{"loop", func(d *Daemon) {
			for i := range 4 {
				d.flap(mac(i), 6+i, 1, 2)
			}
		}, "a loop: 4 stations", "4 stations flap between a and b in network blue, 02:00:00:00:00:03 most: 9 moves a minute", 1},
		{"apart", func(d *Daemon) { d.flap(mac(1), 9, 1, 2); d.flap(mac(2), 9, 1, 3) }, "duplicate", "flaps", 2},
	} {
		d := remembering(t)
		c.flap(d)
		flaps := d.flaps(time.Now())
		got := flapProblems(flaps)
		if len(got) != c.rows {
			t.Errorf("%s: %d problems, want %d: %+v", c.name, len(got), c.rows, got)
			continue
		}
		for _, p := range got {
			if !strings.Contains(p.What, c.cause) || !strings.Contains(p.What, c.what) || p.Hint == "" {
				t.Errorf("%s: problem %+v, want %q and %q", c.name, p, c.what, c.cause)
			}
		}
	}
	many := make([]api.Flap, 20)
	for i := range many {
		many[i].Network = string(rune('a' + i))
	}
	if got := flapProblems(many); len(got) != maxFlapProblems+1 || !strings.Contains(got[maxFlapProblems].What, "12 more") {
		t.Errorf("of 20 sets of ports: %+v", got)
	}
}

// TestHistoryFilters asks for events by each property.
func TestHistoryFilters(t *testing.T) {
	d := remembering(t)
	d.flap(mac(1), 6, 1, 2)
	d.table.Learn(fdb.MakeKey(20, mac(2)), 3, tick(), nil)
	for _, c := range []struct {
		r    api.HistoryRequest
		want int
	}{
		{api.HistoryRequest{}, 8},
		{api.HistoryRequest{Limit: 2}, 2},
		{api.HistoryRequest{MAC: mac(1)}, 7},
		{api.HistoryRequest{Network: "red"}, 1},
		{api.HistoryRequest{Port: "a"}, 7},
		{api.HistoryRequest{Port: "c", Network: "blue"}, 0},
		{api.HistoryRequest{Since: time.Now().Add(time.Hour)}, 0},
	} {
		got, err := d.History(c.r)
		if err != nil || len(got) != c.want {
			t.Errorf("%+v: %d events, %v; want %d", c.r, len(got), err, c.want)
		}
	}
	all, _ := d.History(api.HistoryRequest{MAC: mac(1)})
	if last := all[len(all)-1]; last.Rate != 6 || !last.Flapping || all[1].Flapping || last.Frame == "" {
		t.Errorf("last move: %+v", last)
	}
	for _, r := range []api.HistoryRequest{{Network: "green"}, {Port: "z"}} {
		if _, err := d.History(r); api.AsError(err).Code != api.CodeNotFound {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// TestWhyAndAt ask about a station in the present and the past.
func TestWhyAndAt(t *testing.T) {
	d := remembering(t)
	begin := time.Now()
	d.flap(mac(1), 6, 1, 2)
	if err := d.table.AddStatic(fdb.MakeKey(20, mac(1)), 9); err != nil {
		t.Fatal(err)
	}
	w, err := d.Why(mac(1).String())
	if err != nil || len(w.Entries) != 2 || len(w.History) != 8 {
		t.Fatalf("why: %+v, %v", w, err)
	}
	if e := w.Entries[0]; e.Rate != 6 || e.Flap == nil || e.TaughtBy == nil || e.TaughtBy.Port != "a" || e.AgeingLeft != 300 {
		t.Errorf("dynamic: %+v", e)
	}
	if e := w.Entries[1]; e.Peer != "h" || e.Flap != nil || e.TaughtBy != nil || e.AgeingLeft != 0 {
		t.Errorf("static: %+v", e)
	}
	if _, err := d.Why(mac(7).String()); api.AsError(err).Code != api.CodeNotFound || !strings.Contains(err.Error(), "reaches back") {
		t.Errorf("of an unknown station: %v", err)
	}
	rows := func(at time.Time) (out []api.PastEntry) {
		_, seq, err := d.At(api.PastRequest{Time: at})
		if err != nil {
			t.Fatal(err)
		}
		for e := range seq {
			out = append(out, e)
		}
		return out
	}
	if got := rows(begin.Add(-time.Second)); len(got) != 0 {
		t.Errorf("before the first frame: %+v", got)
	}
	if got := rows(time.Now()); len(got) != 2 || !got[0].Known || got[0].Port != "a" || got[0].Moves != 6 || got[1].Kind != "static" || got[1].Peer != "h" {
		t.Errorf("now: %+v", got)
	}
	for r, code := range map[api.PastRequest]int{{Time: time.Now().Add(time.Hour)}: 2, {Network: "green"}: 5} {
		if _, _, err := d.At(r); api.AsError(err).Code != code {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// TestRates compares the rates with a count over the moves of each minute, which
// is slow and plain.
func TestRates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []fdb.Record
		at := map[frame.MAC]frame.PortID{}
		wall := int64(1e18)
		for range rapid.IntRange(1, 60).Draw(t, "moves") {
			wall += int64(rapid.IntRange(0, 30).Draw(t, "s")) * int64(time.Second)
			m, p := mac(rapid.IntRange(1, 2).Draw(t, "mac")), frame.PortID(rapid.IntRange(1, 4).Draw(t, "port"))
			if at[m] == p {
				continue
			}
			records = append(records, fdb.Record{Event: fdb.EventMoved, VID: 10, MAC: m, Wall: wall, Port: p, Old: at[m]})
			at[m] = p
		}
		for i, got := range ratesOf(records) {
			var want moveRate
			been := map[frame.PortID]bool{}
			for _, e := range records[:i+1] {
				if e.MAC != records[i].MAC || e.Wall < records[i].Wall-int64(fdb.FlapWindow) {
					continue
				}
				want.moves++
				if been[e.Old] = true; been[e.Port] {
					want.returns++
				}
				been[e.Port] = true
			}
			if got != want {
				t.Fatalf("move %d: got %+v, want %+v", i, got, want)
			}
		}
	})
}
