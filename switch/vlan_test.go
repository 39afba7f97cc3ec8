package vswitch_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// TestVLANTruthTable walks testdata/vlan.txt.
func TestVLANTruthTable(t *testing.T) {
	table, err := os.ReadFile("testdata/vlan.txt")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]vswitch.Port{
		"access10":     {Native: 10},
		"access20":     {Native: 20},
		"trunk":        {Tagged: []frame.VID{10, 20}},
		"trunk10":      {Tagged: []frame.VID{10}},
		"native10":     {Native: 10, Tagged: []frame.VID{20}},
		"native20":     {Native: 20, Tagged: []frame.VID{10}},
		"native10full": {Native: 10, Tagged: []frame.VID{10, 20}},
		"trunk30":      {Tagged: []frame.VID{30}},
		"nowhere":      {},
	}
	networks := []vswitch.Network{{Name: "blue", VID: 10}, {Name: "red", VID: 20}, {Name: "grey", VID: 30}}
	rows := 0
	for i, row := range strings.Split(string(table), "\n") {
		row, _, _ = strings.Cut(row, "|")
		left, want, ok := strings.Cut(row, "=")
		if !ok || strings.HasPrefix(row, "#") {
			continue
		}
		rows++
		var kind, form string
		if _, err := fmt.Sscan(left, &kind, &form); err != nil {
			t.Fatalf("vlan.txt:%d: %v", i+1, err)
		}
		t.Run(kind+" "+form, func(t *testing.T) {
			in, ok := kinds[kind]
			if !ok {
				t.Fatalf("vlan.txt:%d: unknown ingress %q", i+1, kind)
			}
			in.Name = "in"
			r := start(t, vswitch.Spec{Networks: networks, Ports: []vswitch.Port{
				in,
				{Name: "a10", Native: 10},
				{Name: "a20", Native: 20},
				{Name: "t", Tagged: []frame.VID{10, 20, 30}},
				{Name: "n10", Native: 10, Tagged: []frame.VID{20}},
			}})
			r.send(1, formed(t, form))
			var got []string
			for i, p := range r.ports {
				for _, f := range p.Drain() {
					got = append(got, r.spec.Ports[i].Name+"="+describe(f.Data))
				}
			}
			for why := range frame.NumReasons {
				if r.drops(1, why) > 0 {
					got = append(got, why.String())
				}
			}
			if got, want := strings.Join(got, " "), strings.TrimSpace(want); got != want {
				t.Errorf("vlan.txt:%d: got %s, want %s", i+1, got, want)
			}
			r.conserve()
		})
	}
	if rows != 81 {
		t.Errorf("vlan.txt has %d rows, want 9 × 9", rows)
	}
}

// formed is a broadcast with the tag that form names.
func formed(t *testing.T, form string) []byte {
	f := eth(frame.Broadcast, mac(1))
	if form == "untagged" {
		return f
	}
	var vid, pcp int
	b := strings.TrimPrefix(form, "s")
	if _, err := fmt.Sscanf(b, "%d/%d", &vid, &pcp); err != nil {
		t.Fatalf("form %q: %v", form, err)
	}
	out := tagged(f, frame.MakeTag(frame.VID(vid), frame.PCP(pcp), strings.HasSuffix(form, "/dei")))
	if b != form {
		out[12], out[13] = 0x88, 0xa8
	}
	return out
}

// describe names the tag of a frame as vlan.txt does.
func describe(b []byte) string {
	h, ok := frame.Parse(b)
	if !ok {
		return "short"
	}
	if h.EtherType == frame.EtherTypeSTag {
		if !h.Tag.Present() {
			return "s"
		}
		return tagName(h.Tag) + "+s"
	}
	if !h.Tag.Present() {
		return "u"
	}
	return tagName(h.Tag)
}

func tagName(t frame.Tag) string {
	s := fmt.Sprintf("%d/%d", t.VID(), t.PCP())
	if t.DEI() {
		s += "/dei"
	}
	return s
}

func TestUnicastIsTaggedForItsEgress(t *testing.T) {
	spec := bridge(1)
	spec.Ports = append(spec.Ports, vswitch.Port{Tagged: []frame.VID{10}})
	r := start(t, spec)
	r.send(1, eth(frame.Broadcast, mac(1)))
	r.send(2, tagged(eth(mac(1), mac(2)), frame.MakeTag(10, 6, true)))
	if got := r.ports[0].Drain(); len(got) != 1 || !sameBytes(got[0].Data, eth(mac(1), mac(2))) {
		t.Errorf("access port heard %d frames, want the one without its tag", len(got))
	}
	r.ports[1].Drain()
	r.send(1, tagged(eth(mac(2), mac(1)), frame.MakeTag(0, 5, false)))
	got := r.ports[1].Drain()
	if want := tagged(eth(mac(2), mac(1)), frame.MakeTag(10, 5, false)); len(got) != 1 || !sameBytes(got[0].Data, want) {
		t.Errorf("trunk heard %d frames, want the one with its priority and VID 10", len(got))
	}
}
