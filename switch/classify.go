package vswitch

import "github.com/tapestry-net/tapestry/switch/frame"

// classify parses the header of f into h and finds the network that a frame
// heard on p belongs to (IEEE 802.1Q-2022 clauses 6.9 and 8.6.2). A reason
// other than ReasonNone drops the frame.
//
// A tag of VID 0 carries priority only: the frame belongs to the native
// network, as an untagged one does. A tag that is not 802.1Q's is payload. A
// receiver that knows the network by other means than a tag has set f.VID.
//
// Hot path: no allocation.
func (v *view) classify(p *port, f *frame.Frame, h *frame.Header) (frame.VID, frame.Reason) {
	var ok bool
	if *h, ok = frame.Parse(f.Data); !ok {
		return 0, frame.TooShort
	}
	vid := h.Tag.VID()
	switch {
	case f.VID != 0:
		if h.Tag.Present() {
			return 0, frame.TagNotAccepted
		}
		if _, ok := p.carries(f.VID); !ok || !f.VID.Valid() {
			return 0, frame.VLANNotMember
		}
		return f.VID, frame.ReasonNone
	case !h.Tag.Present() || vid == frame.VIDPriority:
		if p.native == frame.VIDReserved {
			return 0, frame.VLANNotMember
		}
		return p.native, frame.ReasonNone
	case vid == frame.VIDReserved:
		return 0, frame.VIDReservedValue
	case p.tagged == nil:
		return 0, frame.TagNotAccepted
	}
	if _, ok := p.carries(vid); !ok {
		return 0, frame.VLANNotMember
	}
	return vid, frame.ReasonNone
}

// accept is all that is asked of a frame before its source is learned: it
// classifies the frame and says why it must not come in, or ReasonNone.
//
// Hot path: no allocation.
func (v *view) accept(p *port, f *frame.Frame, h *frame.Header) (frame.VID, frame.Reason) {
	vid, why := v.classify(p, f, h)
	switch {
	case p.state.fence.cut.Load():
		why = frame.Loop
	case p == v.stray:
		why = frame.PortDown
	case why == frame.ReasonNone:
		why = p.filter(v.nets[vid], f, h)
	}
	return vid, why
}
