package tunnel

import (
	"encoding/binary"
	"net/netip"

	"github.com/tapestry-net/tapestry/internal/udpio"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// The pure parts, for tests.
var (
	DecapECN     = decapECN
	Flow         = flow
	Restore      = restore
	ParseMessage = parseMessage
)

// AnswerTooBig is answerTooBig for a packet in an untagged frame, nil where no
// answer is due.
func AnswerTooBig(b []byte, own4, own6 netip.Addr, mtu int) []byte {
	if !answerable(b[:12], b[12:]) {
		return nil
	}
	c := complaint{net: &network{own: [2]netip.Addr{own4, own6}}, mtu: mtu}
	c.n = copy(c.head[:], b)
	return answerTooBig(&c)
}

// ShareOf is which share of the errors about what doesn't fit a station has.
func (t *Tunnel) ShareOf(v frame.VID, m frame.MAC) uint64 { return t.station(v, m[:]) % shares }

// Hush makes the tunnel tell nobody of what doesn't fit until the next tick.
func (t *Tunnel) Hush() {
	for i := range t.shares {
		t.shares[i].used.Store(complaintsPerTick)
	}
}

// Segments reports whether runs to a peer leave by UDP_SEGMENT.
func (t *Tunnel) Segments(id frame.PortID) bool { return t.Peer(id).dest.Load().GSO() }

// Probe is the datagram of a probe.
func Probe(seq uint32, token uint64) []byte {
	b := make([]byte, messageLen)
	(&message{kind: kindProbe, seq: seq, token: token, size: messageLen}).put(b)
	return b
}

// AnswerTo is the answer to datagram b, nil when b is no probe.
func AnswerTo(b []byte) []byte {
	m, ok := parseMessage(b)
	if !ok || m.kind != kindProbe {
		return nil
	}
	m.kind, m.size = kindAnswer, uint32(len(b))
	out := make([]byte, messageLen)
	m.put(out)
	return out
}

// Receiver0 is the tunnel's socket as a receiver.
func (t *Tunnel) Receiver0() interface {
	Receive(*frame.Batch) error
	Waiting() bool
	FD() int
} {
	return t.rx
}

// ReceiveRuns has the receiver make frames of runs as if it had read them.
func (t *Tunnel) ReceiveRuns(b *frame.Batch, runs ...udpio.Datagram) error {
	t.rx.runs, t.rx.next = runs, 0
	return t.rx.Receive(b)
}

// UnknownVNIs is that number of Drops over all peers, without allocation.
func (t *Tunnel) UnknownVNIs() (n uint64) {
	for _, c := range t.view.Load().list {
		n += c.peer.drops[frame.UnknownVNI].n.Load()
	}
	return n
}

// Admit makes frames of one datagram, or of a run cut every size octets, of the
// peer with that port.
func (t *Tunnel) Admit(id frame.PortID, b *frame.Batch, datagram []byte, tos uint8, size int) {
	v := t.view.Load()
	for _, c := range v.list {
		if c.peer.id == id {
			r := receiver{t: t, listen: t.listen}
			r.take(v, b, &udpio.Datagram{From: c.peer.dest.Load().Addr(), Data: datagram, TOS: tos, Size: size})
		}
	}
}

// OpenAll opens a sending socket for every slot of IPv4, so that no flow changes
// its port later.
func (t *Tunnel) OpenAll() error {
	for slot := range udpio.Slots {
		if err := t.openSlot(t.pools[0], slot); err != nil {
			return err
		}
	}
	return nil
}

// Assume makes the tunnel take a peer for down, and its path for one that carries
// inner packets of that size. Nobody may be transmitting.
func (t *Tunnel) Assume(id frame.PortID, down bool, inner int) {
	p := t.Peer(id)
	p.down.Store(down)
	p.inner.Store(int32(inner))
}

// AskWith is the datagram of a question, padded to size octets or as long as the
// text needs.
func AskWith(token uint64, text []byte, size int) []byte { return talkWith(kindAsk, token, text, size) }

// TellWith is the datagram of an answer.
func TellWith(token uint64, text []byte) []byte { return talkWith(kindTell, token, text, 0) }

func talkWith(kind uint8, token uint64, text []byte, size int) []byte {
	b := make([]byte, max(size, talkHeadLen+len(text)))
	(&message{kind: kind, seq: 1, token: token, size: uint32(len(b))}).put(b)
	binary.BigEndian.PutUint16(b[messageLen:], uint16(len(text)))
	copy(b[talkHeadLen:], text)
	return b
}

// TextOf is textOf.
var TextOf = textOf

// Kind and Token are those of a message.
func Kind(b []byte) (ask, tell bool, token uint64) {
	m, ok := parseMessage(b)
	return ok && m.kind == kindAsk, ok && m.kind == kindTell, m.token
}

// Arena is the memory in which a loop that transmits gathers its datagrams; what
// was sent last is there still. Nobody may be transmitting.
func (t *Tunnel) Arena() []byte {
	s := t.borrow()
	b := s.Begin(nil, nil, 0, 65507)
	s.Abandon()
	t.giveBack(s)
	return b
}
