package integration_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// loopPromise is how long a loop may live.
const loopPromise = time.Second

// crossed is a file of one switch with two cables between two of its networks.
func crossed(t *testing.T, profile string) string {
	one, two := cable(t, nil, "back1"), cable(t, nil, "back2")
	return "profile: " + profile + "\nnetworks: {blue: {vlan: 10}, red: {vlan: 20}}\nports:\n" +
		"  b1: {device: {name: " + one + "}, access: blue}\n  r1: {device: {name: back1}, access: red}\n" +
		"  b2: {device: {name: " + two + "}, access: blue}\n  r2: {device: {name: back2}, access: red}\n" +
		"  c: {host: {ifname: tap-loop}, access: blue}\n"
}

// shout floods one frame into the loop and says when.
func shout(t *testing.T) time.Time {
	t.Helper()
	raw, err := switchtest.OpenRawEnd("tap-loop", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	begin := time.Now()
	if err := raw.Send(frame.Frame{Data: hello(1)}); err != nil {
		t.Fatal(err)
	}
	return begin
}

// cuts follows what the loop guard of a switch says.
func cuts(t *testing.T, n *node) <-chan api.Event {
	c := api.Dial(n.socket)
	out := make(chan api.Event, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done; c.Close() })
	go func() {
		defer close(done)
		for e, err := range c.Events(ctx, []string{"loop"}) {
			if err != nil {
				return
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// TestPolicyLoop makes loops on purpose and looks at what cuts them, how soon,
// and who says so.
func TestPolicyLoop(t *testing.T) {
	t.Run("two networks of one switch", func(t *testing.T) {
		n := start(t, crossed(t, "strict"))
		cut := cuts(t, n)
		begin := shout(t)
		n.until("status names the loop", func() bool { return len(cutsOf(n)) > 0 })
		n.quiet()
		told(t, cut, begin)
		conserved(t, n)
	})
	t.Run("two switches", func(t *testing.T) {
		one, two := cable(t, nil, "back1"), cable(t, nil, "back2")
		a := start(t, "networks: {blue: {vlan: 10}}\nports:\n  a1: {device: {name: "+one+"}, access: blue}\n"+
			"  a2: {device: {name: "+two+"}, access: blue}\n  c: {host: {ifname: tap-loop}, access: blue}\n")
		z := start(t, "networks: {blue: {vlan: 10}}\nports:\n  z1: {device: {name: back1}, access: blue}\n"+
			"  z2: {device: {name: back2}, access: blue}\n")
		cutA, cutZ := cuts(t, a), cuts(t, z)
		begin := shout(t)
		select {
		case e := <-cutA:
			namesPort(t, e, begin)
		case e := <-cutZ:
			namesPort(t, e, begin)
		case <-time.After(patience):
			t.Error("nobody cuts the loop")
		}
		a.quiet()
		z.quiet()
	})
	t.Run("lab lets it run", func(t *testing.T) {
		n := start(t, crossed(t, "lab"))
		shout(t)
		n.until("frames go round and round", func() bool {
			var s api.Stats
			n.json(&s, "stats")
			return s.RxFrames > 20000
		})
		if cut := cutsOf(n); len(cut) != 0 {
			t.Errorf("lab cuts: %v", cut)
		}
	})
}

// cutsOf are the problems of status that say that a port is cut for a loop.
func cutsOf(n *node) (cut []string) {
	var s api.Status
	n.json(&s, "status")
	for _, p := range s.Problems {
		if strings.Contains(p.What, "loop: ") {
			cut = append(cut, p.What)
		}
	}
	return cut
}

// told waits for the event of a cut.
func told(t *testing.T, cut <-chan api.Event, begin time.Time) {
	t.Helper()
	select {
	case e := <-cut:
		namesPort(t, e, begin)
	case <-time.After(patience):
		t.Error("no event of the loop")
	}
}

// namesPort demands that the event of a cut names its port. The time is logged
// beside the promise: a busy machine may break it.
func namesPort(t *testing.T, e api.Event, begin time.Time) {
	t.Helper()
	if e.Port == "" || !strings.Contains(e.What, e.Port) {
		t.Errorf("event %+v names no port", e)
	}
	t.Logf("cut %v after the first frame (promised: %v): %s", e.Time.Sub(begin), loopPromise, e.What)
}
