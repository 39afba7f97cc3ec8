package trace

import (
	"encoding/binary"
	"net/netip"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// What is what a packet of a trace is.
type What uint8

// What a packet can be. All but Probe are answers.
const (
	Probe What = iota
	EchoReply
	Datagram    // back from the port that the probe went to
	SynAck      // the port is open
	Reset       // the port is closed
	Unreachable // ICMP errors that quote the probe
	TooBig
	TimeExceeded
	BadHeader
	numWhat
)

var whatNames = [...]string{"probe", "echo reply", "datagram back", "SYN-ACK", "RST", "destination unreachable", "packet too big",
	"time exceeded", "parameter problem"}

// unreachable are the ICMP codes that people know by name: of RFC 792 and 1812,
// and of RFC 4443.
var unreachable = [2]map[uint8]string{
	{0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable", 4: "fragmentation needed",
		9: "administratively prohibited", 10: "administratively prohibited", 13: "administratively prohibited"},
	{0: "no route", 1: "administratively prohibited", 3: "address unreachable", 4: "port unreachable", 5: "policy forbids the source", 6: "reject route"},
}

// text is the name that people know a packet by.
func (w What) text(code uint8, v6 bool) string {
	family := 0
	if v6 {
		family = 1
	}
	if name := unreachable[family][code]; w == Unreachable && name != "" {
		return name
	}
	return whatNames[min(int(w), len(whatNames)-1)]
}

// reached reports whether w comes from the destination itself. An unreachable
// port answers for its host.
func (w What) reached(code uint8, v6 bool) bool {
	switch w {
	case EchoReply, Datagram, SynAck, Reset:
		return true
	case Unreachable:
		return !v6 && (code == 2 || code == 3) || v6 && code == 4
	}
	return false
}

// Sight is a packet of a trace as it was seen in one frame.
type Sight struct {
	What     What
	Code     uint8 // of an ICMP error
	TTL      uint8 // or hop limit
	Src, Dst frame.MAC
	Tag      frame.Tag
	// From and To are the packet's addresses, which NAT may have changed and an
	// ICMP error has its own of.
	From, To netip.Addr
}

// Reached reports whether the packet is an answer of the destination itself.
func (s *Sight) Reached() bool { return s.What.reached(s.Code, s.From.Is6()) }

// Answer reports whether the packet goes back.
func (s *Sight) Answer() bool { return s.What != Probe }

// Matcher knows the packets of one trace.
type Matcher struct {
	v6            bool
	proto         uint8
	src, dst      [16]byte
	sport, dport  uint16 // of ICMP: identifier and sequence number
	ipid          uint16
	label         uint32
	seq           uint32
	mark          [markLen]byte
	request, back uint8 // ICMP types
}

// NewMatcher compiles k, whose Check has passed.
func NewMatcher(k *Key) *Matcher {
	m := &Matcher{
		v6: k.Src.Is6(), proto: k.Protocol(), sport: k.SourcePort(), dport: k.Port,
		ipid: k.IPID(), label: k.FlowLabel(), seq: k.Sequence(), request: echoRequest, back: echoReply,
	}
	copy(m.src[:], k.Src.AsSlice())
	copy(m.dst[:], k.Dst.AsSlice())
	if k.Proto == ICMP {
		m.sport, m.dport = k.Echo()
	}
	if m.v6 {
		m.request, m.back = echoRequestV6, echoReplyV6
	}
	copy(m.mark[:], k.appendMark(nil))
	return m
}

// packet is an IP packet taken apart as far as it is there.
type packet struct {
	ttl, proto uint8
	id         uint32 // identification or flow label
	addrs      []byte // both
	l4         []byte
}

// addrLen is the length of an address in octets.
func (m *Matcher) addrLen() int {
	if m.v6 {
		return 16
	}
	return 4
}

// parse takes b apart. It reports false for another family, a fragment, or what
// is cut off within the header.
//
// Hot path: no allocation. Everything read is behind one check of b's length.
func (m *Matcher) parse(b []byte, p *packet) bool {
	if m.v6 {
		if len(b) < ipv6Len || b[0]>>4 != 6 {
			return false
		}
		*p = packet{ttl: b[7], proto: b[6], id: binary.BigEndian.Uint32(b) & 0xfffff, addrs: b[8:40], l4: b[ipv6Len:]}
		return true
	}
	if len(b) < ipv4Len || b[0]>>4 != 4 {
		return false
	}
	n := int(b[0]&15) * 4
	if n < ipv4Len || n > len(b) || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		return false
	}
	*p = packet{ttl: b[8], proto: b[9], id: uint32(binary.BigEndian.Uint16(b[4:])), addrs: b[12:20], l4: b[n:]}
	return true
}

// Frame reports whether frame b carries a packet of the trace, and fills in s.
//
// Hot path: no allocation. The many frames that are no part of the trace cost a
// comparison of type, protocol and ports.
func (m *Matcher) Frame(b []byte, s *Sight) bool {
	const tags = 2
	h, ok := frame.Parse(b)
	if !ok {
		return false
	}
	at, typ := h.Len, h.EtherType
	for i := 0; i < tags && (typ == frame.EtherTypeCTag || typ == frame.EtherTypeSTag); i++ {
		if len(b) < at+frame.TagLen {
			return false
		}
		typ = frame.EtherType(binary.BigEndian.Uint16(b[at+2:]))
		at += frame.TagLen
	}
	if typ != frame.EtherTypeIPv4 && typ != frame.EtherTypeIPv6 {
		return false
	}
	if !m.Packet(b[at:], s) {
		return false
	}
	s.Src, s.Dst, s.Tag = h.Src, h.Dst, h.Tag
	return true
}

