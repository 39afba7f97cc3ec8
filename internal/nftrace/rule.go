package nftrace

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Rule is a rule in words, or with Text empty a chain's policy. Table, chain,
// comment and the names in Text are whatever their maker has chosen.
type Rule struct {
	Hook     string `json:"hook,omitempty"`     // of the chain: prerouting, input, …; empty = it is jumped to
	Priority int32  `json:"priority,omitempty"` // of the chain at its hook
	Policy   string `json:"policy,omitempty"`   // of the chain
	// Text is the rule much as nft writes it. What this package doesn't know
	// stands as its kind in angle brackets, as <osf>.
	Text    string `json:"text,omitempty"`
	Comment string `json:"comment,omitempty"`
	Counted bool   `json:"counted,omitempty"` // the rule has a counter:
	Packets uint64 `json:"packets,omitempty"`
	Bytes   uint64 `json:"bytes,omitempty"`
}

var hooks = [...]string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}

// Describe reads what Fetch has returned. What is malformed is left out.
func Describe(raw Raw) Rule {
	var r Rule
	for t, v := range attributes(raw.Chain) {
		switch t {
		case unix.NFTA_CHAIN_HOOK:
			if n := u32(find(v, unix.NFTA_HOOK_HOOKNUM)); int(n) < len(hooks) {
				r.Hook = hooks[n]
			}
			r.Priority = int32(u32(find(v, unix.NFTA_HOOK_PRIORITY)))
		case unix.NFTA_CHAIN_POLICY:
			r.Policy = Verdict(u32(v)).String()
		}
	}
	for t, v := range attributes(raw.Rule) {
		switch t {
		case unix.NFTA_RULE_EXPRESSIONS:
			r.describe(v)
		case unix.NFTA_RULE_USERDATA:
			if c := comment(v); c != "" {
				r.Comment = c
			}
		}
	}
	return r
}

// maxExpressions bounds the expressions of a rule that are read (the kernel
// allows 128, NFT_RULE_MAXEXPRS).
const maxExpressions = 128

// describe reads a rule's expressions.
func (r *Rule) describe(list []byte) {
	w := writer{loaded: make(map[uint32]operand)}
	n := 0
	for t, e := range attributes(list) {
		if n++; n > maxExpressions {
			break
		}
		if t != unix.NFTA_LIST_ELEM {
			continue
		}
		kind, d := name(find(e, unix.NFTA_EXPR_NAME)), find(e, unix.NFTA_EXPR_DATA)
		switch kind {
		case "counter":
			r.Counted = true
			r.Packets, r.Bytes = u64(find(d, unix.NFTA_COUNTER_PACKETS)), u64(find(d, unix.NFTA_COUNTER_BYTES))
		case "match":
			if name(find(d, unix.NFTA_MATCH_NAME)) == "comment" { // of iptables-nft
				r.Comment = name(find(d, unix.NFTA_MATCH_INFO))
				continue
			}
		}
		w.expression(kind, d)
	}
	r.Text = strings.Join(w.words, " ")
}

// comment reads a rule's user data, of which nft and iptables-nft make a list of
// type, length and value: type 0 is the comment.
func comment(b []byte) string {
	for len(b) >= 2 {
		n := 2 + int(b[1])
		if n > len(b) {
			return ""
		}
		if b[0] == 0 {
			return name(b[2:n])
		}
		b = b[n:]
	}
	return ""
}
