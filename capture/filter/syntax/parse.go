package syntax

import "fmt"

// Bounds of an expression.
const (
	MaxLen   = 4096 // octets
	MaxDepth = 100  // nested parentheses, signs and negations
	// maxVXLAN is how many `vxlan` an expression may hold; each takes one of the
	// 16 scratch registers of BPF.
	maxVXLAN = 4
)

// Levels of precedence, loosest first. As in pcap-filter(7), `and` and `or`
// bind equally, and so do all operators on bits.
const (
	levelLogic = 1 + iota
	levelRelation
	levelBits
	levelSum
	levelProduct
)

var levels = map[string]int{
	"and": levelLogic, "or": levelLogic,
	"=": levelRelation, "!=": levelRelation, "<": levelRelation, "<=": levelRelation, ">": levelRelation, ">=": levelRelation,
	"&": levelBits, "|": levelBits, "^": levelBits, "<<": levelBits, ">>": levelBits,
	"+": levelSum, "-": levelSum, "*": levelProduct, "/": levelProduct, "%": levelProduct,
}

// parser climbs precedence over one token of look-ahead.
type parser struct {
	lexer
	tok   token
	depth int
	env   Env
	regs  int8  // scratch registers taken by vxlan
	last  *Qual // qualifiers that a bare value takes over
}

// item is a condition or a number; which one shows only behind a parenthesis.
type item struct {
	cond Node
	num  *Number
	lit  *token // the token of a number that is one literal
	at   int
}

// Parse returns the tree of text, nil for an empty text, and how many registers
// hold the starts of inner frames.
func Parse(text string) (n Node, regs int8, err error) {
	if len(text) > MaxLen {
		return nil, 0, &Error{Column: 1, Msg: fmt.Sprintf("an expression has at most %d octets, not %d", MaxLen, len(text))}
	}
	p := &parser{lexer: lexer{text: text}, env: outer}
	if err := p.advance(); err != nil {
		return nil, 0, err
	}
	if p.tok.kind == tokEnd {
		return nil, 0, nil
	}
	it, err := p.expr(levelLogic)
	if err != nil {
		return nil, 0, err
	}
	if n, err = p.cond(it); err != nil {
		return nil, 0, err
	}
	if p.tok.kind != tokEnd {
		return nil, 0, p.stray()
	}
	return n, p.regs, nil
}

// stray says that the current token can't stand where it does.
func (p *parser) stray() *Error {
	e := p.errorf(p.tok.at, "unexpected %s", p.tok.describe())
	switch {
	case p.tok.text == ")":
		return e.hint("there is no ( that it closes")
	case p.tok.kind == tokWord && !known(p.tok.text):
		return p.unknown()
	case p.tok.kind != tokOp:
		return e.hint("put `and` or `or` in front of it")
	}
	return e
}

// unknown says that the current word is none of the language.
func (p *parser) unknown() *Error {
	e := p.errorf(p.tok.at, "unknown word %q", p.tok.text)
	if h, ok := elsewhere[p.tok.text]; ok {
		e.Hint = h
		return e
	}
	if _, ok := p.tok.asService(); ok {
		return e.hint("write `port %s`", p.tok.text)
	}
	if w := nearest(p.tok.text, vocabulary()); w != "" {
		return e.hint("did you mean %s?", w)
	}
	return e.hint("names are not looked up: give an address or a number")
}

func (t token) describe() string {
	if t.kind == tokEnd {
		return "end of the expression"
	}
	return fmt.Sprintf("%q", t.text)
}

func (p *parser) advance() (err error) {
	p.tok, err = p.next()
	return err
}

// is reports whether the current token is the word or operator s.
func (p *parser) is(s string) bool {
	return (p.tok.kind == tokOp || p.tok.kind == tokWord) && p.tok.text == s
}

// take goes past the word or operator s, if it comes next.
func (p *parser) take(s string) (bool, error) {
	if !p.is(s) {
		return false, nil
	}
	return true, p.advance()
}

func (p *parser) want(s, why string) error {
	if ok, err := p.take(s); ok || err != nil {
		return err
	}
	return p.errorf(p.tok.at, "unexpected %s: %q is missing", p.tok.describe(), s).hint("%s", why)
}

func (p *parser) nest() error {
	if p.depth++; p.depth > MaxDepth {
		return p.errorf(p.tok.at, "more than %d levels of nesting", MaxDepth)
	}
	return nil
}

// expr reads an expression of operators that bind at least as tightly as level.
func (p *parser) expr(level int) (item, error) {
	left, err := p.unary()
	for err == nil {
		op := p.tok.text
		l := levels[op]
		if p.tok.kind != tokOp && p.tok.kind != tokWord || l < level {
			return left, nil
		}
		if l == levelLogic {
			if left.cond, err = p.cond(left); err != nil {
				return left, err
			}
		}
		if err = p.advance(); err != nil {
			return left, err
		}
		var right item
		if right, err = p.expr(l + 1); err != nil {
			return left, err
		}
		if left, err = p.join(op, l, left, right); err == nil && l == levelRelation && levels[p.tok.text] == levelRelation && p.tok.kind == tokOp {
			return left, p.errorf(p.tok.at, "a comparison can't be compared").hint("join comparisons by `and`")
		}
	}
	return left, err
}

