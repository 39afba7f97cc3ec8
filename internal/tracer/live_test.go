package tracer_test

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/tracer"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// TestLive: packets that match are told in order, with all that was seen of each,
// and the observer goes when the count is reached or nobody listens.
func TestLive(t *testing.T) {
	d := newDesk()
	tr := tracer.New(d, nil, slog.New(slog.DiscardHandler))
	defer tr.Close()
	run, err := tr.Trace(t.Context(), api.TraceRequest{Watch: "udp", Count: 2})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	ended := make(chan error)
	go func() {
		ended <- run(t.Context(), func(l api.Traced) error {
			got = append(got, strings.Join([]string{l.Kind, string(rune('0' + l.Seq)), l.Hop.At, l.Port, l.Next}, " "))
			return nil
		})
	}()
	o := <-d.observers
	a, b := switchtest.Station4(1), switchtest.Station4(2)
	show := func(in frame.PortID, data []byte) {
		o.Observe(&frame.Observation{Time: time.Now(), In: in, Frame: &frame.Frame{Data: data},
			Verdict: frame.Verdict{Action: frame.Forward, Reason: frame.KnownUnicast, VID: 10, Out: 2}, Copies: []frame.Copy{{Port: 2}}})
	}
	show(1, switchtest.EchoFrame(a, b, 1, 1, nil))
	show(1, switchtest.UDPFrame(a, b, []byte("one")))
	show(1, switchtest.UDPFrame(a, b, []byte("two")))
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	want := []string{"hop 1 ingress c1 ", "hop 1 decide c1 c2", "hop 1 egress c2 ", "hop 2 ingress c1 ", "hop 2 decide c1 c2", "hop 2 egress c2 "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if <-d.left != o {
		t.Error("another observer went")
	}
	run, _ = tr.Trace(t.Context(), api.TraceRequest{Watch: "udp"})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- run(ctx, nil) }()
	<-d.observers
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-d.left
	full := errors.New("full")
	run, _ = tr.Trace(t.Context(), api.TraceRequest{Watch: "udp"})
	go func() { ended <- run(t.Context(), func(api.Traced) error { return full }) }()
	o = <-d.observers
	show(1, switchtest.UDPFrame(a, b, []byte("three")))
	if err := <-ended; !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	<-d.left
}

// TestLiveFlood: while packets come faster than they can be told, some are told,
// the others are counted, names and the table are looked at for those that are
// told alone, and the trace ends when its caller hangs up.
func TestLiveFlood(t *testing.T) {
	d := newDesk()
	tr := tracer.New(d, nil, slog.New(slog.DiscardHandler))
	defer tr.Close()
	run, err := tr.Trace(t.Context(), api.TraceRequest{Watch: "udp"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, hangUp := context.WithCancel(t.Context())
	told, notes := 0, 0
	ended := make(chan error)
	go func() {
		ended <- run(ctx, func(l api.Traced) error {
			switch {
			case l.Kind == "note":
				notes++
			case l.At == "decide":
				told++
			}
			if told > 0 && notes > 2 {
				hangUp()
			}
			return nil
		})
	}()
	o := <-d.observers
	stop := make(chan struct{})
	var flood sync.WaitGroup
	for i := range uint32(2) {
		flood.Go(func() {
			for n := i; ; n += 2 {
				select {
				case <-stop:
					return
				default:
				}
				data := switchtest.UDPFrame(switchtest.Station4(1), switchtest.Station4(2), binary.BigEndian.AppendUint32(nil, n))
				o.Observe(&frame.Observation{Time: time.Now(), In: 1, Frame: &frame.Frame{Data: data},
					Verdict: frame.Verdict{Action: frame.Forward, Reason: frame.KnownUnicast, VID: 10, Out: 2}, Copies: []frame.Copy{{Port: 2}}})
			}
		})
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	close(stop)
	flood.Wait()
	if n := int(d.looked.Load()); n > 2*told+2 {
		t.Errorf("%d packets are told, for which names and the table were looked at %d times", told, n)
	}
}
