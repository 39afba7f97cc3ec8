// Package frameexpr builds one Ethernet frame from the words of a person, for
// the question what the switch would do with it.
//
//	arp who-has A tell B        udp A.PORT > B.PORT     ip6 A > B
//	icmp A > B                  tcp A.PORT > B.PORT     broadcast
//	  … [from MAC] [to MAC] [vlan N [pcp P]] [len N]
//	ff ff ff ff ff ff 02 00 …   the octets themselves, in hexadecimal
//
// A and B are addresses; icmp, udp and tcp take those of either IP version.
// The package builds frames and never reads one.
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
	MAC  func(netip.Addr) (frame.MAC, bool) // finds the destination when there is no `to`; may be nil
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
	kind             string
	src, dst         netip.Addr
	sport, dport     uint16
	from, to         frame.MAC
	hasFrom, hasTo   bool
	tag              frame.Tag
	length           int
	kindPos, dstWord int
}

// Parse returns the octets of the frame that expr describes. Its errors are
// *Error.
func Parse(expr string, env Env) ([]byte, error) {
	if b, ok, err := octets(expr); ok || err != nil {
		return b, err
	}
	p := &parser{expr: expr, rest: split(expr)}
	var r request
	if err := p.kind(&r); err != nil {
		return nil, err
	}
	for len(p.rest) > 0 {
		if err := p.option(&r); err != nil {
			return nil, err
		}
	}
	if !r.hasFrom {
		if env.From.IsZero() {
			return nil, p.at(len(expr), "the port's MAC address is not known: add `from MAC`")
		}
		r.from = env.From
	}
	if !r.hasTo {
		to, ok := destination(&r, env)
		if !ok {
			return nil, p.at(r.dstWord, fmt.Sprintf("no port has the address %s: add `to MAC`", r.dst))
		}
		r.to = to
	}
	b, err := build(&r)
	if err != nil {
		return nil, p.at(r.kindPos, err.Error())
	}
	if r.length > 0 && r.length < len(b) {
		return nil, p.at(len(expr), fmt.Sprintf("len %d is less than the frame's headers, %d octets", r.length, len(b)))
	}
	return append(b, make([]byte, max(0, r.length-len(b)))...), nil
}

// octets reads the hexadecimal form; ok is false when expr is not of it.
func octets(expr string) (b []byte, ok bool, err error) {
	digits := strings.NewReplacer(" ", "", ":", "", "\n", "", "\t", "").Replace(expr)
	if digits == "" || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
		return nil, false, nil
	}
	if b, err = hex.DecodeString(digits); err != nil {
		return nil, true, &Error{expr, len(expr), "an odd number of hexadecimal digits"}
	}
	if len(b) > frame.MaxLen {
		return nil, true, &Error{expr, 0, fmt.Sprintf("%d octets, a frame has at most %d", len(b), frame.MaxLen)}
	}
	return b, true, nil
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

func (p *parser) kind(r *request) error {
	w, err := p.next("arp, icmp, udp, tcp, ip6, broadcast or octets in hexadecimal")
	if err != nil {
		return err
	}
	r.kind, r.kindPos = w.text, w.pos
	switch w.text {
	case "arp":
		if err = p.literal("who-has"); err == nil {
			if r.dst, _, err = p.addr(r, false); err == nil {
				if err = p.literal("tell"); err == nil {
					r.src, _, err = p.addr(nil, false)
				}
			}
		}
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
		return p.at(w.pos, fmt.Sprintf("unknown frame %q: want arp, icmp, udp, tcp, ip6, broadcast or octets in hexadecimal", w.text))
	}
	if err != nil {
		return err
	}
	switch {
	case r.src.Is4() != r.dst.Is4():
		return p.at(r.dstWord, "both addresses must be of one IP version")
	case r.kind == "arp" && !r.dst.Is4():
		return p.at(r.dstWord, "arp asks for an IPv4 address")
	case r.kind == "ip6" && r.dst.Is4():
		return p.at(r.dstWord, "ip6 wants IPv6 addresses")
	}
	return nil
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

func (p *parser) option(r *request) error {
	w, err := p.next("an option")
	if err != nil {
		return err
	}
	switch w.text {
	case "from":
		r.hasFrom = true
		r.from, err = p.mac()
	case "to":
		r.hasTo = true
		r.to, err = p.mac()
	case "vlan":
		var n int
		if n, err = p.number("a VLAN from 0 to 4095", 0, 4095); err != nil {
			return err
		}
		r.tag = frame.MakeTag(frame.VID(n), 0, false)
		if len(p.rest) > 0 && p.rest[0].text == "pcp" {
			p.rest = p.rest[1:]
			n, err = p.number("a priority from 0 to 7", 0, 7)
			r.tag = frame.MakeTag(r.tag.VID(), frame.PCP(n), false)
		}
	case "len":
		r.length, err = p.number("a length from 1 to 65550", 1, 65550)
	default:
		return p.at(w.pos, fmt.Sprintf("got %q, want from, to, vlan or len", w.text))
	}
	return err
}

func (p *parser) mac() (frame.MAC, error) {
	w, err := p.next("a MAC address")
	if err != nil {
		return frame.MAC{}, err
	}
	m, err := frame.ParseMAC(w.text)
	if err != nil {
		return m, p.at(w.pos, err.Error())
	}
	return m, nil
}

func (p *parser) number(want string, least, most int) (int, error) {
	w, err := p.next(want)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(w.text)
	if err != nil || n < least || n > most {
		return 0, p.at(w.pos, fmt.Sprintf("got %q, want %s", w.text, want))
	}
	return n, nil
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
