package offload

import "github.com/tapestry-net/tapestry/switch/frame"

// Train makes one GSO frame of frames of one flow, in one piece, for a receiver
// that has them one behind the other already: their payload moves together in the
// memory of the first.
//
//	before  h1 payload1 │ h2 payload2 │ h3 payload3
//	after   h  payload1 payload2 payload3
//
// What it joins is what Plan would coalesce, checksums verified. The zero Train is
// closed.
type Train struct {
	g     group
	data  []byte // the first frame's headers, unchanged, and all payload
	flags byte   // of TCP, of the last frame
	open  bool
}

// Start begins a train with the untagged frame b, and reports whether others may
// be appended. The train may write from b's start to its capacity.
//
// Hot path: no allocation.
func (t *Train) Start(b []byte) bool {
	var p packet
	if t.open = p.parse(b) && p.mergeable(b) && !endsRun(b, &p); !t.open {
		return false
	}
	t.g, t.data = newGroup(b, &p), b[:p.end]
	return true
}

// Append adds frame b to the end of the train if it continues the flow, and
// reports whether it did. b may lie in the train's memory, behind all that was
// appended before. With false, b is as it was.
//
// Hot path: no allocation.
func (t *Train) Append(b []byte) bool {
	var p packet
	g := &t.g
	if !t.open || !p.parse(b) || !p.mergeable(b) || !g.takes(t.data, b, &p) || !p.intact(b, false) {
		return false
	}
	end, n := len(t.data), p.end-p.pay
	if end+n > cap(t.data) || !g.sound && !g.p.intact(t.data, false) {
		t.open = false
		return false
	}
	if p.proto == protoTCP {
		t.flags = b[p.l4+13]
	}
	t.open = g.grow(b, &p)
	t.data = t.data[:end+n]
	copy(t.data[end:], b[p.pay:p.end])
	return true
}

// Frame ends the train and returns its frame. It reports false when nothing was
// appended: the first frame is as it was.
//
// Hot path: no allocation.
func (t *Train) Frame() (b []byte, m frame.GSO, ok bool) {
	g, p := &t.g, &t.g.p
	if t.open = false; g.n <= 1 {
		return nil, m, false
	}
	if p.proto == protoTCP {
		t.data[p.l4+13] = t.flags
	}
	p.setLengths(t.data[:p.pay], g.total)
	p.setPartial(t.data[:p.pay], g.total)
	return t.data, p.gso(g.size), true
}
