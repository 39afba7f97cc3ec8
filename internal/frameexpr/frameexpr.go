// Package frameexpr builds one Ethernet frame from the words of a person, for
// the question what the switch would do with it.
//
//	arp who-has A [tell B]      udp A.PORT > B.PORT     ip6 A > B
//	arp A is-at MAC             tcp A.PORT > B.PORT     broadcast
//	icmp A > B                  ff ff ff ff ff ff 02 00 …   the octets, in hexadecimal
//
//	[from MAC] [to MAC] [vlan N [pcp P]]... [len N | packet N]
//	[ttl N] [tos N] [nodf]      of IP
//	[flags SFRPUEW.] [gso N]    of TCP; gso of UDP too
//	[vni N] [outer-tos N]       of a frame that a peer sends
//
// A and B are addresses; icmp, udp and tcp take those of either IP version. The
// octets may be followed by the words of a peer's frame and gso; as `datagram …`
// they begin with a VXLAN header. The package builds frames and never reads one.
package frameexpr

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Env supplies what an expression leaves out.
type Env struct {
	From frame.MAC                          // the source when there is no `from`
	Own  []netip.Addr                       // of the source, for arp without `tell`
	MAC  func(netip.Addr) (frame.MAC, bool) // finds the destination when there is no `to`; may be nil
}

// Frame is what an expression describes.
type Frame struct {
	Data     []byte
	Segment  int    // octets of payload of each segment of a GSO frame; 0 = a plain frame
	VNI      uint32 // 0 = not given
	OuterTOS uint8
	Datagram bool // Data begins with a VXLAN header
}

// Error is an expression that cannot be read. Pos counts octets from 0.
type Error struct {
	Expr string
	Pos  int
	What string
}

// Error shows the expression with a mark below the word that is wrong.
func (e *Error) Error() string {
	return fmt.Sprintf("%s\n  %s\n  %s^", e.What, e.Expr, strings.Repeat(" ", e.Pos))
}

// word is one word of an expression and where it stands.
type word struct {
	text string
	pos  int
}

type parser struct {
	expr string
	rest []word
}

// request is a frame in words.
type request struct {
	Frame
	kind           string
	src, dst       netip.Addr
	sport, dport   uint16
	from, to       frame.MAC
	hasFrom, hasTo bool
	reply          bool // of arp
	tags           []frame.Tag
	length         int // of the frame, 0 = as it comes
	packet         int // of what it carries, 0 = as it comes
	lengthPos      int
	ttl, tos       uint8
	mayFragment    bool
	flags          string // empty = a SYN, or an ACK where there are segments
	kindPos        int
	dstWord        int
}

func (r *request) isIP() bool { return r.dst.IsValid() && r.kind != "arp" }

// Parse returns the frame that expr describes. Its errors are *Error.
func Parse(expr string, env Env) (Frame, error) {
	p := &parser{expr: expr, rest: split(expr)}
	r := request{ttl: 64}
	if ok, err := p.octets(&r); err != nil {
		return Frame{}, err
	} else if !ok {
		if err := p.kind(&r, env); err != nil {
			return Frame{}, err
		}
	}
	for len(p.rest) > 0 {
		if err := p.option(&r); err != nil {
			return Frame{}, err
		}
	}
	if r.kind == "" {
		return r.Frame, nil
	}
	if !r.hasFrom {
		if env.From.IsZero() {
			return Frame{}, p.at(len(expr), "the port's MAC address is not known: add `from MAC`")
		}
		r.from = env.From
	}
	if !r.hasTo {
		to, ok := destination(&r, env)
		if !ok {
			return Frame{}, p.at(r.dstWord, fmt.Sprintf("no port has the address %s: add `to MAC`, that of the station or of the router on the way to it", r.dst))
		}
		r.to = to
	}
	var err error
	if r.Data, err = p.build(&r); err != nil {
		return Frame{}, err
	}
	return r.Frame, nil
}

