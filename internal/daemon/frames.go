package daemon

import (
	"fmt"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/capture/dissect"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// frameHead is how many octets of a frame are kept for its line: Ethernet, two
// tags, IPv6 and a TCP header with options.
const frameHead = 128

// frameWatch turns observed frames into events. It watches only while somebody
// reads them.
type frameWatch struct {
	ring    *capture.Ring
	expand  *capture.Expander
	lines   *dissect.Dissector
	publish func(api.Event)
	names   capture.Names
	lost    uint64
	quit    chan struct{}
}

func newFrameWatch(publish func(api.Event), n capture.Names) *frameWatch {
	return &frameWatch{
		ring:   capture.NewRing(capture.Choice{Direction: capture.In, Snap: frameHead}, 1<<20),
		expand: capture.NewExpander(n, false, 0), lines: dissect.New(),
		publish: publish, names: n, quit: make(chan struct{}),
	}
}

// run puts frames into words until quit is closed.
func (w *frameWatch) run() {
	var rec capture.Record
	for {
		if w.ring.Poll(&rec) {
			_ = w.expand.Expand(&rec, w.event) // event has no errors
			continue
		}
		select {
		case <-w.ring.Ready():
		case <-w.quit:
			return
		}
	}
}

func (w *frameWatch) event(p *capture.Packet) error {
	v := p.Verdict
	e := api.Event{
		Time: p.Time, Kind: KindFrame, Port: w.names.Port(p.Port), Network: w.names.Network(v.VID),
		What: fmt.Sprintf("%s: %s (%d octets): %s", w.names.Port(p.Port), w.lines.Line(p.Data), p.Len, p.Decision),
		Fields: map[string]any{
			"action": v.Action.String(), "reason": v.Reason.String(), "vlan": int(v.VID), "length": p.Len,
			"decision": p.Decision, "learned": v.Fresh,
		},
	}
	if h, ok := frame.Parse(p.Data); ok {
		e.MAC = h.Src.String()
		e.Fields["src_mac"], e.Fields["dst_mac"] = h.Src.String(), h.Dst.String()
	}
	if lost := w.ring.LostAll(); lost > w.lost {
		e.Fields["missed_before"] = lost - w.lost
		w.lost = lost
	}
	w.publish(e)
	return nil
}
