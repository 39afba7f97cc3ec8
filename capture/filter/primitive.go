package filter

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// primitive reads qualifiers and the value they qualify, or a word that is a
// condition by itself.
func (p *parser) primitive() (item, error) {
	at := p.tok.at
	switch w := p.tok.text; w {
	case "less", "greater":
		return p.length(w)
	case "broadcast", "multicast":
		return p.alone(qual{kind: groupKind(w)}, value{}, at)
	case "vlan", "vxlan":
		return p.encapsulation(w)
	}
	var q qual
	if of, ok := protoWords[p.tok.text]; ok {
		q.proto = of
		if err := p.advance(); err != nil {
			return item{}, err
		}
		if p.is("[") {
			return p.load(of, at)
		}
		if p.is("broadcast") || p.is("multicast") {
			q.kind = groupKind(p.tok.text)
			return p.alone(q, value{}, at)
		}
	}
	if err := p.direction(&q); err != nil {
		return item{}, err
	}
	if k, ok := kindWords[p.tok.text]; ok && p.tok.kind == tokWord {
		q.kind = k
		if err := p.advance(); err != nil {
			return item{}, err
		}
	}
	if q == (qual{}) {
		return item{}, p.errorf(at, "unexpected %q", p.tok.text)
	}
	if q.dir == dirAny && q.kind == kindNone {
		if p.tok.kind == tokNum || p.tok.kind >= tokAddr4 {
			return item{}, p.bare(q, at)
		}
		q.kind = kindAlone
		n, err := p.test(q, value{}, at)
		p.last = nil
		return item{cond: n, at: at}, err
	}
	n, err := p.identifier(q)
	return item{cond: n, at: at}, err
}

// bare says that a value follows a protocol directly.
func (p *parser) bare(q qual, at int) *Error {
	word := p.text[at:p.tok.at]
	e := p.errorf(p.tok.at, "unexpected %q", p.tok.text)
	switch {
	case p.tok.kind == tokNum && (q.proto == protoTCP || q.proto == protoUDP || q.proto == protoSCTP):
		return e.hint("write `%sport %s`", word, p.tok.text)
	case p.tok.kind == tokNum:
		return e.hint("write `%sproto %s`", word, p.tok.text)
	}
	return e.hint("write `%shost %s`", word, p.tok.text)
}

func groupKind(word string) kind {
	if word == "broadcast" {
		return kindBroadcast
	}
	return kindMulticast
}

// direction reads src, dst, `src or dst`, `src and dst`.
func (p *parser) direction(q *qual) error {
	if !p.is("src") && !p.is("dst") {
		return nil
	}
	first := p.tok.text
	q.dir = map[string]dir{"src": dirSrc, "dst": dirDst}[first]
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
	q.dir = dirAny
	if both {
		q.dir = dirBoth
	}
	if q.kind == kindNone {
		q.kind = kindHost
	}
	return p.advance()
}

// alone makes a condition of words without a value and goes past the last.
func (p *parser) alone(q qual, v value, at int) (item, error) {
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
	it.cond = relation{op: op, a: &number{op: "len"}, b: &number{val: p.tok.num}}
	return it, p.advance()
}

// encapsulation reads `vlan [N]` and `vxlan [N]` and moves what follows inside.
func (p *parser) encapsulation(word string) (item, error) {
	it := item{at: p.tok.at}
	if err := p.advance(); err != nil {
		return it, err
	}
	pr := primitive{qual: qual{kind: kindVLAN}, env: p.env}
	most := uint32(4095)
	if word == "vxlan" {
		pr.kind, most = kindVXLAN, 1<<24-1
	}
	if p.tok.kind == tokNum {
		if p.tok.num > most {
			return it, p.errorf(p.tok.at, "%s %s: the largest is %d", word, p.tok.text, most)
		}
		pr.given, pr.num = true, p.tok.num
		if err := p.advance(); err != nil {
			return it, err
		}
	}
	if word == "vlan" {
		p.env.link += 4
		p.env.payload += 4
	} else {
		if p.regs == maxVXLAN {
			return it, p.errorf(it.at, "more than %d times vxlan", maxVXLAN)
		}
		p.regs++
		pr.reg = p.regs
		p.env = env{reg: p.regs, link: 12, payload: 14}
	}
	p.last = nil
	it.cond = pr
	return it, nil
}

