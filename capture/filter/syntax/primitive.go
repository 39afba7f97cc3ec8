package syntax

import (
	"encoding/binary"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
)

// primitive reads qualifiers and the value they qualify, or a word that is a
// condition by itself.
func (p *parser) primitive() (item, error) {
	at := p.tok.at
	switch w := p.tok.text; w {
	case "less", "greater":
		return p.length(w)
	case "broadcast", "multicast":
		return p.alone(Qual{Kind: groupKind(w)}, Value{}, at)
	case "vlan", "vxlan":
		return p.encapsulation(w)
	}
	var q Qual
	if of, ok := protoWords[p.tok.text]; ok {
		q.Proto = of
		if err := p.advance(); err != nil {
			return item{}, err
		}
		if p.is("[") {
			return p.load(of, at)
		}
		if p.is("broadcast") || p.is("multicast") {
			q.Kind = groupKind(p.tok.text)
			return p.alone(q, Value{}, at)
		}
	}
	if err := p.direction(&q); err != nil {
		return item{}, err
	}
	if k, ok := kindWords[p.tok.text]; ok && p.tok.kind == tokWord {
		q.Kind = k
		if err := p.advance(); err != nil {
			return item{}, err
		}
	}
	if q == (Qual{}) {
		return item{}, p.errorf(at, "unexpected %q", p.tok.text)
	}
	if q.Dir == DirAny && q.Kind == KindNone {
		if p.tok.kind == tokNum || p.tok.kind >= tokAddr4 {
			return item{}, p.bare(q, at)
		}
		q.Kind = KindAlone
		n, err := p.test(q, Value{}, at)
		p.last = nil
		return item{cond: n, at: at}, err
	}
	n, err := p.identifier(q)
	return item{cond: n, at: at}, err
}

// bare says that a value follows a protocol directly.
func (p *parser) bare(q Qual, at int) *Error {
	word := p.text[at:p.tok.at]
	e := p.errorf(p.tok.at, "unexpected %q", p.tok.text)
	switch {
	case p.tok.kind == tokNum && (q.Proto == ProtoTCP || q.Proto == ProtoUDP || q.Proto == ProtoSCTP):
		return e.hint("write `%sport %s`", word, p.tok.text)
	case p.tok.kind == tokNum:
		return e.hint("write `%sproto %s`", word, p.tok.text)
	}
	return e.hint("write `%shost %s`", word, p.tok.text)
}

func groupKind(word string) Kind {
	if word == "broadcast" {
		return KindBroadcast
	}
	return KindMulticast
}

// direction reads src, dst, `src or dst`, `src and dst`.
func (p *parser) direction(q *Qual) error {
	if !p.is("src") && !p.is("dst") {
		return nil
	}
	first := p.tok.text
	q.Dir = map[string]Dir{"src": DirSrc, "dst": DirDst}[first]
	if err := p.advance(); err != nil {
		return err
	}
	if !p.is("or") && !p.is("and") {
		return nil
	}
	// Only the other direction continues the pair; a value can't be missing here.
	both := p.is("and")
	if err := p.advance(); err != nil {
		return err
	}
	if !p.is("src") && !p.is("dst") || p.is(first) {
		return p.errorf(p.tok.at, "unexpected %s behind `%s or`", p.tok.describe(), first).hint("give %s an address or a port", first)
	}
	q.Dir = DirAny
	if both {
		q.Dir = DirBoth
	}
	if q.Kind == KindNone {
		q.Kind = KindHost
	}
	return p.advance()
}

// alone makes a condition of words without a value and goes past the last.
func (p *parser) alone(q Qual, v Value, at int) (item, error) {
	n, err := p.test(q, v, at)
	p.last = nil
	if err != nil {
		return item{}, err
	}
	return item{cond: n, at: at}, p.advance()
}

// length reads `less N` and `greater N`.
func (p *parser) length(word string) (item, error) {
	it := item{at: p.tok.at}
	if err := p.advance(); err != nil {
		return it, err
	}
	if p.tok.kind != tokNum {
		return it, p.errorf(p.tok.at, "unexpected %s: %s wants a number of octets", p.tok.describe(), word)
	}
	op := map[string]string{"less": "<=", "greater": ">="}[word]
	p.last = nil
	it.cond = Relation{Op: op, A: &Number{Op: "len"}, B: &Number{Val: p.tok.num}}
	return it, p.advance()
}

