package trace

import (
	"encoding/binary"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Lengths in octets.
const (
	ipv4Len = 20
	ipv6Len = 40
	echoLen = 8
	udpLen  = 8
	tcpLen  = 20
	markLen = 16
)

const magic = "tapestry"

const (
	echoRequest   = 8
	echoReply     = 0
	echoRequestV6 = 128
	echoReplyV6   = 129
)

const (
	flagSYN = 1 << 1
	flagRST = 1 << 2
	flagACK = 1 << 4
)

// Packet is the IP packet of the probe, with checksums. It must not be
// fragmented.
func (k *Key) Packet(ttl uint8) []byte {
	body := k.body()
	if k.Src.Is4() {
		b := make([]byte, ipv4Len, ipv4Len+len(body))
		b[0] = 4<<4 | ipv4Len/4
		binary.BigEndian.PutUint16(b[2:], uint16(ipv4Len+len(body)))
		binary.BigEndian.PutUint16(b[4:], k.IPID())
		b[6] = 0x40 // don't fragment
		b[8], b[9] = ttl, k.Protocol()
		copy(b[12:], k.Src.AsSlice())
		copy(b[16:], k.Dst.AsSlice())
		binary.BigEndian.PutUint16(b[10:], ^offload.Fold(offload.Sum(b, 0)))
		return append(b, body...)
	}
	b := make([]byte, ipv6Len, ipv6Len+len(body))
	binary.BigEndian.PutUint32(b, 6<<28|k.FlowLabel())
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	b[6], b[7] = k.Protocol(), ttl
	copy(b[8:], k.Src.AsSlice())
	copy(b[24:], k.Dst.AsSlice())
	return append(b, body...)
}

// body is the probe's ICMP message, datagram or segment.
func (k *Key) body() []byte {
	var b []byte
	sum := 0 // where the checksum is
	switch k.Proto {
	case UDP:
		b = make([]byte, udpLen, udpLen+markLen)
		binary.BigEndian.PutUint16(b, k.SourcePort())
		binary.BigEndian.PutUint16(b[2:], k.Port)
		binary.BigEndian.PutUint16(b[4:], udpLen+markLen)
		b, sum = k.appendMark(b), 6
	case TCP:
		b = make([]byte, tcpLen)
		binary.BigEndian.PutUint16(b, k.SourcePort())
		binary.BigEndian.PutUint16(b[2:], k.Port)
		binary.BigEndian.PutUint32(b[4:], k.Sequence())
		b[12], b[13] = tcpLen/4<<4, flagSYN
		binary.BigEndian.PutUint16(b[14:], 0xffff)
		sum = 16
	default:
		b = make([]byte, echoLen, echoLen+markLen)
		if b[0] = echoRequest; k.Src.Is6() {
			b[0] = echoRequestV6
		}
		id, seq := k.Echo()
		binary.BigEndian.PutUint16(b[4:], id)
		binary.BigEndian.PutUint16(b[6:], seq)
		b, sum = k.appendMark(b), 2
	}
	pseudo := uint64(0)
	if k.Protocol() != protoICMP {
		pseudo = offload.Pseudo(append(k.Src.AsSlice(), k.Dst.AsSlice()...), k.Protocol(), len(b))
	}
	binary.BigEndian.PutUint16(b[sum:], offload.Fold(pseudo))
	offload.Complete(b, 0, sum)
	return b
}

func (k *Key) appendMark(b []byte) []byte {
	return binary.BigEndian.AppendUint64(append(b, magic...), uint64(k.ID))
}

// Frame is an Ethernet frame that carries packet, tagged unless tag is zero.
func Frame(dst, src frame.MAC, tag frame.Tag, packet []byte) []byte {
	b := append(dst[:], src[:]...)
	if tag.Present() {
		b = binary.BigEndian.AppendUint16(b, uint16(tag.TPID))
		b = binary.BigEndian.AppendUint16(b, tag.TCI)
	}
	t := frame.EtherTypeIPv4
	if packet[0]>>4 == 6 {
		t = frame.EtherTypeIPv6
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(t)), packet...)
}
