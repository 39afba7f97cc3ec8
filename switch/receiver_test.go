package vswitch_test

import (
	"errors"
	"slices"
	"testing"

	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
)

// shared hears frames of several ports on one descriptor: what is injected into
// the port in memory, with In by the last octet of the source address.
type shared struct {
	*mem.Port
	vid  frame.VID
	mute bool // of all frames
	own  bool
	fail error
}

func (s *shared) Waiting() bool { return false }

func (s *shared) Receive(b *frame.Batch) error {
	n := b.Len()
	if err := s.Port.Receive(b); err != nil {
		return err
	}
	for i := range b.Frames[n:] {
		f := &b.Frames[n+i]
		f.In, f.VID, f.Mute, f.Own = frame.PortID(f.Data[11]), s.vid, s.mute, s.own
	}
	if b.Len() > n {
		return s.fail
	}
	return nil
}

// sendOnly is a queue that only transmits.
type sendOnly struct{ *mem.Port }

func (sendOnly) FD() int { return -1 }

// sharedRig is a network of a local port, 1, and three ports in one
// split-horizon group, 2 to 4, that r hears.
func sharedRig(t *testing.T) (*rig, *shared) {
	t.Helper()
	s := &shared{Port: openPort(t, mem.Options{Offloads: ^frame.Offloads(0)}), vid: 10}
	spec := bridge(1)
	for range 3 {
		q := openPort(t, mem.Options{})
		spec.Ports = append(spec.Ports, vswitch.Port{Tagged: []frame.VID{10}, Group: 1, Queue: sendOnly{q}, OwnMTU: true})
	}
	spec.Receivers = []vswitch.Receiver{s}
	r := start(t, spec)
	for i := 1; i < 4; i++ {
		r.ports[i] = spec.Ports[i].Queue.(sendOnly).Port
	}
	return r, s
}

func (r *rig) inject(s *shared, frames ...[]byte) {
	r.t.Helper()
	for _, f := range frames {
		if s.Inject(f) != 1 {
			r.t.Fatal("receiver full")
		}
		r.sent++
	}
	r.settle()
}

func TestReceiverServesSeveralPorts(t *testing.T) {
	r, s := sharedRig(t)
	r.inject(s, eth(frame.Broadcast, mac(2)), eth(frame.Broadcast, mac(3)), eth(frame.Broadcast, mac(3)))
	if got := r.heard(); !slices.Equal(got, []int{1}) {
		t.Errorf("floods of two peers are heard by %v, want the local port only", got)
	}
	for id, want := range map[int]uint64{2: 1, 3: 2, 4: 0} {
		if st, _ := r.sw.PortStats(frame.PortID(id)); st.RX.Frames != want {
			t.Errorf("port %d counts %d frames, want %d", id, st.RX.Frames, want)
		}
	}
	r.expect("unicast to what peer 3 taught", 1, eth(mac(3), mac(1)), 3)
	r.expect("flood to all peers", 1, eth(frame.Broadcast, mac(1)), 2, 3, 4)

	r.inject(s, eth(mac(3), mac(2)))
	if r.drops(2, frame.SplitHorizon) != 1 || r.drops(3, frame.SplitHorizon) != 0 {
		t.Error("a frame from peer to peer is no split_horizon drop of the port it came in by")
	}
	r.conserve()
}

