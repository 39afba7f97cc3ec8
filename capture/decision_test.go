package capture_test

import (
	"fmt"
	"testing"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// names calls ports c1, c2 …, and VLAN 10 blue.
var names = capture.Names{
	Port: func(id frame.PortID) string { return fmt.Sprintf("c%d", id) },
	Network: func(v frame.VID) string {
		if v == 10 {
			return "blue"
		}
		return fmt.Sprintf("vlan%d", v)
	},
}

func TestDecision(t *testing.T) {
	for want, c := range map[string]struct {
		v      frame.Verdict
		copies []frame.Copy
		more   int
	}{
		"drop tag_not_accepted": {v: frame.Verdict{Reason: frame.TagNotAccepted}},
		"flood blue unknown_unicast → c1,c2(mtu_exceeded),c9 and 3 more": {
			v:      frame.Verdict{Action: frame.Flood, Reason: frame.UnknownUnicast, VID: 10},
			copies: []frame.Copy{{Port: 1}, {Port: 2, Refused: frame.MTUExceeded}, {Port: 9}}, more: 3},
		"forward vlan7 known_unicast → c2": {v: frame.Verdict{Action: frame.Forward, Reason: frame.KnownUnicast, VID: 7}, copies: []frame.Copy{{Port: 2}}},
	} {
		if got := capture.Decision(names, c.v, c.copies, c.more); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
