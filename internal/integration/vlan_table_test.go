package integration_test

import (
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// station numbered n of the wire tests, and a broadcast frame of it.
func station(n byte) switchtest.Station { return switchtest.Station4(n) }

func hello(n byte) []byte {
	return switchtest.Padded(switchtest.EthFrame(frame.Broadcast, station(n).MAC, 0x88b5, switchtest.Pattern(46)))
}

// vlanPorts are the four kinds of membership.
var vlanPorts = map[string]string{
	"blue":  "access: blue",
	"red":   "access: red",
	"trunk": "trunk: [blue, red]",
	"mixed": "trunk: [red], native: blue",
}

// TestVLANOnTheWire sends every form of tag into every kind of membership and
// compares octets at every other port. The kernel takes tags out of frames at a
// packet socket, so this also tests that the switch puts them back.
func TestVLANOnTheWire(t *testing.T) {
	b := newBench(t, "", vlanPorts)
	plain := hello(1)
	tag := func(vid frame.VID, pcp frame.PCP) []byte { return switchtest.Tagged(vid, pcp, plain) }
	nested := switchtest.Tagged(10, 2, switchtest.Tagged(20, 1, plain))
	blue := func(pcp frame.PCP, except string) map[string][]byte {
		m := map[string][]byte{"blue": plain, "trunk": tag(10, pcp), "mixed": plain}
		delete(m, except)
		return m
	}
	red := func(pcp frame.PCP, except string) map[string][]byte {
		m := map[string][]byte{"red": plain, "trunk": tag(20, pcp), "mixed": tag(20, pcp)}
		delete(m, except)
		return m
	}
	for _, c := range []struct {
		name, in string
		frame    []byte
		decision string
		heard    map[string][]byte
	}{
		{"access untagged", "blue", plain, "flood broadcast", blue(0, "blue")},
		{"access tagged", "blue", tag(10, 0), "drop tag_not_accepted", nil},
		{"access tagged of another network", "blue", tag(20, 0), "drop tag_not_accepted", nil},
		{"access 4095", "blue", tag(4095, 0), "drop vid_reserved", nil},
		{"trunk tagged", "trunk", tag(10, 0), "flood broadcast", blue(0, "trunk")},
		{"trunk keeps the priority", "trunk", tag(20, 6), "flood broadcast", red(6, "trunk")},
		{"trunk untagged", "trunk", plain, "drop vlan_not_member", nil},
		{"trunk of no member", "trunk", tag(30, 0), "drop vlan_not_member", nil},
		{"trunk 4095", "trunk", tag(4095, 3), "drop vid_reserved", nil},
		{"native untagged", "mixed", plain, "flood broadcast", blue(0, "mixed")},
		{"native tagged", "mixed", tag(10, 4), "flood broadcast", blue(4, "mixed")},
		{"mixed tagged", "mixed", tag(20, 1), "flood broadcast", red(1, "mixed")},
		{"native priority tag", "mixed", tag(0, 5), "flood broadcast", blue(5, "mixed")},
		{"access priority tag", "red", tag(0, 7), "flood broadcast", red(7, "red")},
		// The outer tag says where it goes, the inner one is payload.
		{"two tags don't hop", "trunk", nested, "flood broadcast", map[string][]byte{
			"blue": switchtest.Tagged(20, 1, plain), "mixed": switchtest.Tagged(20, 1, plain)}},
		{"two tags at an access port", "blue", nested, "drop tag_not_accepted", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			before := b.drops(c.in)
			o := b.send(c.in, c.frame)
			if o.decision != c.decision {
				t.Errorf("%s, want %s", o.decision, c.decision)
			}
			heardAs(t, o, c.heard)
			if reason, dropped := strings.CutPrefix(c.decision, "drop "); dropped {
				if got := b.drops(c.in)[reason] - before[reason]; got != 1 {
					t.Errorf("%s counted %d times, want 1", reason, got)
				}
			}
		})
	}
	b.t = t
	conserved(t, b.n)
}

// TestVLANUnicastBack answers across the tag boundary: what the trunk learned
// goes out tagged and alone.
func TestVLANUnicastBack(t *testing.T) {
	b := newBench(t, "", vlanPorts)
	if o := b.send("trunk", switchtest.Tagged(10, 0, hello(1))); !o.entered {
		t.Error("the trunk's station was not learned")
	}
	answer := switchtest.UDPFrame(station(2), station(1), switchtest.Pattern(400))
	o := b.send("blue", answer)
	if o.decision != "forward known_unicast" {
		t.Errorf("%s, want forward known_unicast", o.decision)
	}
	heardAs(t, o, map[string][]byte{"trunk": switchtest.Tagged(10, 0, answer)})
	// In red nobody has that address.
	o = b.send("red", switchtest.UDPFrame(station(3), station(1), switchtest.Pattern(401)))
	if o.decision != "flood unknown_unicast" {
		t.Errorf("%s, want flood unknown_unicast", o.decision)
	}
}

// TestVLANTrunkOfTwoSwitches joins two switches by a pair of veth ends: who is
// in the same network talks, who is not does not.
func TestVLANTrunkOfTwoSwitches(t *testing.T) {
	left := []*end{newEnd(t, "tap", 2, "access: blue", ""), newEnd(t, "tap", 3, "access: red", "")}
	right := []*end{newEnd(t, "tap", 12, "access: blue", ""), newEnd(t, "veth", 13, "access: red", "")}
	near := cable(t, nil, "far0")
	file := func(device string, ends []*end) string {
		s := "networks: {blue: {vlan: 10}, red: {vlan: 20}}\nports:\n  trunk: {device: {name: " + device + "}, trunk: [blue, red]}\n"
		for _, e := range ends {
			s += "  " + e.port + ": " + e.conf + "\n"
		}
		return s
	}
	a, z := start(t, file(near, left)), start(t, file("far0", right))
	ping(t, left[0].ns, right[0].v4, 3)
	ping(t, left[0].ns, right[0].v6, 3)
	ping(t, left[1].ns, right[1].v4, 3)
	fullMatter(t, left[0], right[0])
	fullMatter(t, right[1], left[1])
	if out, err := left[0].ns.Try("ping", "-n", "-c", "1", "-W", "1", right[1].v4); err == nil {
		t.Errorf("blue reaches red:\n%s", out)
	}
	conserved(t, a)
	conserved(t, z)
}
