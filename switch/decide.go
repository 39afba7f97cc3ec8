package vswitch

import (
	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// decide says what becomes of a frame of network vid that came in by in and
// passed every filter. It depends on the view, the table and the frame's header
// alone, and changes nothing. The loop passes no recorder.
//
// The second result is the sibling whose own frame the uplink reflected, nil
// for any other frame; relay needs it for each member of a flood.
//
// Hot path: no allocation.
func (v *view) decide(t *fdb.Table, in *port, vid frame.VID, h *frame.Header, rec *recorder) (frame.Verdict, *port) {
	n := v.nets[vid]
	from := v.reflected(t, n, in, h)
	d := frame.Verdict{VID: vid, Reason: frame.UnknownUnicast}
	switch {
	case h.Dst == frame.Broadcast:
		d.Reason = frame.BroadcastAddr
	case h.Dst.IsGroup():
		d.Reason = frame.MulticastAddr
	default:
		out := v.station(t, vid, h, in, rec)
		if out != nil && out != in && sidelong(in, out) {
			// A sibling that the mode keeps apart is reached by the uplink.
			switch len(n.uplinks) {
			case 0:
				d.Reason = frame.SplitHorizon
				return d, from
			case 1:
				out = n.uplinks[0]
			default:
				out = nil
			}
		}
		if out == nil {
			break
		}
		if why := relay(in, out, from); why != frame.ReasonNone {
			d.Reason = why
			return d, from
		}
		d.Action, d.Reason, d.Out = frame.Forward, frame.KnownUnicast, out.id
		return d, from
	}
	why := frame.NoEgress
	for i := range n.members {
		switch r := relay(in, n.members[i].port, from); {
		case r == frame.ReasonNone:
			d.Action = frame.Flood
			return d, from
		case why == frame.NoEgress && r != frame.SamePort:
			why = r
		}
	}
	d.Reason = why
	return d, from
}

// station is the port behind which the destination is known to be, nil when it
// is not known or no longer a member of the network.
func (v *view) station(t *fdb.Table, vid frame.VID, h *frame.Header, in *port, rec *recorder) *port {
	if rec != nil && rec.learned && h.Dst == h.Src {
		rec.known = in
		return in // the table is as it would be after learning
	}
	id, ok := t.Lookup(fdb.MakeKey(vid, h.Dst))
	if !ok {
		return nil
	}
	p := v.port(id)
	if p == nil {
		return nil
	}
	if _, ok := p.carries(vid); !ok {
		return nil
	}
	if rec != nil {
		rec.known = p
	}
	return p
}

// reflected returns the sibling whose frame comes back by an uplink, in a
// network where the neighbouring bridge reflects (IEEE 802.1Qbg clause 40,
// reflective relay). Such a frame teaches nothing: its source is where it was.
func (v *view) reflected(t *fdb.Table, n *network, in *port, h *frame.Header) *port {
	if !n.reflects || !in.uplink {
		return nil
	}
	id, ok := t.Lookup(fdb.MakeKey(n.vid, h.Src))
	if !ok {
		return nil
	}
	p := v.port(id)
	if p == nil || p.uplink {
		return nil
	}
	return p
}

// sidelong reports whether a frame would go from sibling to sibling against the
// mode of either.
func sidelong(in, out *port) bool {
	return !in.uplink && !out.uplink && (in.mode != ModeBridge || out.mode != ModeBridge)
}

// relay says whether a frame from in may leave by out: ReasonNone, or why not.
// From is the sibling that reflected returned.
//
// Hot path: no allocation.
func relay(in, out, from *port) frame.Reason {
	switch {
	case out == in && !in.hairpin:
		return frame.SamePort
	case in.isolated && out.isolated:
		return frame.Isolated
	case in.group != 0 && in.group == out.group:
		return frame.SplitHorizon
	case sidelong(in, out):
		return frame.SplitHorizon
	case from == nil || out.uplink:
		return frame.ReasonNone
	case out == from:
		return frame.SamePort
	case from.mode == ModePrivate || out.mode == ModePrivate:
		return frame.SplitHorizon
	case from.mode == ModeBridge && out.mode == ModeBridge:
		return frame.SplitHorizon // heard it directly, before it was reflected
	}
	return frame.ReasonNone
}