// encapsulation reads `vlan [N]` and `vxlan [N]` and moves what follows inside.
func (p *parser) encapsulation(word string) (item, error) {
	it := item{at: p.tok.at}
	if err := p.advance(); err != nil {
		return it, err
	}
	pr := Primitive{Qual: Qual{Kind: KindVLAN}, Env: p.env}
	most := uint32(4095)
	if word == "vxlan" {
		pr.Kind, most = KindVXLAN, 1<<24-1
	}
	if p.tok.kind == tokNum {
		if p.tok.num > most {
			return it, p.errorf(p.tok.at, "%s %s: the largest is %d", word, p.tok.text, most)
		}
		pr.Given, pr.Num = true, p.tok.num
		if err := p.advance(); err != nil {
			return it, err
		}
	}
	if word == "vlan" {
		p.env.Link += 4
		p.env.Payload += 4
	} else {
		if p.regs == maxVXLAN {
			return it, p.errorf(it.at, "more than %d times vxlan", maxVXLAN)
		}
		p.regs++
		pr.Reg = p.regs
		p.env = Env{Reg: p.regs, Link: 12, Payload: 14}
	}
	p.last = nil
	it.cond = pr
	return it, nil
}

// identifier reads the value of q, or several in parentheses.
func (p *parser) identifier(q Qual) (Node, error) {
	p.last = &q
	at := p.tok.at
	switch {
	case p.is("("):
		it, err := p.unary()
		if err != nil {
			return nil, err
		}
		return p.cond(it)
	case p.is("not"):
		if err := p.nest(); err != nil {
			return nil, err
		}
		defer func() { p.depth-- }()
		if err := p.advance(); err != nil {
			return nil, err
		}
		n, err := p.identifier(q)
		return Negation{n}, err
	case p.tok.kind == tokEnd:
		return nil, p.errorf(at, "a value is missing at the end of the expression")
	}
	return p.valueOf(q)
}

// valueOf reads one value of q and makes the test of it.
func (p *parser) valueOf(q Qual) (Node, error) {
	t := p.tok
	var v Value
	var err error
	narrowed := q
	switch q.Kind {
	case KindPort, KindRange:
		var of Proto
		if v, of, err = p.ports(q.Kind); err == nil {
			var e *Error
			if narrowed, e = p.narrow(q, of, t.at); e != nil {
				return nil, e
			}
		}
	case KindProto:
		v, err = p.protocol(q)
	case KindNet:
		v, err = p.network()
	default:
		v, err = p.host()
	}
	if err == nil && p.is("-") {
		err = p.hyphen(q.Kind, t)
	}
	if err != nil {
		return nil, err
	}
	n, err := p.test(narrowed, v, t.at)
	if q.Kind != KindAlone {
		p.last = &q // a bare value is not narrowed by the name before it
	}
	return n, err
}

// hyphen says how to write the range that a hyphen behind the value t stands for.
func (p *parser) hyphen(k Kind, t token) error {
	e := p.errorf(p.tok.at, `unexpected "-"`)
	if err := p.advance(); err != nil {
		return err
	}
	switch k {
	case KindPort:
		return e.hint("write `portrange %s-%s`", t.text, p.tok.text)
	case KindNone, KindHost, KindNet:
		return e.hint("addresses in a row are a network, such as `net 10.1.0.0/24`")
	}
	return e
}

// ports reads a port or a range, and whose ports the names in it are.
func (p *parser) ports(k Kind) (v Value, of Proto, err error) {
	lo, err := p.port()
	if v.Num = lo.port; err != nil || k == KindPort {
		return v, lo.proto, err
	}
	if err := p.want("-", "a range is written 8000-8080"); err != nil {
		return v, of, err
	}
	hi, err := p.port()
	if v.End = hi.port; v.End < v.Num {
		v.Num, v.End = v.End, v.Num // as pcap-filter does
	}
	return v, protoOf(lo, hi), err
}

// port reads a number or the name of a service.
func (p *parser) port() (service, error) {
	t := p.tok
	if s, ok := t.asService(); ok {
		return s, p.advance()
	}
	if t.kind == tokNum {
		if err := p.portFits(t.text, t.num, t.at); err != nil {
			return service{}, err
		}
		return service{port: t.num}, p.advance()
	}
	e := p.errorf(t.at, "unexpected %s: a port is a number or the name of a service", t.describe())
	if t.kind == tokWord && !known(t.text) {
		if s := nearest(t.text, slices.Sorted(maps.Keys(services))); s != "" {
			return service{}, e.hint("did you mean %s?", s)
		}
		return service{}, e.hint("give its number: few names are known, and none is looked up")
	}
	return service{}, e
}

func (p *parser) portFits(text string, n uint32, at int) error {
	if n > 65535 {
		return p.errorf(at, "port %s: the largest is 65535", text)
	}
	return nil
}