// Packet is Frame for an IP packet; the Ethernet fields of s stay as they are.
//
// Hot path: no allocation.
func (m *Matcher) Packet(b []byte, s *Sight) bool {
	var p packet
	if !m.parse(b, &p) || len(p.l4) < echoLen {
		return false
	}
	icmp := uint8(protoICMP)
	if m.v6 {
		icmp = protoICMPv6
	}
	var what What
	var code uint8
	ok := false
	switch {
	case p.proto == icmp:
		what, code, ok = m.icmp(&p)
	case p.proto != m.proto:
	case m.proto == protoUDP:
		what, ok = m.udp(&p)
	case m.proto == protoTCP:
		what, ok = m.tcp(&p)
	}
	if !ok {
		return false
	}
	n := m.addrLen()
	from, _ := netip.AddrFromSlice(p.addrs[:n])
	to, _ := netip.AddrFromSlice(p.addrs[n:])
	s.What, s.Code, s.TTL, s.From, s.To = what, code, p.ttl, from, to
	return true
}

// between reports whether p goes from src to dst.
func (m *Matcher) between(p *packet, src, dst *[16]byte) bool {
	n := m.addrLen()
	return string(p.addrs[:n]) == string(src[:n]) && string(p.addrs[n:]) == string(dst[:n])
}

func (m *Matcher) marked(payload []byte) bool {
	return len(payload) >= markLen && string(payload[:markLen]) == string(m.mark[:])
}

func (m *Matcher) icmp(p *packet) (What, uint8, bool) {
	t, code := p.l4[0], p.l4[1]
	own := m.proto == protoICMP || m.proto == protoICMPv6
	switch {
	case own && t == m.request:
		return Probe, 0, m.marked(p.l4[echoLen:])
	case own && t == m.back:
		return EchoReply, 0, m.marked(p.l4[echoLen:])
	}
	what, ok := m.errorType(t)
	return what, code, ok && m.quoted(p.l4[echoLen:])
}

// ident is the mark in the IP header.
func (m *Matcher) ident() uint32 {
	if m.v6 {
		return m.label
	}
	return uint32(m.ipid)
}

func (m *Matcher) echo(l4 []byte) bool {
	return binary.BigEndian.Uint16(l4[4:]) == m.sport && binary.BigEndian.Uint16(l4[6:]) == m.dport
}

// errorType says which error ICMP type t is.
func (m *Matcher) errorType(t uint8) (What, bool) {
	if m.v6 {
		switch t {
		case 1:
			return Unreachable, true
		case 2:
			return TooBig, true
		case 3:
			return TimeExceeded, true
		case 4:
			return BadHeader, true
		}
		return 0, false
	}
	switch t {
	case 3:
		return Unreachable, true
	case 11:
		return TimeExceeded, true
	case 12:
		return BadHeader, true
	}
	return 0, false
}

// quoted reports whether b, what an ICMP error quotes, is the probe. An error
// may quote no more than eight octets behind the IP header (RFC 792). NAT may
// have put another source address and port in place, or another destination.
func (m *Matcher) quoted(b []byte) bool {
	var p packet
	if !m.parse(b, &p) || p.proto != m.proto || p.id != m.ident() || len(p.l4) < echoLen {
		return false
	}
	n := m.addrLen()
	if string(p.addrs[:n]) != string(m.src[:n]) && string(p.addrs[n:]) != string(m.dst[:n]) {
		return false
	}
	switch m.proto {
	case protoUDP:
		return m.marked(p.l4[udpLen:]) || m.onePort(p.l4)
	case protoTCP:
		return m.onePort(p.l4) && binary.BigEndian.Uint32(p.l4[4:]) == m.seq
	}
	return p.l4[0] == m.request && m.echo(p.l4)
}

func (m *Matcher) ports(l4 []byte, src, dst uint16) bool {
	return binary.BigEndian.Uint16(l4) == src && binary.BigEndian.Uint16(l4[2:]) == dst
}

// onePort reports whether one of the probe's ports is where the probe has it.
func (m *Matcher) onePort(l4 []byte) bool {
	return binary.BigEndian.Uint16(l4) == m.sport || binary.BigEndian.Uint16(l4[2:]) == m.dport
}

func (m *Matcher) udp(p *packet) (What, bool) {
	marked := m.marked(p.l4[udpLen:])
	back := m.ports(p.l4, m.dport, m.sport)
	if back && (marked || m.between(p, &m.dst, &m.src)) {
		return Datagram, true // an echo server returns the mark
	}
	if marked && !m.onePort(p.l4) && binary.BigEndian.Uint16(p.l4) == m.dport {
		return Datagram, true // and NAT has its own port there still
	}
	return Probe, marked
}

func (m *Matcher) tcp(p *packet) (What, bool) {
	if len(p.l4) < tcpLen {
		return 0, false
	}
	flags := p.l4[13]
	if flags&(flagSYN|flagACK) == flagSYN {
		// The sequence number is 32 bits of the mark: addresses and ports may be NAT's.
		return Probe, binary.BigEndian.Uint32(p.l4[4:]) == m.seq && (p.id == m.ident() || m.ports(p.l4, m.sport, m.dport))
	}
	if flags&flagACK == 0 || binary.BigEndian.Uint32(p.l4[8:]) != m.seq+1 {
		return 0, false
	}
	n := m.addrLen()
	if string(p.addrs[:n]) != string(m.dst[:n]) && string(p.addrs[n:]) != string(m.src[:n]) {
		return 0, false
	}
	switch {
	case flags&flagRST != 0:
		return Reset, true
	case flags&flagSYN != 0:
		return SynAck, true
	}
	return 0, false
}
