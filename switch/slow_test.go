package vswitch_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/fdb"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
)

// outcome is what became of one frame.
type outcome struct {
	Action frame.Action
	Reason frame.Reason
	Out    frame.PortID
	Copies []vswitch.Copy
}

// slow is the readable twin of classify, filter, learn and decide: a few rules
// over maps, with nothing compiled.
type slow struct {
	spec vswitch.Spec
	fdb  map[station]frame.PortID
}

type station struct {
	vid frame.VID
	mac frame.MAC
}

func (s *slow) port(id frame.PortID) *vswitch.Port { return &s.spec.Ports[id-1] }

// network classifies a frame.
func (s *slow) network(p *vswitch.Port, t frame.Tag) (frame.VID, frame.Reason) {
	if !t.Present() || t.VID() == 0 {
		if p.Native == 0 {
			return 0, frame.VLANNotMember
		}
		return p.Native, frame.ReasonNone
	}
	if t.VID() == 4095 {
		return 0, frame.VIDReservedValue
	}
	if len(p.Tagged) == 0 {
		return 0, frame.TagNotAccepted
	}
	if t.VID() != p.Native && !slices.Contains(p.Tagged, t.VID()) {
		return 0, frame.VLANNotMember
	}
	return t.VID(), frame.ReasonNone
}

// may says whether a frame of in may leave by out; from is the sibling whose
// frame it is, when an uplink reflected it.
func (s *slow) may(in, out, from *vswitch.Port) frame.Reason {
	if in == out && !in.Hairpin {
		return frame.SamePort
	}
	if in.Isolated && out.Isolated {
		return frame.Isolated
	}
	if in.Group > 0 && in.Group == out.Group {
		return frame.SplitHorizon
	}
	siblings := !in.Uplink && !out.Uplink
	if siblings && !(in.Mode == vswitch.ModeBridge && out.Mode == vswitch.ModeBridge) {
		return frame.SplitHorizon
	}
	if from == nil || out.Uplink {
		return frame.ReasonNone
	}
	if out == from {
		return frame.SamePort
	}
	ok := map[[2]vswitch.Mode]bool{
		{vswitch.ModeVEPA, vswitch.ModeVEPA}:   true,
		{vswitch.ModeVEPA, vswitch.ModeBridge}: true,
		{vswitch.ModeBridge, vswitch.ModeVEPA}: true,
	}
	if !ok[[2]vswitch.Mode{from.Mode, out.Mode}] {
		return frame.SplitHorizon
	}
	return frame.ReasonNone
}

func (s *slow) forward(id frame.PortID, data []byte) outcome {
	in := s.port(id)
	h, _ := frame.Parse(data)
	vid, why := s.network(in, h.Tag)
	drop := func(r frame.Reason) outcome { return outcome{Reason: r} }
	if why != frame.ReasonNone {
		return drop(why)
	}
	if h.Src.IsGroup() {
		return drop(frame.BadSource)
	}
	members := map[frame.PortID]bool{} // tagged?
	var order, uplinks []frame.PortID
	reflects := false
	for _, p := range s.spec.Ports {
		if tagged := slices.Contains(p.Tagged, vid); tagged || p.Native == vid {
			members[p.ID] = tagged && p.Native != vid
			order = append(order, p.ID)
			if p.Uplink {
				uplinks = append(uplinks, p.ID)
			} else if p.Mode != vswitch.ModeBridge {
				reflects = true
			}
		}
	}
	var from *vswitch.Port
	if was, ok := s.fdb[station{vid, h.Src}]; ok && reflects && in.Uplink && !s.port(was).Uplink {
		from = s.port(was)
	} else {
		s.fdb[station{vid, h.Src}] = id
	}
	copyTo := func(id frame.PortID) vswitch.Copy {
		c := vswitch.Copy{Port: id}
		if members[id] {
			c.Tag = frame.MakeTag(vid, h.Tag.PCP(), h.Tag.DEI())
		}
		if mtu := s.spec.Networks[vid/10-1].MTU; mtu > 0 && len(data)-h.Len > mtu {
			c.Refused = frame.MTUExceeded
		}
		if s.port(id).Queue == nil {
			c.Refused = frame.EgressDown
		}
		return c
	}
	reason := frame.UnknownUnicast
	if h.Dst == frame.Broadcast {
		reason = frame.BroadcastAddr
	} else if h.Dst.IsGroup() {
		reason = frame.MulticastAddr
	} else if out, ok := s.fdb[station{vid, h.Dst}]; ok {
		p := s.port(out)
		apart := out != id && !in.Uplink && !p.Uplink && (in.Mode != vswitch.ModeBridge || p.Mode != vswitch.ModeBridge)
		if apart && len(uplinks) == 0 {
			return drop(frame.SplitHorizon)
		}
		if apart && len(uplinks) == 1 {
			out = uplinks[0]
		}
		if !apart || len(uplinks) == 1 {
			if why := s.may(in, s.port(out), from); why != frame.ReasonNone {
				return drop(why)
			}
			return outcome{frame.Forward, frame.KnownUnicast, out, []vswitch.Copy{copyTo(out)}}
		}
	}
	o := outcome{Action: frame.Flood, Reason: reason}
	refusal := frame.NoEgress
	for _, m := range order {
		switch why := s.may(in, s.port(m), from); {
		case why == frame.ReasonNone:
			o.Copies = append(o.Copies, copyTo(m))
		case refusal == frame.NoEgress && why != frame.SamePort:
			refusal = why
		}
	}
	if len(o.Copies) == 0 {
		return drop(refusal)
	}
	return o
}