// build makes r as long as it is to be. What the protocol does not fill is
// padding.
func (p *parser) build(r *request) ([]byte, error) {
	b, err := build(r, 0)
	if err != nil {
		return nil, p.at(r.kindPos, err.Error())
	}
	want, header := r.length, frame.HeaderLen+len(r.tags)*frame.TagLen
	if r.packet > 0 {
		want = r.packet + header
	}
	switch {
	case want == 0:
		return b, nil
	case want > frame.MaxLen:
		return nil, p.at(r.lengthPos, fmt.Sprintf("%d octets, a frame has at most %d", want, frame.MaxLen))
	case want < len(b):
		return nil, p.at(r.lengthPos, fmt.Sprintf("%d is less than the frame's headers, %d octets, %d of them in front of the packet",
			max(r.length, r.packet), len(b), header))
	case !r.isIP() || r.kind == "ip6":
		return append(b, make([]byte, want-len(b))...), nil
	}
	if want-header > maxPacket {
		return nil, p.at(r.lengthPos, fmt.Sprintf("a packet of %d octets, IP has at most %d", want-header, maxPacket))
	}
	if b, err = build(r, want-len(b)); err != nil {
		return nil, p.at(r.kindPos, err.Error())
	}
	return b, nil
}

// maxPacket is the greatest length that an IPv4 header can tell (RFC 791 clause
// 3.1); of IPv6 it would be 40 octets more.
const maxPacket = 65535

// octets takes the hexadecimal form, if expr is of it: words of pairs of digits,
// or all digits in one.
func (p *parser) octets(r *request) (ok bool, err error) {
	rest := p.rest
	if len(rest) > 0 && rest[0].text == "datagram" {
		r.Datagram, rest = true, rest[1:]
	}
	var digits strings.Builder
	n := 0
	for ; n < len(rest); n++ {
		d := strings.ReplaceAll(rest[n].text, ":", "")
		if d == "" || strings.Trim(d, "0123456789abcdefABCDEF") != "" {
			break
		}
		digits.WriteString(d)
	}
	if n == 0 {
		if r.Datagram {
			return true, p.at(len(p.expr), "want the octets of the datagram in hexadecimal")
		}
		return false, nil
	}
	first, end := rest[0].pos, rest[n-1].pos+len(rest[n-1].text)
	p.rest = rest[n:]
	if r.Data, err = hex.DecodeString(digits.String()); err != nil {
		return true, p.at(end, "an odd number of hexadecimal digits")
	}
	if len(r.Data) > frame.MaxLen {
		return true, p.at(first, fmt.Sprintf("%d octets, a frame has at most %d", len(r.Data), frame.MaxLen))
	}
	return true, nil
}

func split(s string) (words []word) {
	for i := 0; i < len(s); {
		if s[i] == ' ' || s[i] == '\t' || s[i] == '\n' {
			i++
			continue
		}
		end := len(s)
		if n := strings.IndexAny(s[i:], " \t\n"); n >= 0 {
			end = i + n
		}
		words = append(words, word{s[i:end], i})
		i = end
	}
	return words
}

func (p *parser) at(pos int, what string) error { return &Error{p.expr, pos, what} }

// next takes a word; want says what it should be.
func (p *parser) next(want string) (word, error) {
	if len(p.rest) == 0 {
		return word{}, p.at(len(p.expr), "the frame ends here: want "+want)
	}
	w := p.rest[0]
	p.rest = p.rest[1:]
	return w, nil
}

func (p *parser) literal(text string) error {
	w, err := p.next("`" + text + "`")
	if err == nil && w.text != text {
		err = p.at(w.pos, fmt.Sprintf("got %q, want `%s`", w.text, text))
	}
	return err
}

const kinds = "arp, icmp, udp, tcp, ip6, broadcast or octets in hexadecimal"

