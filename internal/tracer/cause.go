package tracer

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/link"
)

// maxCauses is how many places of a host are asked why a trace ended there.
const maxCauses = 2

// causes says why this host's kernels went no further with packets that they
// took and did neither pass on nor answer.
func (l *lookout) causes(events []trace.Event) []trace.Cause {
	var out []trace.Cause
	explained := map[string]bool{}
	for _, w := range l.walls {
		if c, ok := l.t.wallCause(w); ok {
			out = append(out, c)
			explained[w.place.Port] = true
		}
	}
	asked := map[string]bool{}
	for i := range events {
		e := &events[i]
		if explained[l.portOf(e.Netns)] {
			continue
		}
		if !e.Received() || l.delivered(e) || goesOn(e, events) || len(asked) == maxCauses {
			continue
		}
		port := l.portOf(e.Netns)
		if where := port + "/" + e.Port; !asked[where] {
			asked[where] = true
			out = append(out, l.t.diagnose(keeper.Place{Port: port}, e, &l.key)...)
		}
	}
	return out
}

// delivered reports whether e is the answer where the probe started: nobody
// passes that on.
func (l *lookout) delivered(e *trace.Event) bool {
	return e.Answer() && e.To == l.key.Src.String() && e.Far != "" && l.origin == e.Far
}

// goesOn reports whether a kernel passed e on or answered it. An ICMP error that
// says that the destination is unreachable needs explaining.
func goesOn(e *trace.Event, events []trace.Event) bool {
	for i := range events {
		o := &events[i]
		if o.At != trace.AtOut || o.Netns != e.Netns {
			continue
		}
		passed := o.Answer() == e.Answer() && o.TTL < e.TTL
		answered := o.Answer() && !e.Answer() && (o.Reached() || o.What == trace.TimeExceeded)
		if passed || answered {
			return true
		}
	}
	return false
}

// portOf is the port by which the ear of a namespace was opened.
func (l *lookout) portOf(netns string) string {
	for _, e := range l.ears {
		if e.netns == netns {
			return e.port
		}
	}
	return ""
}

// diagnose asks a kernel what it would do with the packet of e.
func (t *Tracer) diagnose(p keeper.Place, e *trace.Event, k *trace.Key) []trace.Cause {
	f := link.Flow{In: e.Port, Protocol: k.Protocol()}
	var errSrc, errDst error
	f.Src, errSrc = netip.ParseAddr(e.From)
	f.Dst, errDst = netip.ParseAddr(e.To)
	if errSrc != nil || errDst != nil {
		return nil
	}
	where := fmt.Sprintf("%s/%s", t.host.Here().Host, cmp.Or(e.Far, e.Port))
	g, err := t.keeper.Diagnose(keeper.DiagnoseRequest{Place: p, Flow: f})
	if err != nil {
		return []trace.Cause{{What: fmt.Sprintf("%s: what the kernel would do is not known: %v", where, err)}}
	}
	var out []trace.Cause
	for _, found := range g.Findings {
		out = append(out, trace.Cause{What: where + ": " + found.What, Hint: found.Hint})
	}
	if len(out) == 0 && g.Route != nil {
		way := "deliver it here"
		if g.Route.Type == "unicast" {
			way = fmt.Sprintf("pass it on by %s", g.Route.Out)
		}
		out = append(out, trace.Cause{
			What: fmt.Sprintf("%s: routing would %s, so a firewall or the receiving program took it", where, way),
			Hint: "nft list ruleset", Firewall: true,
		})
	}
	return out
}

// unroutable is why a probe could not even leave.
func (t *Tracer) unroutable(o *origin, k *trace.Key) []trace.Cause {
	g, err := t.keeper.Diagnose(keeper.DiagnoseRequest{Place: o.place, Flow: link.Flow{Src: k.Src, Dst: k.Dst, Protocol: k.Protocol()}})
	if err != nil {
		return nil
	}
	var out []trace.Cause
	for _, found := range g.Findings {
		out = append(out, trace.Cause{What: fmt.Sprintf("%s/%s: %s", t.host.Here().Host, o.name, found.What), Hint: found.Hint})
	}
	return out
}
