package vswitch

import (
	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// learn notes the sources of the batch's frames that passed the filters and
// are not mute. It
// runs for the whole batch before the first look-up, so the last place where a
// station was seen in a batch holds for all of the batch.
//
// Hot path: no allocation.
func (l *loop) learn(v *view, b *frame.Batch) {
	var last fdb.Key
	var before *port
	for i := range b.Frames {
		d, h, in := &l.verdicts[i], &l.headers[i], l.ins[i]
		if d.Reason != frame.ReasonNone || !b.Frames[i].Teaches() {
			continue
		}
		key := fdb.MakeKey(d.VID, h.Src)
		if key == last && in == before || v.reflected(l.sw.fdb, v.nets[d.VID], in, h) != nil {
			continue
		}
		last, before = key, in
		l.teacher.Len, l.teacher.Head = len(b.Frames[i].Data), b.Frames[i].Data
		switch outcome, old := l.sw.fdb.Learn(key, in.id, l.tick, &l.teacher); outcome {
		case fdb.Inserted:
			d.Fresh = true
		case fdb.Moved:
			d.Fresh = true
			l.cells.stations.add(1)
			l.tellMove(in, old, d.VID, h.Src)
		}
	}
	l.teacher.Head = nil
}

// tellMove emits a station move, or counts it when the port had one lately.
func (l *loop) tellMove(in *port, old frame.PortID, vid frame.VID, m frame.MAC) {
	s := in.state
	if s.moveTold != 0 && l.now-s.moveTold < moveEvery {
		s.moves++
		return
	}
	l.sw.emit(Event{Time: l.wall, Kind: EventMove, Port: in.id, Old: old, VID: vid, MAC: m, Missed: s.moves})
	s.moveTold, s.moves = l.now, 0
}
