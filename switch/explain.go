package vswitch

import (
	"fmt"
	"strings"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Step is one stage of an explanation.
type Step struct {
	Stage  string // classify, filter, learn, lookup, then drop, forward or flood, and verdict
	What   string
	Result string
}

// Explanation is what the switch would do with a frame.
type Explanation struct {
	Steps   []Step
	Verdict frame.Verdict
	Copies  []Copy
}

// recorder is what decide is told and tells when somebody asks instead of a
// frame coming in. A nil recorder records nothing.
type recorder struct {
	// learned is set when the frame's source would be learned first.
	learned bool
	steps   []Step
}

func (r *recorder) add(stage, what, result string) {
	r.steps = append(r.steps, Step{stage, what, result})
}

// Explain tells what would happen to the frame that begins at data if it came
// in by port in now, by the functions that the loops run. Nothing is sent,
// learned or counted, and storm control is taken to let it pass. The look-up is
// made in the table as it would be after learning. A port that does not exist
// drops everything as port_down.
func (s *Switch) Explain(in frame.PortID, data []byte, g frame.GSO) Explanation {
	v := s.view.Load()
	p := v.port(in)
	if p == nil {
		r := frame.PortDown
		rec := recorder{steps: []Step{{"classify", fmt.Sprintf("port %d", in), "no port has this ID"}, {"verdict", "DROP", r.String()}}}
		return Explanation{Steps: rec.steps, Verdict: frame.Verdict{Reason: r}}
	}
	f := frame.Frame{Data: data, GSO: g}
	var h frame.Header
	var rec recorder
	vid, why := v.classify(p, &f, &h)
	d := frame.Verdict{VID: vid, Reason: why}
	rec.classified(p, v, &h, d)
	if why == frame.ReasonNone {
		if d.Reason = p.filter(v.nets[vid], &f, &h); p.state.fence.cut.Load() {
			d.Reason = frame.Loop
		}
		rec.filtered(p, v.nets[vid], d.Reason)
	} else if p.state.fence.cut.Load() {
		d.Reason = frame.Loop
	}
	var copies []Copy
	if d.Reason == frame.ReasonNone {
		fresh := s.wouldLearn(v, p, vid, &h, &rec)
		var from *port
		d, from = v.decide(s.fdb, p, vid, &h, &rec)
		d.Fresh = fresh
		rec.lookedUp(v, &h, d)
		copies = v.copies(p, from, &f, &h, d)
		rec.copied(v, p, d, copies)
	}
	rec.add("verdict", strings.ToUpper(d.Action.String()), verdictLine(d, copies))
	return Explanation{Steps: rec.steps, Verdict: d, Copies: copies}
}

// copies are those that the loop would send for verdict d.
func (v *view) copies(in, from *port, f *frame.Frame, h *frame.Header, d frame.Verdict) []Copy {
	var list []Copy
	n := v.nets[d.VID]
	add := func(out *port, tagged bool) {
		pop, push, why := out.carry(n, tagged, f, h)
		list = append(list, Copy{Port: out.id, Tag: wireTag(h, pop, push), Refused: why})
	}
	switch d.Action {
	case frame.Forward:
		out := v.ports[d.Out]
		tagged, _ := out.carries(n.vid)
		add(out, tagged)
	case frame.Flood:
		for _, m := range n.members {
			if relay(in, m.port, from) == frame.ReasonNone {
				add(m.port, m.tagged)
			}
		}
	}
	return list
}

// wouldLearn records what learning would do and reports whether the frame would
// make or move an entry. Limits of the table are not foreseen.
func (s *Switch) wouldLearn(v *view, in *port, vid frame.VID, h *frame.Header, rec *recorder) bool {
	what := fmt.Sprintf("%v in VLAN %d", h.Src, vid)
	if from := v.reflected(s.fdb, v.nets[vid], in, h); from != nil {
		rec.add("learn", what, "nothing: reflected, the station is on "+from.name)
		return false
	}
	e, ok := s.fdb.Entry(fdb.MakeKey(vid, h.Src))
	switch {
	case !ok:
		rec.learned = true
		rec.add("learn", what, "new entry, port "+in.name)
	case e.Port == in.id:
		rec.learned = true
		rec.add("learn", what, "known on "+in.name)
		return false
	case e.Static:
		rec.add("learn", what, "nothing: static entry, port "+v.name(e.Port))
		return false
	default:
		rec.learned = true
		rec.add("learn", what, "moves from "+v.name(e.Port)+" to "+in.name)
	}
	return true
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

func passOr(r frame.Reason) string {
	if r == frame.ReasonNone {
		return "pass"
	}
	return "drop: " + r.String()
}

func (r *recorder) classified(p *port, v *view, h *frame.Header, d frame.Verdict) {
	if d.Reason != frame.ReasonNone {
		r.add("classify", tagText(h.Tag)+" on "+p.name, passOr(d.Reason))
		return
	}
	r.add("classify", tagText(h.Tag)+" on "+p.name, fmt.Sprintf("VLAN %d, network %s", d.VID, v.nets[d.VID].name))
}

func (r *recorder) filtered(p *port, n *network, why frame.Reason) {
	r.add("filter", fmt.Sprintf("%s is a member of VLAN %d", p.name, n.vid), passOr(why))
}

func (r *recorder) lookedUp(v *view, h *frame.Header, d frame.Verdict) {
	result := d.Reason.String()
	if d.Action == frame.Forward {
		result = "port " + v.name(d.Out)
	}
	r.add("lookup", h.Dst.String(), result)
}

func (r *recorder) copied(v *view, in *port, d frame.Verdict, copies []Copy) {
	what := "copy to port " + v.name(d.Out)
	switch d.Action {
	case frame.Drop:
		r.add("drop", "", d.Reason.Doc())
		return
	case frame.Flood:
		what = fmt.Sprintf("members of VLAN %d except %s", d.VID, in.name)
	}
	var list []string
	for _, c := range copies {
		s := v.name(c.Port) + " " + tagText(c.Tag)
		if c.Refused != frame.ReasonNone {
			s += " (refused: " + c.Refused.String() + ")"
		}
		list = append(list, s)
	}
	r.add(d.Action.String(), what, strings.Join(list, ", "))
}

func verdictLine(d frame.Verdict, copies []Copy) string {
	refused := 0
	for _, c := range copies {
		if c.Refused != frame.ReasonNone {
			refused++
		}
	}
	s := fmt.Sprintf("%v, %d copies", d.Reason, len(copies)-refused)
	if len(copies)-refused == 1 {
		s = fmt.Sprintf("%v, 1 copy", d.Reason)
	}
	if refused > 0 {
		s += fmt.Sprintf(", %d refused", refused)
	}
	return s
}
