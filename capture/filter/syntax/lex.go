package syntax

import (
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokEnd   tokenKind = iota
	tokOp              // an operator or bracket; text holds it
	tokWord            // a keyword, or \word
	tokNum             // 42, 052, 0x2a
	tokAddr4           // 10.1.0.2, and 10.1 or 10.1.0 for networks
	tokAddr6
	tokMAC
)

type token struct {
	kind   tokenKind
	text   string
	at     int // octet where it starts
	num    uint32
	octets int // of a tokAddr4, 2 to 4
	addr   netip.Addr
	mac    [6]byte
}

// lexer cuts an expression into tokens.
type lexer struct {
	text    string
	pos     int
	bracket bool // inside [ ], where a colon parts offset and size
}

// operators, longest first.
var operators = []string{"&&", "||", "==", "!=", ">=", "<=", "<<", ">>", "(", ")", "[", "]", ":", "/", "*", "%", "+", "-", "&", "|", "^", "=", "<", ">", "!"}

// synonyms are operators with a name of their own.
var synonyms = map[string]string{"&&": "and", "||": "or", "!": "not", "==": "="}

func (l *lexer) next() (token, error) {
	for l.pos < len(l.text) && strings.IndexByte(" \t\r\n", l.text[l.pos]) >= 0 {
		l.pos++
	}
	rest := l.text[l.pos:]
	if rest == "" {
		return token{at: l.pos}, nil
	}
	if !l.bracket && (alnum(rest[0]) || strings.HasPrefix(rest, "::")) {
		if n := span(rest, func(c byte) bool { return hexDigit(c) || c == ':' || c == '.' }); strings.IndexByte(rest[:n], ':') >= 0 {
			return l.colons(rest[:n])
		}
	}
	switch {
	case digit(rest[0]):
		return l.number(rest)
	case alnum(rest[0]), rest[0] == '\\':
		return l.word(rest)
	}
	for _, op := range operators {
		if strings.HasPrefix(rest, op) {
			t := token{kind: tokOp, text: op, at: l.pos}
			if s, ok := synonyms[op]; ok {
				t.text = s
			}
			l.pos += len(op)
			if op == "[" || op == "]" {
				l.bracket = op == "["
			}
			return t, nil
		}
	}
	r, _ := utf8.DecodeRuneInString(rest)
	e := l.errorf(l.pos, "unexpected character %q", r)
	if r == ',' {
		return token{}, e.hint("values are joined by `or`, as in `port 80 or 443`")
	}
	return token{}, e
}

// colons reads a MAC or IPv6 address.
func (l *lexer) colons(s string) (token, error) {
	t := token{text: s, at: l.pos}
	l.pos += len(s)
	if m, ok := parseMAC(s); ok {
		t.kind, t.mac = tokMAC, m
		return t, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() {
		return t, l.errorf(t.at, "%q is neither a MAC nor an IPv6 address", s)
	}
	t.kind, t.addr = tokAddr6, a
	return t, nil
}

// parseMAC reads six groups of one or two digits.
func parseMAC(s string) (m [6]byte, ok bool) {
	groups := strings.Split(s, ":")
	if len(groups) != len(m) {
		return m, false
	}
	for i, g := range groups {
		v, err := strconv.ParseUint(g, 16, 8)
		if err != nil || len(g) > 2 {
			return m, false
		}
		m[i] = byte(v)
	}
	return m, true
}

// number reads a number or an IPv4 address.
func (l *lexer) number(rest string) (token, error) {
	n := span(rest, func(c byte) bool { return alnum(c) || c == '.' || c == '_' })
	t := token{kind: tokNum, text: rest[:n], at: l.pos}
	l.pos += n
	if strings.IndexByte(t.text, '.') >= 0 {
		return l.dotted(t)
	}
	v, err := strconv.ParseUint(t.text, 0, 32)
	if err != nil || strings.ContainsAny(t.text, "_oObB") && !strings.HasPrefix(t.text, "0x") || strings.Contains(t.text, "_") {
		return t, l.errorf(t.at, "%q is no number from 0 to 4294967295", t.text)
	}
	t.num = uint32(v)
	return t, nil
}

func (l *lexer) dotted(t token) (token, error) {
	t.kind = tokAddr4
	parts := strings.Split(t.text, ".")
	t.octets = len(parts)
	var b [4]byte
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 8)
		if err != nil || i > 3 || len(p) > 1 && p[0] == '0' {
			return t, l.errorf(t.at, "%q is no IPv4 address", t.text).hint("write it as four decimal numbers without leading zeros, such as 10.1.0.2")
		}
		b[i] = byte(v)
	}
	t.addr = netip.AddrFrom4(b)
	return t, nil
}

// inWord reports whether c may stand in a word behind its first letter.
func inWord(c byte) bool { return alnum(c) || c == '-' || c == '_' || c == '.' }

// word reads a keyword or the name of a service. A hyphen belongs to it unless both
// sides have a meaning without it.
func (l *lexer) word(rest string) (token, error) {
	t := token{kind: tokWord, at: l.pos}
	if rest[0] == '\\' {
		rest = rest[1:]
		l.pos++
	}
	whole := rest[:span(rest, inWord)]
	t.text = whole
	for i := len(whole); i >= 0; i = strings.LastIndexByte(whole[:i], '-') {
		if meant(whole[:i]) && (i == len(whole) || operand(whole[i+1:])) {
			t.text = whole[:i]
			break
		}
	}
	if t.text == "" {
		return t, l.errorf(t.at, `a name must follow \`)
	}
	l.pos += len(t.text)
	return t, nil
}

// meant reports whether s is a keyword or the name of a service.
func meant(s string) bool {
	_, service := services[s]
	return service || known(s)
}

// operand reports whether s, which follows a hyphen, begins with something that can
// be taken from what comes before: a number or a known word, or nothing.
func operand(s string) bool {
	first, _, _ := strings.Cut(s, "-")
	return s == "" || digit(s[0]) || meant(s) || meant(first)
}

func span(s string, in func(c byte) bool) int {
	n := 0
	for n < len(s) && in(s[n]) {
		n++
	}
	return n
}

func digit(c byte) bool    { return c >= '0' && c <= '9' }
func hexDigit(c byte) bool { return digit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
func alnum(c byte) bool    { return digit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