func (p *parser) kind(r *request, env Env) error {
	w, err := p.next(kinds)
	if err != nil {
		return err
	}
	r.kind, r.kindPos = w.text, w.pos
	switch w.text {
	case "arp":
		err = p.arp(r, env)
	case "icmp", "ip6", "udp", "tcp":
		ports := w.text == "udp" || w.text == "tcp"
		if r.src, r.sport, err = p.addr(nil, ports); err == nil {
			if err = p.literal(">"); err == nil {
				r.dst, r.dport, err = p.addr(r, ports)
			}
		}
	case "broadcast":
		return nil
	default:
		return p.at(w.pos, fmt.Sprintf("unknown frame %q: want %s", w.text, kinds))
	}
	if err != nil {
		return err
	}
	switch {
	case r.src.Is4() != r.dst.Is4():
		return p.at(r.dstWord, "both addresses must be of one IP version")
	case r.kind == "arp" && !r.dst.Is4():
		return p.at(r.dstWord, "arp is about IPv4 addresses")
	case r.kind == "ip6" && r.dst.Is4():
		return p.at(r.dstWord, "ip6 wants IPv6 addresses")
	}
	return nil
}

// arp reads a question, `who-has A [tell B]`, or an announcement, `A is-at MAC`.
func (p *parser) arp(r *request, env Env) (err error) {
	if len(p.rest) == 0 {
		return p.at(len(p.expr), "the frame ends here: want `who-has` or an address")
	}
	if _, err := netip.ParseAddr(p.rest[0].text); err == nil {
		if r.src, _, err = p.addr(r, false); err == nil {
			if err = p.literal("is-at"); err == nil {
				r.from, err = p.mac()
			}
		}
		r.dst, r.hasFrom, r.reply = r.src, true, true
		return err
	}
	if err = p.literal("who-has"); err != nil {
		return err
	}
	if r.dst, _, err = p.addr(r, false); err != nil {
		return err
	}
	if len(p.rest) == 0 || p.rest[0].text != "tell" {
		for _, a := range env.Own {
			if a.Is4() {
				r.src = a
				return nil
			}
		}
	}
	if err = p.literal("tell"); err == nil {
		r.src, _, err = p.addr(nil, false)
	}
	return err
}

// addr reads A, or A.PORT. It notes the word's place in r unless r is nil.
func (p *parser) addr(r *request, port bool) (netip.Addr, uint16, error) {
	want := "an IP address"
	if port {
		want += " with .PORT behind it, as 10.1.0.2.5000"
	}
	w, err := p.next(want)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	if r != nil {
		r.dstWord = w.pos
	}
	text, n := w.text, uint64(0)
	if port {
		i := strings.LastIndexByte(text, '.')
		if i >= 0 {
			n, err = strconv.ParseUint(text[i+1:], 10, 16)
			text = text[:i]
		}
		if i < 0 || err != nil {
			return netip.Addr{}, 0, p.at(w.pos, fmt.Sprintf("got %q, want %s", w.text, want))
		}
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Is4In6() || a.Zone() != "" {
		return a, 0, p.at(w.pos, fmt.Sprintf("got %q, want %s", w.text, want))
	}
	return a, uint16(n), nil
}

// destination is where a host would send the frame.
func destination(r *request, env Env) (frame.MAC, bool) {
	switch {
	case r.kind == "arp" || r.kind == "broadcast":
		return frame.Broadcast, true
	case r.dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return frame.Broadcast, true
	case r.dst.IsMulticast() && r.dst.Is4(): // RFC 1112 section 6.4
		a := r.dst.As4()
		return frame.MAC{0x01, 0x00, 0x5e, a[1] & 0x7f, a[2], a[3]}, true
	case r.dst.IsMulticast(): // RFC 2464 section 7
		a := r.dst.As16()
		return frame.MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}, true
	case env.MAC == nil:
		return frame.MAC{}, false
	}
	return env.MAC(r.dst)
}
