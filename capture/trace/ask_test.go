package trace_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// fit is what a tunnel's message carries (tunnel.MaxText).
const fit = 1154

// long is a report with the longest names that a file allows.
func long(events int) trace.Report {
	name := strings.Repeat("n", 63)
	e := trace.Event{At: trace.AtSwitch, Time: start.UnixNano(), TTL: 64, Port: name, Network: name, VLAN: 4094, Action: "forward", Reason: "known_unicast",
		From: "2001:db8:1111:2222:3333:4444:5555:6666", To: "2001:db8:1111:2222:3333:4444:5555:7777", Entry: name, Taught: name + name,
		Exits: slices.Repeat([]trace.Exit{{Port: name, VLAN: 4094}}, trace.MaxCopies)}
	return trace.Report{Events: slices.Repeat([]trace.Event{e}, events), Notes: []string{"a note"}}
}

func TestReport(t *testing.T) {
	for _, n := range []int{0, 1, 5, trace.MaxHops, 3 * trace.MaxHops} {
		parts, err := long(n).Parts()
		if err != nil {
			t.Fatal(err)
		}
		got, err := trace.ParseReport(parts)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Events)+got.Lost != n || len(got.Notes) != 1 || len(parts) > trace.MaxParts || n <= 5 && got.Lost > 0 {
			t.Errorf("%d events: %d came, %d are lost, %d notes in %d parts", n, len(got.Events), got.Lost, len(got.Notes), len(parts))
		}
		for i, p := range parts {
			tell := trace.Tell{Host: strings.Repeat("h", 63), Heard: start.UnixNano(), Told: start.UnixNano(), Part: i, Parts: len(parts), Chunk: p}
			if b := trace.Marshal(tell); len(b) > fit {
				t.Errorf("part %d of %d has %d octets in a message for %d", i, len(parts), len(b), fit)
			}
		}
	}
	r := long(2)
	parts, _ := r.Parts()
	if got, err := trace.ParseReport(parts); err != nil || !cmp.Equal(got, r) {
		t.Errorf("%v\n%s", err, cmp.Diff(r, got))
	}
}

func TestAskTell(t *testing.T) {
	k := keys[1]
	a := trace.Ask{Op: trace.OpWatch, ID: k.ID, Key: &k, For: 2000}
	b := trace.Marshal(a)
	if got, err := trace.ParseAsk(b); err != nil || !cmp.Equal(got, a, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) || len(b) > fit {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, bad := range map[string]string{
		"empty": ``, "op": `{"op":"run"}`, "no key": `{"op":"watch"}`, "part": `{"op":"fetch","part":-1}`, "type": `{"op":7}`,
		"for ever":   strings.Replace(string(b), `"for":2000`, `"for":20000`, 1),
		"other ID":   strings.Replace(string(b), k.ID.String(), "0000000000000001", 1),
		"other kind": strings.Replace(string(b), "icmp", "sctp", 1),
	} {
		if _, err := trace.ParseAsk([]byte(bad)); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	tell := trace.Tell{Host: "h2", Part: 1, Parts: 2, Chunk: []byte("{}")}
	if got, err := trace.ParseTell(trace.Marshal(tell)); err != nil || !cmp.Equal(got, tell) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", `{"part":3,"parts":2}`, `{"parts":1000}`, `{"part":-1}`} {
		if _, err := trace.ParseTell([]byte(bad)); err == nil {
			t.Errorf("%s: got no error", bad)
		}
	}
}

// FuzzAsk: whatever a peer asks is refused or is within bounds.
func FuzzAsk(f *testing.F) {
	for _, k := range keys {
		f.Add(trace.Marshal(trace.Ask{Op: trace.OpWatch, ID: k.ID, Key: &k, For: 2000}))
	}
	f.Add([]byte(`{"op":"fetch","part":3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := trace.ParseAsk(b)
		if err != nil {
			return
		}
		if a.Key != nil && a.Op == trace.OpWatch {
			if s, ok := sight(a.Key, trace.Frame(macB, macA, frame.Tag{}, a.Key.Packet(64))); !ok {
				t.Errorf("%s: its own probe is not known: %+v", b, s)
			}
		}
	})
}

// FuzzReport: whatever a peer tells is refused or can be put in order and shown.
func FuzzReport(f *testing.F) {
	parts, _ := long(2).Parts()
	f.Add(bytes.Join(parts, nil), "h2")
	f.Add([]byte(`{"events":[{"at":"in","ttl":3},{"at":"out","ttl":2,"w":3}]}`), "")
	f.Fuzz(func(t *testing.T, b []byte, host string) {
		r, err := trace.ParseReport([][]byte{b})
		if err != nil {
			return
		}
		hops := trace.Merge(1, []trace.Account{{Host: host, Events: r.Events}})
		if len(hops) > (2+len(b))*len(r.Events)+1 {
			t.Errorf("%d hops of %d events", len(hops), len(r.Events))
		}
		for _, h := range hops {
			if _, err := json.Marshal(h); err != nil {
				t.Error(err)
			}
			_ = fmt.Sprint(h)
		}
	})
}