// seen is what the loop did, as an observer sees it.
type seen struct{ last chan outcome }

// Observe leaves what nobody takes, as happens in a test that has failed, so that
// the switch goes on.
func (s seen) Observe(o *vswitch.Observation) {
	select {
	case s.last <- outcome{o.Verdict.Action, o.Verdict.Reason, o.Verdict.Out, slices.Clone(o.Copies)}:
	case <-time.After(patience):
	}
}

// next is what the loop does next.
func (s seen) next(t *rapid.T) (o outcome) {
	select {
	case o = <-s.last:
	case <-time.After(patience):
		t.Fatal("nothing happens")
	}
	return o
}

// drawSpec makes a spec of up to six ports in three networks; about one in
// eight is down.
func drawSpec(t *rapid.T, queues []*mem.Port) vswitch.Spec {
	s := vswitch.Spec{Networks: []vswitch.Network{{Name: "blue", VID: 10}, {Name: "red", VID: 20, MTU: 68}, {Name: "grey", VID: 30}}}
	vids := []frame.VID{10, 20, 30}
	alsoModes := rapid.Bool().Draw(t, "modes")
	for i := range rapid.IntRange(1, len(queues)).Draw(t, "ports") {
		p := vswitch.Port{ID: frame.PortID(i + 1), Name: fmt.Sprint("p", i+1)}
		p.Native = rapid.SampledFrom([]frame.VID{0, 10, 10, 10, 20}).Draw(t, "native")
		for _, v := range vids {
			if rapid.IntRange(0, 3).Draw(t, "tagged") == 0 {
				p.Tagged = append(p.Tagged, v)
			}
		}
		odds := rapid.Uint16().Draw(t, "odds")
		p.Isolated = odds&3 == 0
		p.Hairpin = odds&12 == 0
		p.Uplink = alsoModes && odds&48 == 0
		if alsoModes {
			p.Mode = vswitch.Mode((odds >> 6 & 3) % 3)
		}
		if odds&0x700 == 0 {
			p.Group = 1
		}
		if odds&0x3800 != 0 || i == 0 {
			p.Queue = queues[i]
		}
		s.Ports = append(s.Ports, p)
	}
	return s
}

func drawFrame(t *rapid.T) []byte {
	dst := rapid.SampledFrom([]frame.MAC{mac(1), mac(2), mac(3), mac(4), frame.Broadcast, multicast}).Draw(t, "dst")
	src := rapid.SampledFrom([]frame.MAC{mac(1), mac(2), mac(3), mac(4), mac(1), mac(2), multicast}).Draw(t, "src")
	f := eth(dst, src)
	if rapid.IntRange(0, 4).Draw(t, "long") == 0 {
		f = append(f, make([]byte, 40)...)
	}
	if tci := rapid.SampledFrom([]int{-1, -1, -1, 0, 0xa000, 10, 0x700a, 20, 30, 40, 4095}).Draw(t, "tci"); tci >= 0 {
		f = tagged(f, frame.Tag{TPID: frame.EtherTypeCTag, TCI: uint16(tci)})
	}
	return f
}

