package capture_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// sums is a sink that keeps the last counters.
type sums struct{ announced, delivered, lost map[frame.PortID]uint64 }

func (s *sums) Packet(*capture.Packet, uint64) error { return nil }
func (s *sums) Flush() error                         { return nil }
func (s *sums) Port(id frame.PortID) error           { s.announced[id]++; return nil }
func (s *sums) Lost(id frame.PortID, delivered, lost uint64) error {
	s.delivered[id], s.lost[id] = delivered, lost
	return nil
}

// TestLostOfAPortThatDeliversNothing: what is lost of a port is told, even when it
// came after the capture had begun and none of its packets fitted.
func TestLostOfAPortThatDeliversNothing(t *testing.T) {
	ring := capture.NewRing(capture.Choice{Direction: capture.In}, 1)
	large := eth(1, frame.Tag{}, 60000)
	for ring.LostAll() == 0 {
		ring.Observe(observation(large, flood))
	}
	late := observation(large, flood)
	late.In = 7
	for range 3 {
		ring.Observe(late)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sink := &sums{map[frame.PortID]uint64{}, map[frame.PortID]uint64{}, map[frame.PortID]uint64{}}
	s := capture.Stream{Ring: ring, Expander: capture.NewExpander(names, false, 0), Sink: sink, Ports: []frame.PortID{1, 2}}
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if sink.lost[1] != 1 || sink.lost[7] != 3 || sink.delivered[1] == 0 || sink.delivered[7] != 0 {
		t.Errorf("delivered %v, lost %v; want 1 lost of port 1 and 3 of port 7", sink.delivered, sink.lost)
	}
	if sink.announced[1] != 1 || sink.announced[2] != 1 || sink.announced[7] != 1 || len(sink.announced) != 3 {
		t.Errorf("announced %v, want ports 1, 2 and 7 once", sink.announced)
	}
}

// TestLongComment: a comment that is cut stays text.
func TestLongComment(t *testing.T) {
	for shift := range 3 {
		var b bytes.Buffer
		w := capture.NewWriter(&b, "test", "")
		id, err := w.Interface(capture.Interface{Name: "h128/c1"})
		if err != nil {
			t.Fatal(err)
		}
		p := capture.Packet{Time: time.Unix(1, 0), Data: make([]byte, 60), Len: 60, Decision: strings.Repeat("a", shift) + strings.Repeat("→", 30000)}
		if err := w.Packet(id, &p, 0); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		got := switchtest.TShark(t, file, "frame.comment")
		if len(got) != 1 || !utf8.ValidString(got[0]) || strings.Trim(got[0], "a→") != "" || len(got[0]) < 4000 {
			t.Errorf("%d packets; the comment is not what was written: %.20q…", len(got), got)
		}
	}
}