// TestMuteAndOwn has frames come in that teach nothing, those of this host among
// them, which no port has received.
func TestMuteAndOwn(t *testing.T) {
	r, s := sharedRig(t)
	for _, c := range []struct {
		mute, own bool
		learned   int
		received  uint64
	}{{mute: true, received: 1}, {own: true, received: 1}, {own: true, mute: true, received: 1}, {learned: 1, received: 2}, {own: true, learned: 1, received: 2}} {
		s.mute, s.own = c.mute, c.own
		x := r.sw.Explain(2, frame.Frame{Data: eth(frame.Broadcast, mac(2)), VID: 10, Mute: c.mute, Own: c.own})
		before := r.sw.Stats()
		r.inject(s, eth(frame.Broadcast, mac(2)))
		if got := r.heard(); !slices.Equal(got, []int{1}) {
			t.Errorf("%+v: heard by %v, want the local port", c, got)
		}
		after := r.sw.Stats()
		if own := after.Own - before.Own; own == 1 != c.own {
			t.Errorf("%+v: %d frames of this host counted", c, own)
		}
		st, _ := r.sw.PortStats(2)
		if n := r.table.Len(); n != c.learned || st.RX.Frames != c.received || st.RX.Bytes != 60*c.received {
			t.Errorf("%+v: %d entries, port has received %+v; want %d entries, %d frames", c, n, st.RX, c.learned, c.received)
		}
		if fresh := c.learned == 1 && !c.own; x.Verdict.Fresh != fresh {
			t.Errorf("%+v: foretold to teach: %v", c, x.Verdict.Fresh)
		}
	}
	s.own = true
	r.inject(s, eth(mac(3), frame.MAC{1, 5: 2}))
	if r.drops(2, frame.BadSource) != 1 {
		t.Errorf("a frame of this host with a bad source: drops %v", r.sw.Stats().Drops)
	}
	var received uint64
	for id := range 4 {
		st, _ := r.sw.PortStats(frame.PortID(id + 1))
		received += st.RX.Frames
	}
	if s := r.sw.Stats(); s.RxFrames != received+s.Own {
		t.Errorf("%d frames, ports received %d and %d are this host's own", s.RxFrames, received, s.Own)
	}
	r.conserve()
}

func TestReceiverRefusesWhatIsNotThePorts(t *testing.T) {
	r, s := sharedRig(t)
	r.inject(s, tagged(eth(frame.Broadcast, mac(2)), frame.MakeTag(10, 0, false)))
	if r.drops(2, frame.TagNotAccepted) != 1 {
		t.Error("a tag beside a network known otherwise is accepted")
	}
	r.inject(s, eth(frame.Broadcast, mac(99)))
	if got := r.sw.Stats().Drops[frame.PortDown]; got != 1 {
		t.Errorf("a frame of a port that doesn't exist: port_down %d times, want once", got)
	}
	s.vid = 11
	r.inject(s, eth(frame.Broadcast, mac(3)))
	if r.drops(3, frame.VLANNotMember) != 1 {
		t.Error("a frame of a network that the port isn't in is accepted")
	}
	if got := r.heard(); got != nil {
		t.Errorf("heard by %v, want nobody", got)
	}
	r.conserve()
}

// refusing refuses every frame, each for a reason of its own.
type refusing struct {
	*mem.Port
	why []frame.Reason
}

func (refusing) FD() int { return -1 }

func (q refusing) Transmit(b *frame.Batch) (int, error) {
	for i := range b.Frames {
		b.Frames[i].Refused, b.Frames[i].Why = true, q.why[i%len(q.why)]
	}
	return 0, errors.New("not sent")
}

func TestQueueNamesItsReason(t *testing.T) {
	spec := bridge(1)
	spec.Networks[0].MTU = 100
	spec.Ports = append(spec.Ports, vswitch.Port{
		Tagged: []frame.VID{10}, OwnMTU: true,
		Queue: refusing{openPort(t, mem.Options{}), []frame.Reason{frame.NotEncryptedYet}},
	})
	r := start(t, spec)
	r.send(1, append(eth(frame.Broadcast, mac(1)), make([]byte, 200)...))
	if r.drops(2, frame.NotEncryptedYet) != 1 {
		t.Errorf("drops %v, want one not_encrypted_yet and no limit but the queue's own", r.sw.Stats().Drops)
	}
	r.conserve()
}

func TestReceiverFailsOnce(t *testing.T) {
	r, s := sharedRig(t)
	s.fail = errors.New("gone")
	r.inject(s, eth(frame.Broadcast, mac(2)))
	if e := r.event(vswitch.EventPortDown); e.Port != 0 || e.Err != s.fail {
		t.Errorf("event %+v, want port 0 and the receiver's error", e)
	}
	spec := r.spec
	spec.Receivers = nil
	r.apply(spec)
	r.apply(r.spec)
	r.conserve()
}

func TestReceiverSharesNoDescriptor(t *testing.T) {
	r, s := sharedRig(t)
	spec := r.spec
	spec.Receivers = []vswitch.Receiver{s, s}
	if err := r.sw.Apply(spec); err == nil {
		t.Error("two receivers on one descriptor are accepted")
	}
}
