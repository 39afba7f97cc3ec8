package vswitch

import (
	"fmt"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	// maxNamed bounds the ports that one step names, and maxTunnels the copies
	// by tunnels that are told step by step.
	maxNamed   = 16
	maxTunnels = 4
)

func (x *inquiry) add(stage, what, result string) {
	x.Steps = append(x.Steps, Step{Stage: stage, What: what, Result: result})
}

// classified tells which network the frame is of, or why it is of none.
func (x *inquiry) classified() {
	vid, why := x.view.classify(x.in, x.f, &x.h)
	what := tagText(x.h.Tag) + " on " + x.in.name
	if why == frame.TooShort {
		what = fmt.Sprintf("%d octets on %s", len(x.f.Data), x.in.name)
	}
	if x.f.VID != 0 {
		what = "by its VNI, on " + x.in.name
	}
	if why != frame.ReasonNone {
		x.add("classify", what, "drop: "+why.String())
		return
	}
	x.net = x.view.nets[vid]
	x.add("classify", what, fmt.Sprintf("VLAN %d, network %s", vid, x.net.name))
}

func (x *inquiry) accepted() {
	x.add("filter", fmt.Sprintf("%s is a member of VLAN %d", x.in.name, x.net.vid), "pass")
}

// refused tells what made the frame be dropped as why before it was looked up.
func (x *inquiry) refused(why frame.Reason) {
	what := ""
	switch why {
	case frame.Loop:
		what = x.in.name + " is cut off by the loop guard"
	case frame.TooLong:
		what = fmt.Sprintf("packet of %d octets, %d are the most", max(len(x.f.Data)-x.h.Len, x.f.L3Len(x.h.Len)), maxL3)
	case frame.BadSource:
		what = fmt.Sprintf("source %v", x.h.Src)
	case frame.ReservedGroup:
		what = fmt.Sprintf("destination %v", x.h.Dst)
	case frame.SpoofedSource:
		what = "source " + x.h.Src.String()
		if x.in.pin.IsZero() || x.h.Src == x.in.pin {
			what = "addresses inside the packet"
		}
	case frame.TooShort:
		if x.net == nil {
			return // classify has told
		}
		what = "offload metadata and octets disagree"
	default:
		return
	}
	x.add("filter", what, "drop: "+why.String())
}

func (x *inquiry) learnedNothing(why string) {
	x.add("learn", fmt.Sprintf("%v in VLAN %d", x.h.Src, x.net.vid), "nothing: "+why)
}

// learns tells what learning does with the source.
func (x *inquiry) learns(o fdb.Outcome, old frame.PortID) {
	result := "known on " + x.in.name
	switch o {
	case fdb.Static:
		x.learnedNothing("static entry, port " + x.view.name(old))
		return
	case fdb.PortLimit:
		x.learnedNothing(fmt.Sprintf("%s has its %d entries", x.in.name, x.in.fdbLimit))
		return
	case fdb.Inserted:
		result = "new entry, port " + x.in.name
	case fdb.Moved:
		result = "moves from " + x.view.name(old) + " to " + x.in.name
	}
	x.add("learn", fmt.Sprintf("%v in VLAN %d", x.h.Src, x.net.vid), result)
}

// lookedUp tells what is known of the destination.
func (x *inquiry) lookedUp(d frame.Verdict) {
	if x.known == nil {
		result := d.Reason
		switch {
		case x.h.Dst == frame.Broadcast:
			result = frame.BroadcastAddr
		case x.h.Dst.IsGroup():
			result = frame.MulticastAddr
		case d.Action == frame.Drop:
			result = frame.UnknownUnicast
		}
		x.add("lookup", x.h.Dst.String(), result.String())
		return
	}
	result := "port " + x.known.name
	if e, ok := x.sw.fdb.Entry(fdb.MakeKey(x.net.vid, x.h.Dst)); ok && e.Port == x.known.id {
		if e.Static {
			result += ", static"
		} else {
			now, _ := x.sw.clock.read()
			result += fmt.Sprintf(", seen %v ago", e.Age(x.sw.clock.tick(now)).Truncate(time.Second))
		}
	}
	x.add("lookup", x.h.Dst.String(), result)
	if x.known != x.in && sidelong(x.in, x.known) {
		x.add("mode", x.in.name+" to "+x.known.name, "siblings that the mode keeps apart: by the uplink only")
	}
}

