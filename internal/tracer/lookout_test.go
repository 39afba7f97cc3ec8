package tracer_test

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/tracer"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// TestMoved: the counters that the trace's own packets have moved come first, the
// others are told apart, and the order is one.
func TestMoved(t *testing.T) {
	d := newDesk()
	tr := tracer.New(d, nil, slog.New(slog.DiscardHandler))
	defer tr.Close()
	d.drops = map[frame.PortID]tracer.Counts{}
	before := map[frame.PortID]tracer.Counts{2: {frame.Storm: 4}}
	for id := range frame.PortID(7) {
		d.drops[id+1] = tracer.Counts{frame.Storm: 5, frame.KnownUnicast: 9}
	}
	d.drops[3] = tracer.Counts{frame.Storm: 2, frame.EgressDown: 1}
	events := []trace.Event{
		{At: trace.AtSwitch, Port: "c2", Action: "drop", Reason: "storm"},
		{At: trace.AtSwitch, Port: "c4", Action: "flood", Reason: "unknown_unicast", Exits: []trace.Exit{{Port: "c1"}, {Port: "c3", Refused: "egress_down"}}},
	}
	want := []trace.Moved{{Port: "c2", Reason: "storm", Frames: 1}, {Port: "c3", Reason: "egress_down", Frames: 1}}
	for _, port := range []string{"c1", "c3", "c4", "c5", "c6", "c7"} {
		m := trace.Moved{Port: port, Reason: "storm", Frames: 5, Also: true}
		if port == "c3" {
			m.Frames = 2
		}
		want = append(want, m)
	}
	for i := range want {
		want[i].Host = "h1"
	}
	if diff := cmp.Diff(want, tr.Moved(before, events)); diff != "" {
		t.Errorf("moved (-want +got):\n%s", diff)
	}
	for id := range frame.PortID(70) {
		d.drops[id+1] = tracer.Counts{frame.Storm: 1}
	}
	if n := len(tr.Moved(nil, events)); n != 1+16 {
		t.Errorf("%d counters are told, want the trace's own and 16 others", n)
	}
}

// TestSwitchEvent: only a decision that hit an entry names one, and only what a
// link carried is sealed.
func TestSwitchEvent(t *testing.T) {
	d := newDesk()
	d.here.Place = func(id frame.PortID) (string, bool) { return "x", id > 4 }
	tr := tracer.New(d, nil, slog.New(slog.DiscardHandler))
	defer tr.Close()
	for _, c := range []struct {
		v       frame.Verdict
		encrypt bool
		entry   string
		in, out bool
	}{
		{frame.Verdict{Action: frame.Forward, Reason: frame.KnownUnicast, VID: 10, Out: 2}, false, "an entry at 2", false, false},
		{frame.Verdict{Action: frame.Flood, Reason: frame.UnknownUnicast, VID: 10}, true, "", true, true},
		{frame.Verdict{Action: frame.Drop, Reason: frame.Storm, VID: 10}, false, "", false, false},
		{frame.Verdict{Action: frame.Drop, Reason: frame.PlaintextRefused, VID: 10}, true, "", false, true},
	} {
		d.here.Network = func(frame.VID) tracer.Network { return tracer.Network{Name: "red", VNI: 7, Encrypt: c.encrypt} }
		s := trace.Seen{In: 9, Verdict: c.v}
		s.SetCopies([]frame.Copy{{Port: 8}, {Port: 1}})
		e := tr.SwitchEvent(&s)
		if e.Entry != c.entry || (e.Taught != "") != (c.entry != "") || e.Sealed != c.in || e.Exits[0].Sealed != c.out || e.Exits[1].Sealed {
			t.Errorf("%v %v: got %+v", c.v.Action, c.v.Reason, e)
		}
	}
}
