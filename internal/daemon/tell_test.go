package daemon

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/journal"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
	"github.com/tapestry-net/tapestry/tunnel"
)

// told collects what d tells.
func (d *Daemon) told() []api.Event { return d.hub.past(journal.Filter{}) }

func telling(t *testing.T) *Daemon {
	d := remembering(t)
	d.hub.journal = journal.Open(-1, nil) // no directory: memory only
	t.Cleanup(d.hub.journal.Close)
	d.flapping, d.peers, d.storms = map[string]api.Flap{}, map[frame.PortID]toldPeer{}, map[frame.PortID]*stormAt{}
	return d
}

// TestTellFlaps: flapping is told when it begins and when it is over, once.
func TestTellFlaps(t *testing.T) {
	d := telling(t)
	now := time.Now()
	d.watchFlaps(now)
	d.flap(mac(1), 9, 1, 2)
	d.flap(mac(2), 9, 1, 2)
	d.watchFlaps(time.Now())
	d.watchFlaps(time.Now())
	got := d.told()
	if len(got) != 1 || got[0].Fields["flapping"] != true || !strings.Contains(got[0].What, "flaps between a and b") {
		t.Fatalf("told %+v", got)
	}
	d.watchFlaps(time.Now().Add(2 * time.Minute))
	d.watchFlaps(time.Now().Add(2 * time.Minute))
	if got = d.told(); len(got) != 2 || got[1].Fields["flapping"] != false {
		t.Errorf("told %+v", got)
	}
}

// TestTellPeer tells each change of a peer once, in the words that fit it.
func TestTellPeer(t *testing.T) {
	d := telling(t)
	s := tunnel.Status{ID: 9, Name: "h", State: tunnel.Up, MTU: 1450}
	step := func(want string) {
		t.Helper()
		before := len(d.told())
		d.tellPeer(s, time.Now())
		d.tellPeer(s, time.Now())
		got := d.told()[before:]
		if len(got) != 1 || !strings.Contains(got[0].What, want) || got[0].Peer != "h" {
			t.Errorf("told %+v, want %q", got, want)
		}
	}
	step("is up, its path carries packets of 1450 octets")
	s.MTU = 1400
	step("packets of 1400 octets, 1450 before")
	s.Passive = true
	step("answers no probe")
	s.Passive = false
	step("answers probes")
	s.State = tunnel.Down
	step("is down")
	d.forgetPeers()
	s.State = tunnel.Up
	step("is up")
}

// TestEventsSince: a stream that begins with the past has each event once.
func TestEventsSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		h.journal = journal.Open(-1, nil)
		defer h.journal.Close()
		h.publish(api.Event{Kind: "port", What: "too old"})
		time.Sleep(time.Second)
		since := time.Now()
		h.publish(api.Event{Kind: "port", What: "1"})
		h.publish(api.Event{Kind: "fdb", What: "a move"})
		h.publish(api.Event{Kind: "peer", What: "another kind"})
		in := h.subscribe(t.Context(), []string{"port", "fdb"}, since)
		h.publish(api.Event{Kind: "port", What: "2"})
		h.publish(api.Event{Kind: "fdb", What: "3"})
		for _, want := range []string{"1", "2", "3"} {
			if e := <-in; e.What != want {
				t.Errorf("got %q, want %q", e.What, want)
			}
		}
	})
}

// TestTellStorm: a storm is told when it begins, once, and when it is over.
func TestTellStorm(t *testing.T) {
	d := telling(t)
	sw, err := vswitch.New(vswitch.Options{FDB: d.table})
	if err != nil {
		t.Fatal(err)
	}
	defer sw.Close()
	d.sw = sw
	q, err := mem.New(mem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := sw.Apply(vswitch.Spec{Networks: []vswitch.Network{{VID: 10, Name: "blue"}}, Ports: []vswitch.Port{{ID: 1, Name: "a", Queue: q, Native: 10}}}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	e := vswitch.Event{Kind: vswitch.EventStorm, Time: begin, Port: 1, Class: frame.BroadcastAddr}
	d.tellStorm(e, "a")
	d.tellStorm(e, "a")
	d.watchStorms(begin.Add(stormOver / 2))
	if got := d.told(); len(got) != 1 || got[0].Fields["storm"] != true || got[0].Port != "a" {
		t.Errorf("told %+v", got)
	}
	d.watchStorms(begin.Add(2 * stormOver))
	d.watchStorms(begin.Add(3 * stormOver))
	if got := d.told(); len(got) != 2 || got[1].Fields["storm"] != false || !strings.Contains(got[1].What, "is over: 0 frames dropped") {
		t.Errorf("told %+v", got)
	}
}