// join makes one item of two operands.
func (p *parser) join(op string, level int, a, b item) (item, error) {
	out := item{at: a.at}
	if level == levelLogic {
		n, err := p.cond(b)
		out.cond = Logic{Or: op == "or", A: a.cond, B: n}
		return out, err
	}
	for _, x := range []item{a, b} {
		if x.num == nil {
			return out, p.errorf(x.at, "%q needs a number on each side, and this is a condition", op).hint("conditions are joined by `and`, `or` and `not`")
		}
	}
	if level == levelRelation {
		p.last = nil
		out.cond = Relation{Op: op, A: a.num, B: b.num}
		return out, nil
	}
	if b.num.Op == "" {
		switch {
		case (op == "/" || op == "%") && b.num.Val == 0:
			return out, p.errorf(b.at, "division by zero")
		case (op == "<<" || op == ">>") && b.num.Val > 31:
			return out, p.errorf(b.at, "a shift by more than 31 bits")
		}
	}
	out.num = &Number{Op: op, A: a.num, B: b.num}
	return out, nil
}

// cond makes a condition of it: a bare number takes over the last qualifiers.
func (p *parser) cond(it item) (Node, error) {
	if it.cond != nil {
		return it.cond, nil
	}
	if it.lit != nil && p.last != nil {
		switch p.last.Kind {
		case KindPort:
			if err := p.portFits(it.lit.text, it.lit.num, it.at); err != nil {
				return nil, err
			}
			return p.test(*p.last, Value{Given: true, Num: it.lit.num}, it.at)
		case KindProto:
			return p.test(*p.last, Value{Given: true, Num: it.lit.num}, it.at)
		case KindNet:
			return p.test(*p.last, shortNet(it.lit.num), it.at)
		}
	}
	e := p.errorf(it.at, "a number is no condition")
	if it.lit != nil {
		return nil, e.hint("say what it is, as in `port %s`", it.lit.text)
	}
	return nil, e.hint("compare it, as in `ip[8] < 2`")
}

// unary reads an operand with its signs.
func (p *parser) unary() (item, error) {
	at := p.tok.at
	if err := p.nest(); err != nil {
		return item{}, err
	}
	defer func() { p.depth-- }()
	switch {
	case p.is("("):
		if err := p.advance(); err != nil {
			return item{}, err
		}
		it, err := p.expr(levelLogic)
		if err != nil {
			return it, err
		}
		it.at = at
		return it, p.want(")", "close what was opened")
	case p.is("not"):
		if err := p.advance(); err != nil {
			return item{}, err
		}
		it, err := p.expr(levelRelation)
		if err != nil {
			return it, err
		}
		n, err := p.cond(it)
		return item{cond: Negation{n}, at: at}, err
	case p.is("-"):
		if err := p.advance(); err != nil {
			return item{}, err
		}
		it, err := p.unary()
		if err == nil && it.num == nil {
			err = p.errorf(it.at, `"-" needs a number, and this is a condition`)
		}
		return item{num: &Number{Op: "neg", A: it.num}, at: at}, err
	}
	return p.operand()
}

// operand reads a number, a load or a primitive.
func (p *parser) operand() (item, error) {
	t := p.tok
	it := item{at: t.at}
	switch t.kind {
	case tokNum:
		it.num, it.lit = &Number{Val: t.num}, &t
		return it, p.advance()
	case tokAddr4, tokAddr6, tokMAC:
		if p.last == nil || p.last.Kind > KindNet || p.last.Kind == KindAlone {
			e := p.errorf(t.at, "%q stands alone", t.text)
			if t.kind == tokMAC {
				return it, e.hint("write `ether host %s`", t.text)
			}
			return it, e.hint("write `host %s`", t.text)
		}
		n, err := p.valueOf(*p.last)
		it.cond = n
		return it, err
	case tokWord:
	default:
		return it, p.errorf(t.at, "unexpected %s: a condition is missing", t.describe())
	}
	if v, ok := numbers[t.text]; ok {
		it.num = &Number{Val: v}
		return it, p.advance()
	}
	if t.text == "len" {
		it.num = &Number{Op: "len"}
		return it, p.advance()
	}
	if !known(t.text) {
		if _, ok := t.asService(); ok && p.last != nil && (p.last.Kind == KindPort || p.last.Kind == KindRange) {
			n, err := p.valueOf(*p.last)
			it.cond = n
			return it, err
		}
		return it, p.unknown()
	}
	return p.primitive()
}

// load reads the offset and size of proto[offset:size].
func (p *parser) load(of Proto, at int) (item, error) {
	name := p.text[at:p.tok.at]
	switch of {
	case ProtoAH, ProtoESP, ProtoSTP, ProtoAny:
		return item{}, p.errorf(at, "%q can't be indexed", name).hint("count from another header, as in `ip[20]`")
	}
	if err := p.advance(); err != nil {
		return item{}, err
	}
	start := p.tok.at
	idx, err := p.expr(levelBits)
	if err != nil {
		return idx, err
	}
	if idx.num == nil {
		return idx, p.errorf(start, "an offset is a number")
	}
	n := &Number{Op: "load", A: idx.num, Of: of, Size: 1, Env: p.env}
	if ok, err := p.take(":"); err != nil {
		return idx, err
	} else if ok {
		t := p.tok
		if t.kind != tokNum || t.num != 1 && t.num != 2 && t.num != 4 {
			return idx, p.errorf(t.at, "a size is 1, 2 or 4 octets, not %s", t.describe())
		}
		n.Size = int(t.num)
		if err := p.advance(); err != nil {
			return idx, err
		}
	}
	return item{num: n, at: at}, p.want("]", "an offset is closed by ]")
}
