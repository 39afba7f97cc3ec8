package offload_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// slowSum is RFC 1071 word for word: 16 bits at a time, big-endian.
func slowSum(b []byte, init uint32) uint32 {
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		init += w
		init = init&0xffff + init>>16
	}
	return init
}

// spec describes a frame to build.
type spec struct {
	v6, udp, df, options, partial, valid bool
	tags                                 int
	flow                                 uint16
	id                                   uint16
	tos                                  uint8
	seq                                  uint32
	flags                                uint8
	payload                              []byte
}

// build makes the frame of s with gopacket.
func build(t testing.TB, s spec) frame.Frame {
	t.Helper()
	etype := layers.EthernetTypeIPv4
	if s.v6 {
		etype = layers.EthernetTypeIPv6
	}
	eth := &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: etype}
	ls := []gopacket.SerializableLayer{eth}
	for i := range s.tags {
		q := &layers.Dot1Q{VLANIdentifier: 10 + uint16(i), Type: etype}
		if i+1 < s.tags {
			q.Type = layers.EthernetTypeDot1Q
		}
		eth.EthernetType = layers.EthernetTypeDot1Q
		ls = append(ls, q)
	}
	proto := layers.IPProtocolTCP
	if s.udp {
		proto = layers.IPProtocolUDP
	}
	var network gopacket.NetworkLayer
	if s.v6 {
		ip := &layers.IPv6{Version: 6, TrafficClass: s.tos, NextHeader: proto, HopLimit: 64, SrcIP: bytes.Repeat([]byte{0xfd}, 16), DstIP: bytes.Repeat([]byte{0xfc}, 16)}
		network, ls = ip, append(ls, ip)
	} else {
		ip := &layers.IPv4{Version: 4, IHL: 5, TOS: s.tos, Id: s.id, TTL: 64, Protocol: proto, SrcIP: []byte{10, 1, 0, 1}, DstIP: []byte{10, 1, 0, 2}}
		if s.df {
			ip.Flags = layers.IPv4DontFragment
		}
		network, ls = ip, append(ls, ip)
	}
	if s.udp {
		u := &layers.UDP{SrcPort: layers.UDPPort(s.flow), DstPort: 4000}
		_ = u.SetNetworkLayerForChecksum(network)
		ls = append(ls, u)
	} else {
		c := &layers.TCP{SrcPort: layers.TCPPort(s.flow), DstPort: 80, Seq: s.seq, Ack: 7, Window: 500}
		if s.options {
			c.Options = []layers.TCPOption{{OptionType: 1}, {OptionType: 1}, {OptionType: 8, OptionLength: 10, OptionData: []byte("timestam")}}
		}
		_ = c.SetNetworkLayerForChecksum(network)
		ls = append(ls, c)
	}
	ls = append(ls, gopacket.Payload(s.payload))
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		t.Fatal(err)
	}
	f := frame.Frame{Data: buf.Bytes(), Copies: 1}
	l4 := 14 + 4*s.tags + 20
	if s.v6 {
		l4 += 20
	}
	off, hdr := 6, 8
	if !s.udp {
		f.Data[l4+13] = s.flags
		off, hdr = 16, int(f.Data[l4+12]>>4)*4
	}
	f.Data = f.Data[:l4+hdr+len(s.payload)] // gopacket pads to 60 octets
	f.GSO = frame.GSO{NeedsCsum: true, CsumStart: uint16(l4), CsumOffset: uint16(off)}
	setPartial(f.Data, l4, off, s.v6)
	if !s.partial {
		finish(f.Data, l4, off)
		f.GSO = frame.GSO{Valid: s.valid}
	}
	return f
}

// setPartial writes the pseudo-header sum of the packet in b.
func setPartial(b []byte, l4, off int, v6 bool) {
	addrs, proto := b[l4-8:l4], uint32(6)
	if v6 {
		addrs = b[l4-32 : l4]
	}
	if off == 6 {
		proto = 17
	}
	n := slowSum(addrs, 0) + proto + uint32(len(b)-l4)
	n = n&0xffff + n>>16
	binary.BigEndian.PutUint16(b[l4+off:], uint16(n&0xffff+n>>16))
}

// finish completes the partial checksum of b.
func finish(b []byte, start, off int) {
	c := ^uint16(slowSum(b[start:], 0))
	if c == 0 && off == 6 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[start+off:], c)
}

// flat is the frame in one piece.
func flat(f *frame.Frame) []byte {
	b := bytes.Clone(f.Data)
	for _, p := range f.Frags {
		b = append(b, p...)
	}
	return b
}

// slowSegment is what a receiver may see of f: its segments with every
// checksum complete. It trusts f's metadata.
func slowSegment(f *frame.Frame) [][]byte {
	b, g := flat(f), f.GSO
	if g.Type == frame.GSONone {
		if g.NeedsCsum {
			finish(b, int(g.CsumStart), int(g.CsumOffset))
		}
		return [][]byte{b}
	}
	hdr, l4, l3 := int(g.HdrLen), int(g.CsumStart), 14
	for b[l3-2] == 0x81 {
		l3 += 4
	}
	v6 := b[l3-2] == 0x86
	var out [][]byte
	for off, i := hdr, 0; off < len(b); off, i = off+int(g.Size), i+1 {
		chunk := b[off:min(len(b), off+int(g.Size))]
		s := append(bytes.Clone(b[:hdr]), chunk...)
		if v6 {
			binary.BigEndian.PutUint16(s[l3+4:], uint16(len(s)-l3-40))
		} else {
			binary.BigEndian.PutUint16(s[l3+2:], uint16(len(s)-l3))
			binary.BigEndian.PutUint16(s[l3+4:], binary.BigEndian.Uint16(s[l3+4:])+uint16(i))
			binary.BigEndian.PutUint16(s[l3+10:], 0)
			binary.BigEndian.PutUint16(s[l3+10:], ^uint16(slowSum(s[l3:l4], 0)))
		}
		if g.Type == frame.GSOUDP {
			binary.BigEndian.PutUint16(s[l4+4:], uint16(len(s)-l4))
		} else {
			binary.BigEndian.PutUint32(s[l4+4:], binary.BigEndian.Uint32(s[l4+4:])+uint32(off-hdr))
			if off+len(chunk) < len(b) {
				s[l4+13] &^= 0x09
			}
			if i > 0 {
				s[l4+13] &^= 0x80
			}
		}
		setPartial(s, l4, int(g.CsumOffset), v6)
		finish(s, l4, int(g.CsumOffset))
		out = append(out, s)
	}
	return out
}
