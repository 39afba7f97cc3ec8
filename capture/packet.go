package capture

import (
	"fmt"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Names are the users' names for the switch's numbers.
type Names struct {
	Port    func(frame.PortID) string
	Network func(frame.VID) string
}

// Decision is the one form in which a verdict is written everywhere:
//
//	flood blue unknown_unicast → c2,c3(mtu_exceeded)
//	drop tag_not_accepted
//
// More copies than are given are only counted. The zero verdict is that of a
// packet that the switch has not decided about, and is no decision.
func Decision(n Names, v frame.Verdict, copies []frame.Copy, more int) string {
	if v == (frame.Verdict{}) {
		return "" // nobody decided
	}
	var b strings.Builder
	b.WriteString(v.Action.String())
	if v.VID != 0 {
		fmt.Fprintf(&b, " %s", n.Network(v.VID))
	}
	fmt.Fprintf(&b, " %s", v.Reason)
	for i, c := range copies {
		if i == 0 {
			b.WriteString(" → ")
		} else {
			b.WriteByte(',')
		}
		b.WriteString(n.Port(c.Port))
		if c.Refused != frame.ReasonNone {
			fmt.Fprintf(&b, "(%s)", c.Refused)
		}
	}
	if more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}

// Packet is one frame on one wire: as a port received it, or one copy as a port
// sent it or should have.
type Packet struct {
	Time      time.Time
	Port      frame.PortID
	Direction Direction
	Data      []byte // with its tag, up to the snap length
	Len       int    // octets it has or had
	Verdict   frame.Verdict
	Refused   frame.Reason // of a copy that did not leave
	Decision  string
	Note      string // what the octets don't show; may be empty
}

// Expander makes packets of records.
type Expander struct {
	names   Names
	segment bool
	snap    int

	egress *offload.Egress
	wire   *frame.Batch
	buf    []byte
	copies []frame.Copy
}

// NewExpander returns an Expander. With segment, GSO frames are cut to what
// stands on a wire and partial checksums are completed; the ring must then keep
// whole frames. snap bounds the octets of each packet; 0 = all.
func NewExpander(n Names, segment bool, snap int) *Expander {
	return &Expander{names: n, segment: segment, snap: snap, egress: offload.NewEgress(), wire: frame.NewBatch(0)}
}

// Expand calls emit with each wanted packet of rec, and stops at its first error.
func (x *Expander) Expand(rec *Record, emit func(*Packet) error) error {
	x.copies = x.copies[:0]
	for _, c := range rec.Copies[:min(len(rec.Copies), Named)] {
		x.copies = append(x.copies, c.Copy)
	}
	p := Packet{
		Time: rec.Time, Port: rec.In, Direction: In, Verdict: rec.Verdict,
		Decision: Decision(x.names, rec.Verdict, x.copies, len(rec.Copies)-len(x.copies)+rec.More),
	}
	tag := tagOf(rec.Data)
	f := frame.Frame{Data: rec.Data, GSO: rec.GSO, Copies: 1}
	if rec.Wanted {
		if err := x.emit(&p, rec, f, emit); err != nil {
			return err
		}
	}
	for _, c := range rec.Copies {
		if !c.Wanted {
			continue
		}
		p.Port, p.Direction, p.Refused = c.Port, Out, c.Refused
		retag(&f, tag, c.Tag)
		if err := x.emit(&p, rec, f, emit); err != nil {
			return err
		}
	}
	return nil
}

// emit emits one copy, whole or in segments.
func (x *Expander) emit(p *Packet, rec *Record, f frame.Frame, emit func(*Packet) error) error {
	plain := f.GSO.Type == frame.GSONone && !f.GSO.NeedsCsum
	p.Note = ""
	if plain || !x.segment || len(rec.Data) < rec.Len {
		if !plain {
			p.Note = note(&f, rec.Len)
		}
		return x.send(p, &f, rec.Len-len(rec.Data), emit)
	}
	in := []frame.Frame{f}
	for tries := 0; !in[0].Refused && tries < maxSegments; tries++ {
		x.wire.Reset()
		n := x.egress.Plan(in, 0, false, x.wire)
		for i := range x.wire.Frames {
			if err := x.send(p, &x.wire.Frames[i], 0, emit); err != nil {
				return err
			}
		}
		if n > 0 && !in[0].Refused {
			return nil
		}
	}
	p.Note = "can't be cut: " + note(&f, rec.Len)
	return x.send(p, &f, 0, emit)
}

// maxSegments bounds how often a frame is planned: each time 64 segments come out.
const maxSegments = frame.MaxLen / frame.BatchLen

// PartialChecksum is the Note of a frame whose sender left the checksum to a
// network card, as all senders on this host do.
const PartialChecksum = "partial checksum"

// note says what the octets of a frame with offload metadata stand for.
func note(f *frame.Frame, length int) string {
	if f.GSO.Type == frame.GSONone {
		return PartialChecksum
	}
	size := max(int(f.GSO.Size), 1)
	return fmt.Sprintf("GSO frame of %d segments of %d octets", (max(length-int(f.GSO.HdrLen), 1)+size-1)/size, size)
}

// send emits f with its tag changes carried out; missing octets were not kept.
func (x *Expander) send(p *Packet, f *frame.Frame, missing int, emit func(*Packet) error) error {
	p.Len = f.Len() + missing
	p.Data = f.Data
	if f.Pop || f.Push.Present() || len(f.Frags) > 0 {
		x.buf = wireBytes(x.buf[:0], f)
		p.Data = x.buf
	}
	if x.snap > 0 {
		p.Data = p.Data[:min(len(p.Data), max(x.snap, MinSnap))]
	}
	return emit(p)
}

// wireBytes appends f as it stands on the wire.
func wireBytes(b []byte, f *frame.Frame) []byte {
	const addrs = 12
	data := f.Data
	if f.Pop || f.Push.Present() {
		b = append(b, data[:addrs]...)
		if f.Push.Present() {
			b = append(b, byte(f.Push.TPID>>8), byte(f.Push.TPID), byte(f.Push.TCI>>8), byte(f.Push.TCI))
		}
		data = data[addrs:]
		if f.Pop {
			data = data[frame.TagLen:]
		}
	}
	b = append(b, data...)
	for _, p := range f.Frags {
		b = append(b, p...)
	}
	return b
}