// protocol reads a number or name behind `proto`.
func (p *parser) protocol(q Qual) (v Value, err error) {
	t := p.tok
	switch t.kind {
	case tokNum:
		v.Num = t.num
	case tokWord:
		of, ok := protoWords[t.text]
		if v.Num, ok = ProtoNumbers[of], ok && ProtoNumbers[of] != 0; q.Proto == ProtoEther {
			v.Num, ok = EtherTypes[of]
			if of == ProtoSTP {
				v.Num, ok = STPSAP, true
			}
		}
		if !ok {
			return v, p.errorf(t.at, "%q is no protocol here", t.text).hint("give its number")
		}
	default:
		return v, p.errorf(t.at, "unexpected %s: a protocol is a name or a number", t.describe())
	}
	return v, p.advance()
}

// host reads an address.
func (p *parser) host() (v Value, err error) {
	t := p.tok
	switch t.kind {
	case tokMAC:
		v.Ether, v.MAC = true, t.mac
	case tokAddr4:
		v.Num, v.Mask = short4(t)
	case tokAddr6:
		v.Net = netip.PrefixFrom(t.addr, 128)
	default:
		e := p.errorf(t.at, "unexpected %s: an address is missing", t.describe())
		if t.kind == tokWord && !known(t.text) {
			return v, e.hint("names are not looked up")
		}
		return v, e
	}
	if err := p.advance(); err != nil {
		return v, err
	}
	if p.is("/") && t.kind != tokMAC {
		return v, p.errorf(p.tok.at, "a mask makes this a network").hint("write `net %s/…`", t.text)
	}
	return v, nil
}

// short4 is a possibly shortened IPv4 address with its mask: 10.1 is 10.1.0.0/16.
func short4(t token) (num, mask uint32) {
	a := t.addr.As4()
	return binary.BigEndian.Uint32(a[:]), ^uint32(0) << (32 - 8*t.octets)
}

// shortNet is a network given by one number: 10 is 10.0.0.0/8.
func shortNet(n uint32) Value {
	v := Value{Given: true, Num: n, Mask: ^uint32(0)}
	for v.Num != 0 && v.Num>>24 == 0 {
		v.Num <<= 8
		v.Mask <<= 8
	}
	return v
}

// network reads an address with a prefix length or mask.
func (p *parser) network() (v Value, err error) {
	t := p.tok
	switch t.kind {
	case tokNum, tokAddr4, tokAddr6:
	default:
		return v, p.errorf(t.at, "unexpected %s: a network such as 10.1.0.0/24 is missing", t.describe())
	}
	if err := p.advance(); err != nil {
		return v, err
	}
	most := 32
	if t.kind == tokAddr6 {
		most = 128
	}
	length, err := p.prefixLen(most)
	if err != nil {
		return v, err
	}
	if t.kind == tokAddr6 {
		if length < 0 {
			length = 128
		}
		if v.Net = netip.PrefixFrom(t.addr, length); v.Net.Masked() != v.Net {
			return v, p.errorf(t.at, "%s/%d has bits behind its prefix", t.text, length).hint("the network is %s", v.Net.Masked())
		}
		return v, nil
	}
	if t.kind == tokNum {
		v = shortNet(t.num)
	} else {
		v.Num, v.Mask = short4(t)
	}
	switch {
	case length >= 0:
		v.Mask = uint32(^uint64(0) << (32 - length))
	case p.is("mask"):
		if err := p.advance(); err != nil {
			return v, err
		}
		if p.tok.kind != tokAddr4 || p.tok.octets != 4 {
			return v, p.errorf(p.tok.at, "unexpected %s: a mask such as 255.255.255.0 is missing", p.tok.describe())
		}
		v.Mask, _ = short4(p.tok)
		if err := p.advance(); err != nil {
			return v, err
		}
	}
	if v.Num&^v.Mask != 0 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], v.Num&v.Mask)
		return v, p.errorf(t.at, "%s has bits behind its mask", t.text).hint("the network is %s/%d", netip.AddrFrom4(b), bits.OnesCount32(v.Mask))
	}
	return v, nil
}

// prefixLen reads /N, and returns -1 when there is none.
func (p *parser) prefixLen(most int) (int, error) {
	if ok, err := p.take("/"); !ok || err != nil {
		return -1, err
	}
	t := p.tok
	if t.kind != tokNum || t.num > uint32(most) {
		return 0, p.errorf(t.at, "unexpected %s: a prefix length is 0 to %d", t.describe(), most)
	}
	return int(t.num), p.advance()
}
