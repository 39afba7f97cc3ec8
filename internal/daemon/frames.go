package daemon

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tapestry-net/tapestry/capture/dissect"
	"github.com/tapestry-net/tapestry/internal/api"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	// frameHead is how many octets of a frame are kept for its line: Ethernet,
	// two tags, IPv6 and a TCP header with options.
	frameHead = 128
	// frameCopies is how many copies of a flood are named; the rest are counted.
	frameCopies = 8
	// frameDepth is how many frames may wait to be put into words.
	frameDepth = 1024
)

// frameNote is what the loop leaves behind of one frame.
type frameNote struct {
	o      vswitch.Observation // without Frame and Copies, which stay the loop's
	len    int
	head   [frameHead]byte
	kept   int
	copies [frameCopies]vswitch.Copy
	named  int
	more   int
}

// frameWatch turns observed frames into events. It watches only while somebody
// reads them.
type frameWatch struct {
	notes   chan frameNote
	missed  atomic.Uint64
	publish func(api.Event)
	names   func() names
	done    sync.WaitGroup
}

func newFrameWatch(publish func(api.Event), names func() names) *frameWatch {
	return &frameWatch{notes: make(chan frameNote, frameDepth), publish: publish, names: names}
}

// Observe implements vswitch.Observer. It copies the frame's head and never
// waits: what the reader can't take in time is counted.
func (w *frameWatch) Observe(o *vswitch.Observation) {
	n := frameNote{o: vswitch.Observation{Time: o.Time, In: o.In, Verdict: o.Verdict}, len: len(o.Frame.Data)}
	n.kept = copy(n.head[:], o.Frame.Data)
	n.named = copy(n.copies[:], o.Copies)
	n.more = len(o.Copies) - n.named
	select {
	case w.notes <- n:
	default:
		w.missed.Add(1)
	}
}

// run puts notes into words until the channel is closed.
func (w *frameWatch) run() {
	d := dissect.New()
	for n := range w.notes {
		w.publish(w.event(d, &n))
	}
}

func (w *frameWatch) event(d *dissect.Dissector, n *frameNote) api.Event {
	names := w.names()
	v := n.o.Verdict
	decision := decisionText(names, v, n.copies[:n.named], n.more)
	e := api.Event{
		Time: n.o.Time, Kind: KindFrame, Port: names.port(n.o.In), Network: names.network(v.VID),
		What: fmt.Sprintf("%s: %s (%d octets): %s", names.port(n.o.In), d.Line(n.head[:n.kept]), n.len, decision),
		Fields: map[string]any{
			"action": v.Action.String(), "reason": v.Reason.String(), "vlan": int(v.VID), "length": n.len,
			"decision": decision, "learned": v.Fresh,
		},
	}
	if h, ok := frame.Parse(n.head[:n.kept]); ok {
		e.MAC = h.Src.String()
		e.Fields["src_mac"], e.Fields["dst_mac"] = h.Src.String(), h.Dst.String()
	}
	if m := w.missed.Swap(0); m > 0 {
		e.Fields["missed_before"] = m
	}
	return e
}

// decisionText is the one form in which a verdict is written everywhere:
//
//	flood blue unknown_unicast → c2,c3
//	drop tag_not_accepted
func decisionText(n names, v frame.Verdict, copies []vswitch.Copy, more int) string {
	var b strings.Builder
	b.WriteString(v.Action.String())
	if v.VID != 0 {
		fmt.Fprintf(&b, " %s", n.network(v.VID))
	}
	fmt.Fprintf(&b, " %s", v.Reason)
	for i, c := range copies {
		if i == 0 {
			b.WriteString(" → ")
		} else {
			b.WriteByte(',')
		}
		b.WriteString(n.port(c.Port))
		if c.Refused != frame.ReasonNone {
			fmt.Fprintf(&b, "(%s)", c.Refused)
		}
	}
	if more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}