// identifier reads the value of q, or several in parentheses.
func (p *parser) identifier(q qual) (node, error) {
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
		return negation{n}, err
	case p.tok.kind == tokEnd:
		return nil, p.errorf(at, "a value is missing at the end of the expression")
	}
	return p.valueOf(q)
}

// valueOf reads one value of q and makes the test of it.
func (p *parser) valueOf(q qual) (node, error) {
	t := p.tok
	var v value
	var err error
	switch q.kind {
	case kindPort, kindRange:
		v, err = p.ports(q.kind)
	case kindProto:
		v, err = p.protocol(q)
	case kindNet:
		v, err = p.network()
	default:
		v, err = p.host()
	}
	if err != nil {
		return nil, err
	}
	return p.test(q, v, t.at)
}

func (p *parser) ports(k kind) (v value, err error) {
	if v.num, err = p.port(); err != nil || k == kindPort {
		return v, err
	}
	if err := p.want("-", "a range is written 8000-8080"); err != nil {
		return v, err
	}
	if v.end, err = p.port(); err == nil && v.end < v.num {
		v.num, v.end = v.end, v.num // as pcap-filter does
	}
	return v, err
}

func (p *parser) port() (uint32, error) {
	t := p.tok
	if t.kind != tokNum {
		e := p.errorf(t.at, "unexpected %s: a port is a number", t.describe())
		if n, ok := services[t.text]; ok {
			return 0, e.hint("%s is port %d", t.text, n)
		}
		return 0, e
	}
	if t.num > 65535 {
		return 0, p.errorf(t.at, "port %s: the largest is 65535", t.text)
	}
	return t.num, p.advance()
}

// protocol reads a number or name behind `proto`.
func (p *parser) protocol(q qual) (v value, err error) {
	t := p.tok
	switch t.kind {
	case tokNum:
		v.num = t.num
	case tokWord:
		of, ok := protoWords[t.text]
		if v.num, ok = protoNumbers[of], ok && protoNumbers[of] != 0; q.proto == protoEther {
			v.num, ok = etherTypes[of]
			if of == protoSTP {
				v.num, ok = stpSAP, true
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
func (p *parser) host() (v value, err error) {
	t := p.tok
	switch t.kind {
	case tokMAC:
		v.ether, v.mac = true, t.mac
	case tokAddr4:
		v.num, v.mask = short4(t)
	case tokAddr6:
		v.net = netip.PrefixFrom(t.addr, 128)
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
func shortNet(n uint32) value {
	v := value{given: true, num: n, mask: ^uint32(0)}
	for v.num != 0 && v.num>>24 == 0 {
		v.num <<= 8
		v.mask <<= 8
	}
	return v
}

// network reads an address with a prefix length or mask.
func (p *parser) network() (v value, err error) {
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
		if v.net = netip.PrefixFrom(t.addr, length); v.net.Masked() != v.net {
			return v, p.errorf(t.at, "%s/%d has bits behind its prefix", t.text, length).hint("the network is %s", v.net.Masked())
		}
		return v, nil
	}
	if t.kind == tokNum {
		v = shortNet(t.num)
	} else {
		v.num, v.mask = short4(t)
	}
	switch {
	case length >= 0:
		v.mask = uint32(^uint64(0) << (32 - length))
	case p.is("mask"):
		if err := p.advance(); err != nil {
			return v, err
		}
		if p.tok.kind != tokAddr4 || p.tok.octets != 4 {
			return v, p.errorf(p.tok.at, "unexpected %s: a mask such as 255.255.255.0 is missing", p.tok.describe())
		}
		v.mask, _ = short4(p.tok)
		if err := p.advance(); err != nil {
			return v, err
		}
	}
	if v.num&^v.mask != 0 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], v.num&v.mask)
		return v, p.errorf(t.at, "%s has bits behind its mask", t.text).hint("the network is %s/%d", netip.AddrFrom4(b), bits.OnesCount32(v.mask))
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
