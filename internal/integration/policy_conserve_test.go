package integration_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
)

func joinWords(w []string) string { return strings.Join(w, " ") }

// quiet waits until two looks at the counters in a row are alike and returns
// them.
func (n *node) quiet() (api.Stats, []api.Port) {
	n.t.Helper()
	var s api.Stats
	var ports []api.Port
	n.until("no frame moves", func() bool {
		var before, after api.Stats
		n.json(&before, "stats")
		ports = nil
		n.json(&ports, "port", "ls")
		n.json(&after, "stats")
		s = after
		before.UptimeS, after.UptimeS = 0, 0
		before.Loop, after.Loop = api.LoopStats{}, api.LoopStats{}
		return reflect.DeepEqual(before, after)
	})
	return s, ports
}

// conserved demands the contract's law of conservation of the quiet switch.
func conserved(t *testing.T, n *node) {
	t.Helper()
	s, ports := n.quiet()
	sum := func(m map[string]uint64) (total uint64) {
		for _, v := range m {
			total += v
		}
		return total
	}
	if got := sum(s.Verdicts); got != s.RxFrames {
		t.Errorf("verdicts %v are %d, received %d", s.Verdicts, got, s.RxFrames)
	}
	if got, want := sum(s.Drops), s.Verdicts["drop"]+s.Copies.Refused; got != want {
		t.Errorf("drops %v are %d, dropped and refused %d", s.Drops, got, want)
	}
	var rx, tx uint64
	drops := map[string]uint64{}
	for _, p := range ports {
		rx += p.RX.Frames
		tx += p.TX.Frames
		for k, v := range p.Drops {
			drops[k] += v
		}
	}
	if rx != s.RxFrames || tx != s.Copies.Sent {
		t.Errorf("ports received %d and sent %d, the switch %d and %d", rx, tx, s.RxFrames, s.Copies.Sent)
	}
	if !reflect.DeepEqual(drops, map[string]uint64(s.Drops)) {
		t.Errorf("drops of the ports %v, of the switch %v", drops, s.Drops)
	}
}