// TestLoopExplainAndTwinAgree sends random frames into switches of random specs
// and compares what Explain said before, what the loop did, and the slow twin:
// 100 specs of 120 frames in a normal run.
func TestLoopExplainAndTwinAgree(t *testing.T) {
	r := start(t, vswitch.Spec{})
	for range 6 {
		r.ports = append(r.ports, openPort(t, mem.Options{Discard: true}))
	}
	watch := seen{make(chan outcome, 1)}
	r.sw.Observe(watch)
	defer r.sw.Unobserve(watch)
	cases := 0
	rapid.Check(t, func(t *rapid.T) {
		spec := drawSpec(t, r.ports)
		r.apply(vswitch.Spec{})
		select {
		case <-watch.last: // of a check that has failed
		default:
		}
		r.table.Flush(fdb.Filter{})
		r.apply(spec)
		twin := &slow{spec: spec, fdb: make(map[station]frame.PortID)}
		var up []frame.PortID
		for _, p := range spec.Ports {
			if p.Queue != nil {
				up = append(up, p.ID)
			}
		}
		for range 120 {
			in, f := rapid.SampledFrom(up).Draw(t, "in"), drawFrame(t)
			x := r.sw.Explain(in, frame.Frame{Data: f})
			explained := outcome{x.Verdict.Action, x.Verdict.Reason, x.Verdict.Out, x.Copies}
			r.ports[in-1].Inject(f)
			done, want := watch.next(t), twin.forward(in, f)
			if len(done.Copies) == 0 {
				done.Copies = nil
			}
			if d := cmp.Diff(want, done); d != "" {
				t.Fatalf("frame %x at port %d of %+v: twin (-), loop (+):\n%s", f[:18], in, spec.Ports, d)
			}
			if d := cmp.Diff(explained, done); d != "" {
				t.Fatalf("frame %x at port %d of %+v: explained (-), loop (+):\n%s", f[:18], in, spec.Ports, d)
			}
			cases++
		}
	})
	r.conserve()
	if cases < 10_000 {
		t.Errorf("compared %d cases, want 10,000 or more", cases)
	}
}

func TestExplain(t *testing.T) {
	r := start(t, bridge(3))
	r.send(2, eth(frame.Broadcast, mac(2)))
	before := r.sw.Stats()
	x := r.sw.Explain(1, frame.Frame{Data: eth(mac(2), mac(1))})
	want := vswitch.Explanation{
		Steps: []vswitch.Step{
			{Stage: "classify", What: "untagged on p1", Result: "VLAN 10, network blue"},
			{Stage: "filter", What: "p1 is a member of VLAN 10", Result: "pass"},
			{Stage: "learn", What: "02:00:00:00:00:01 in VLAN 10", Result: "new entry, port p1"},
			{Stage: "lookup", What: "02:00:00:00:00:02", Result: "port p2, seen 0s ago"},
			{Stage: "forward", What: "copy to port p2", Result: "p2 untagged"},
			{Stage: "verdict", What: "FORWARD", Result: "known_unicast, 1 copy"},
		},
		Verdict: frame.Verdict{Action: frame.Forward, Reason: frame.KnownUnicast, VID: 10, Out: 2, Fresh: true},
		Copies:  []vswitch.Copy{{Port: 2}},
	}
	if d := cmp.Diff(want, x); d != "" {
		t.Errorf("explanation: want (-), got (+):\n%s", d)
	}
	if x := r.sw.Explain(1, frame.Frame{Data: eth(mac(1), mac(1))}); x.Verdict.Reason != frame.SamePort {
		t.Errorf("to its own address: got %v, want same_port, as after learning", x.Verdict.Reason)
	}
	if x := r.sw.Explain(9, frame.Frame{Data: eth(mac(1), mac(1))}); x.Verdict.Reason != frame.PortDown {
		t.Errorf("of no port: got %v, want port_down", x.Verdict.Reason)
	}
	if after := r.sw.Stats(); after.RxFrames != before.RxFrames || r.table.Len() != 1 {
		t.Error("explaining had an effect")
	}
}
