package tunnel

import (
	"encoding/binary"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// A message between two tunnels of our kind. It looks like a VXLAN frame of a
// network that nobody has, to an address that no bridge relays.
//
//	0      8            22      26   27    28     32      40     44
//	VXLAN  Ethernet     "tpsy"  ver  kind  seq    token   size   zeros …
//	VNI 0  type 88b5                              8       4
//
// Numbers are big-endian. Size is that of the UDP payload: of the probe itself,
// or, in an answer, of the probe as it arrived; of a question and what is told, its own.
const (
	messageLen     = 44
	messageMagic   = 0x74707379 // "tpsy"
	messageVersion = 1
)

// messageType is EtherType local experimental 1 (IEEE 802 clause 9.2.3).
const messageType frame.EtherType = 0x88b5

const (
	kindProbe  = 1
	kindAnswer = 2
	kindAsk    = 3 // with a text: see tell.go
	kindTell   = 4
)

var (
	messageDst = frame.MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e} // nearest bridge: never relayed
	messageSrc = frame.MAC{0x02, 0x74, 0x70, 0x73, 0x79, 0}
)

// message is a probe or its answer, or the head of a question or its answer.
type message struct {
	kind  uint8
	seq   uint32
	token uint64 // returned by the answer; nobody else can know it
	size  uint32
}

// put writes m to the first messageLen octets of b.
func (m *message) put(b []byte) {
	vxlan.Put(b, 0)
	copy(b[8:], messageDst[:])
	copy(b[14:], messageSrc[:])
	binary.BigEndian.PutUint16(b[20:], uint16(messageType))
	binary.BigEndian.PutUint32(b[22:], messageMagic)
	b[26], b[27] = messageVersion, m.kind
	binary.BigEndian.PutUint32(b[28:], m.seq)
	binary.BigEndian.PutUint64(b[32:], m.token)
	binary.BigEndian.PutUint32(b[40:], m.size)
}

// parseMessage reads datagram b, whose header was found good and of VNI 0. It
// reports false when b is no message that we understand.
//
// Hot path: no allocation. Everything read is behind one check of b's length.
func parseMessage(b []byte) (m message, ok bool) {
	if len(b) < messageLen || frame.EtherType(binary.BigEndian.Uint16(b[20:])) != messageType ||
		binary.BigEndian.Uint32(b[22:]) != messageMagic || b[26] != messageVersion {
		return m, false
	}
	m = message{
		kind: b[27], seq: binary.BigEndian.Uint32(b[28:]),
		token: binary.BigEndian.Uint64(b[32:]), size: binary.BigEndian.Uint32(b[40:]),
	}
	return m, m.kind >= kindProbe && m.kind <= kindTell
}
