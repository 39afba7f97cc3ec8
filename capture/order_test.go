package capture_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// TestHear: a packet of an interface of the host is of no decision, and no drop.
func TestHear(t *testing.T) {
	at := time.Unix(1700000000, 5)
	tag := frame.MakeTag(10, 0, false)
	const in, out = "5 c16384 in 60/60 8100000a88b5  ", "5 c16384 out 60/60 8100000a88b5  "
	for name, c := range map[string]struct {
		choice capture.Choice
		want   []string
	}{
		"both":  {capture.Choice{}, []string{in, out}},
		"in":    {capture.Choice{Direction: capture.In}, []string{in}},
		"out":   {capture.Choice{Direction: capture.Out}, []string{out}},
		"drops": {capture.Choice{Drops: true}, nil},
		"other": {capture.Choice{Filter: compile(t, "vlan 11")}, nil},
	} {
		c.choice.Ports = []frame.PortID{capture.Device(0)}
		r := capture.NewRing(c.choice, 0)
		r.Source(capture.Device(0)).Hear(capture.In, at, eth(1, tag, 60))
		r.Source(capture.Device(0)).Hear(capture.Out, at, eth(1, tag, 60))
		r.Source(capture.Device(1)).Hear(capture.Out, at, eth(1, tag, 60))
		if got := expand(r, false); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// TestHearDoesNotAllocate covers packets that fit, that don't, and that no filter
// takes.
func TestHearDoesNotAllocate(t *testing.T) {
	at, data := time.Now(), eth(1, frame.Tag{}, 1500)
	for name, c := range map[string]capture.Choice{"all": {}, "none": {Filter: compile(t, "arp")}} {
		c.Ports = []frame.PortID{capture.Device(3)}
		s := capture.NewRing(c, 1).Source(capture.Device(3))
		if n := testing.AllocsPerRun(2000, func() { s.Hear(capture.In, at, data); s.Hear(capture.Out, at, data) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

// times is a sink that notes when packets are from.
type times struct {
	capture.Sink
	at   []time.Time
	lost uint64
}

func (s *times) Packet(p *capture.Packet, lost uint64) error {
	s.at = append(s.at, p.Time)
	s.lost += lost
	return nil
}
func (*times) Port(frame.PortID) error                 { return nil }
func (*times) Lost(frame.PortID, uint64, uint64) error { return nil }
func (*times) Flush() error                            { return nil }

// TestSort: a stream of several sources delivers all packets by their time,
// whatever their order, and those of one time in the order in which they came.
func TestSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := capture.NewRing(capture.Choice{}, 0)
		now := time.Now()
		var want []time.Time
		for _, ms := range rapid.SliceOfN(rapid.IntRange(0, 50), 1, 200).Draw(t, "times") {
			o := observation(eth(1, frame.Tag{}, 60), flood)
			o.Time = now.Add(time.Duration(ms) * time.Millisecond).Round(0)
			want = append(want, o.Time)
			r.Observe(o)
		}
		slices.SortStableFunc(want, time.Time.Compare)
		var got times
		s := &capture.Stream{Ring: r, Expander: capture.NewExpander(names, false, 0), Sink: &got, Sort: time.Hour}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got.at, want, time.Time.Equal) {
			t.Fatalf("got %v\nwant %v", got.at, want)
		}
	})
}