// admitted tells of storm control and loop guard, where the port has them.
func (x *inquiry) admitted(d *frame.Verdict, from *port, why frame.Reason, left int) {
	if x.in.guarded && from == nil {
		result := "pass"
		if why == frame.Loop {
			result = "drop: loop, and the port is cut off"
		}
		x.add("guard", "heard by another port just before?", result)
	}
	rate := x.in.storm[classOf(d.Reason)]
	if rate == 0 || why == frame.Loop {
		return
	}
	result := fmt.Sprintf("pass: %d left now", left)
	if why == frame.Storm {
		result = "drop: storm"
	}
	x.add("storm", fmt.Sprintf("%v limit of %d a second on %s", d.Reason, rate, x.in.name), result)
}

// copied tells who gets a copy, and which members of the network don't and why.
func (x *inquiry) copied(d frame.Verdict, from *port) {
	switch d.Action {
	case frame.Drop:
		x.add("drop", "no copy", d.Reason.Doc())
		return
	case frame.Forward:
		x.add("forward", "copy to port "+x.view.name(d.Out), x.listed())
		return
	}
	x.add("flood", fmt.Sprintf("members of VLAN %d except %s", x.net.vid, x.in.name), x.listed())
	left := map[frame.Reason][]string{}
	for _, m := range x.net.members {
		if why := relay(x.in, m.port, from); why != frame.ReasonNone && m.port != x.in {
			left[why] = append(left[why], m.port.name)
		}
	}
	for why := range frame.NumReasons {
		if names := left[why]; len(names) > 0 {
			x.add("flood", "not to "+named(names), why.String())
		}
	}
}

// listed names the copies.
func (x *inquiry) listed() string {
	var list []string
	for _, c := range x.Copies {
		s := x.view.name(c.Port) + " " + tagText(c.Tag)
		if _, ok := x.Outer[c.Port]; ok {
			s = x.view.name(c.Port)
		}
		if c.Refused != frame.ReasonNone {
			s += " (refused: " + c.Refused.String() + ")"
		}
		list = append(list, s)
	}
	return named(list)
}

func named(list []string) string {
	if n := len(list) - maxNamed; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:maxNamed], ", "), n)
	}
	return strings.Join(list, ", ")
}

// tunnelled takes what the queue of out says of its copy.
func (x *inquiry) tunnelled(out *port, fate frame.Fate) {
	if fate.Outer != nil {
		if x.Outer == nil {
			x.Outer = make(map[frame.PortID]frame.Outer)
		}
		x.Outer[out.id] = *fate.Outer
	}
	switch x.told++; {
	case x.told <= maxTunnels:
		for _, s := range fate.Steps {
			x.via = append(x.via, Step{Stage: s.Stage, What: out.name + ": " + s.What, Result: s.Result})
		}
	case x.told == maxTunnels+1:
		x.via = append(x.via, Step{Stage: "tunnel", What: "further peers", Result: "likewise"})
	}
}

// verdict sums up.
func (x *inquiry) verdict(d frame.Verdict) {
	x.Verdict = d
	refused := 0
	for _, c := range x.Copies {
		if c.Refused != frame.ReasonNone {
			refused++
		}
	}
	sent := len(x.Copies) - refused
	s := fmt.Sprintf("%v, %d copies", d.Reason, sent)
	if sent == 1 {
		s = fmt.Sprintf("%v, 1 copy", d.Reason)
	}
	if refused > 0 {
		s += fmt.Sprintf(", %d refused", refused)
	}
	if d.Action == frame.Drop {
		s = d.Reason.String()
	}
	x.add("verdict", strings.ToUpper(d.Action.String()), s)
}

func (v *view) name(id frame.PortID) string {
	if p := v.port(id); p != nil {
		return p.name
	}
	return fmt.Sprintf("port %d", id)
}

func tagText(t frame.Tag) string {
	if !t.Present() {
		return "untagged"
	}
	return fmt.Sprintf("tagged %d pcp %d", t.VID(), t.PCP())
}
