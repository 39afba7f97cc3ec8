package tracer_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/tracer"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

// nets are three networks: VLAN 10 is shared in clear, 20 encrypted, and 30 stays
// on this host.
func nets(v frame.VID) tracer.Network {
	return map[frame.VID]tracer.Network{10: {Name: "blue", VNI: 10}, 20: {Name: "red", VNI: 20, Encrypt: true}, 30: {Name: "lan"}}[v]
}

// fabric is a host with ports in those networks, and with peers.
func fabric() *desk {
	d := newDesk()
	d.here.Network = nets
	d.here.Ports = map[string]tracer.Port{
		"c1": {VIDs: []frame.VID{10}}, "c3": {VIDs: []frame.VID{20}}, "c4": {VIDs: []frame.VID{30}}, "up": {VIDs: []frame.VID{10, 20}}, "none": {},
	}
	d.here.Peers = []tracer.Peer{
		{ID: 11, Name: "clear", VIDs: []frame.VID{10}},
		{ID: 12, Name: "linked", Sealed: true, VIDs: []frame.VID{10, 20}},
		{ID: 13, Name: "foreign", Sealed: true, VIDs: []frame.VID{21}},
		{ID: 14, Name: "kernel", Passive: true, VIDs: []frame.VID{10, 20}},
		{ID: 15, Name: "gone", Down: true, Sealed: true, VIDs: []frame.VID{20}},
	}
	return d
}

// TestAnswerInClear: who only writes a peer's address into a datagram has nothing
// done by this host; who hears what the peer is told has.
func TestAnswerInClear(t *testing.T) {
	d := fabric()
	tr := tracer.New(d, nil, slog.New(slog.DiscardHandler))
	defer tr.Close()
	now := time.Unix(1_700_000_000, 0)
	told, err := tr.Answer(tunnel.Question{ID: 11, Heard: now}, trace.Ask{Op: trace.OpEnd})
	if err == nil || told.Token == 0 {
		t.Fatalf("asked without a token: %+v, %v", told, err)
	}
	for name, c := range map[string]struct {
		peer  frame.PortID
		token uint64
		later time.Duration
	}{
		"no token": {peer: 11}, "a guess": {11, told.Token + 1, 0}, "another peer's": {12, told.Token, 0}, "an old one": {11, told.Token, time.Hour},
	} {
		for _, op := range []trace.Op{trace.OpWatch, trace.OpFind, trace.OpFetch, trace.OpEnd} {
			got, err := tr.Answer(tunnel.Question{ID: c.peer, Heard: now.Add(c.later)}, trace.Ask{Op: op, Token: c.token, Port: "c1"})
			if err == nil || got.Token == 0 || len(got.Addresses) > 0 {
				t.Errorf("%s, %s: %+v, %v", name, op, got, err)
			}
		}
	}
	if len(d.observers) != 0 {
		t.Error("a datagram in clear made the switch be observed")
	}
	for _, later := range []time.Duration{0, time.Second, time.Minute} {
		if got, err := tr.Answer(tunnel.Question{ID: 11, Heard: now.Add(later)}, trace.Ask{Op: trace.OpEnd, Token: told.Token}); err != nil || got.Token != 0 {
			t.Errorf("with the token, %v later: %+v, %v", later, got, err)
		}
	}
	if _, err := tr.Answer(tunnel.Question{ID: 12, Sealed: true, Heard: now}, trace.Ask{Op: trace.OpEnd}); err != nil {
		t.Errorf("by the link: %v", err)
	}
}

// TestMayKnow: the addresses of a port are told to those who share its network.
func TestMayKnow(t *testing.T) {
	h := fabric().here
	for _, c := range []struct {
		peer   frame.PortID
		sealed bool
		want   []string
	}{
		{11, false, []string{"c1", "c4"}},
		{12, false, []string{"c1", "c4"}},
		{12, true, []string{"c1", "c3", "c4", "up"}},
		{13, true, []string{"c4"}},
		{99, false, []string{"c4"}},
	} {
		var got []string
		for name := range h.Ports {
			if tracer.MayKnow(&h, tunnel.Question{ID: c.peer, Sealed: c.sealed}, name) {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("peer %d, sealed %v (-want +got):\n%s", c.peer, c.sealed, d)
		}
	}
}

// TestSummon: of an encrypted network only those are told that carry it, by the
// link; who is asked in clear shows that it hears; and the watch is long enough.
func TestSummon(t *testing.T) {
	d := fabric()
	tr := tracer.New(d, nil, slog.New(slog.DiscardHandler))
	defer tr.Close()
	var mu sync.Mutex
	var asked []string
	d.ask = func(id frame.PortID, text []byte, sealed bool) (tunnel.Told, error) {
		mu.Lock()
		defer mu.Unlock()
		var a trace.Ask // whose key is none that ParseAsk would take
		if err := json.Unmarshal(text, &a); err != nil {
			t.Error(err)
		}
		asked = append(asked, fmt.Sprint(id, " sealed ", sealed, " token ", a.Token))
		if a.For < int((tracer.MaxTraceWait+4*time.Second).Milliseconds()) || a.For > int(trace.MaxWatch.Milliseconds()) {
			t.Errorf("asked to watch %d ms for an answer that may take %v, want up to %v", a.For, tracer.MaxTraceWait, trace.MaxWatch)
		}
		told := trace.Tell{Host: "h", Heard: 1, Told: 1}
		if !sealed && a.Token != 7 {
			told.Token, told.Error = 7, "ask again"
		}
		return tunnel.Told{Text: trace.Marshal(told)}, nil
	}
	for name, c := range map[string]struct {
		vids        []frame.VID
		want, notes []string
	}{
		"encrypted": {[]frame.VID{20}, []string{"12 sealed true token 0"},
			[]string{"peer gone is down: what would be seen there is missing", "peers clear, foreign are not asked: only peers that carry the encrypted network are, by the link"}},
		"plain": {nil, []string{"11 sealed false token 0", "11 sealed false token 7", "12 sealed true token 0", "13 sealed true token 0"},
			[]string{"peer gone is down: what would be seen there is missing"}},
	} {
		asked = nil
		notes := tr.Summon(t.Context(), tracer.MaxTraceWait, c.vids...)
		slices.Sort(asked)
		if d := cmp.Diff(c.want, asked); d != "" {
			t.Errorf("%s: asked (-want +got):\n%s", name, d)
		}
		if d := cmp.Diff(c.notes, notes); d != "" {
			t.Errorf("%s: notes (-want +got):\n%s", name, d)
		}
	}
}

// TestPublic: what happened in encrypted networks is not told in clear.
func TestPublic(t *testing.T) {
	tr := tracer.New(fabric(), nil, slog.New(slog.DiscardHandler))
	defer tr.Close()
	open := []trace.Event{
		{At: trace.AtSwitch, VLAN: 10, Port: "c1"}, {At: trace.AtSwitch, VLAN: 30, Port: "c4"}, {At: trace.AtSwitch, Port: "c1"},
		{At: trace.AtIn, Port: "tap-lan", Far: "c4"}, {At: trace.AtOut, Port: "under0"},
	}
	secret := []trace.Event{
		{At: trace.AtSwitch, VLAN: 20, Port: "c3"}, {At: trace.AtIn, Port: "eth0", Far: "c3"}, {At: trace.AtOut, Port: "eth0", Far: "up"},
		{At: trace.AtIn, Port: "eth1", Netns: "secret"},
	}
	if d := cmp.Diff(open, tr.Public(append(slices.Clone(secret), open...))); d != "" {
		t.Errorf("told in clear (-want +got):\n%s", d)
	}
}
