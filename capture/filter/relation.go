package filter

import (
	"golang.org/x/net/bpf"

	"github.com/tapestry-net/tapestry/capture/filter/syntax"
)

var tests = map[string]bpf.JumpTest{
	"=": bpf.JumpEqual, "!=": bpf.JumpNotEqual, "<": bpf.JumpLessThan, "<=": bpf.JumpLessOrEqual,
	">": bpf.JumpGreaterThan, ">=": bpf.JumpGreaterOrEqual,
}

var alus = map[string]bpf.ALUOp{
	"+": bpf.ALUOpAdd, "-": bpf.ALUOpSub, "*": bpf.ALUOpMul, "/": bpf.ALUOpDiv, "%": bpf.ALUOpMod,
	"&": bpf.ALUOpAnd, "|": bpf.ALUOpOr, "^": bpf.ALUOpXor, "<<": bpf.ALUOpShiftLeft, ">>": bpf.ALUOpShiftRight,
}

// compare tests that the headers which are loaded from are there, and compares.
func compare(n syntax.Relation) *cond {
	c := &cond{op: condCmp, test: tests[n.Op], l: arithmetic(n.A), r: arithmetic(n.B)}
	if g := guard(n); g != nil {
		return both(g, c)
	}
	return c
}

func guard(n syntax.Relation) *cond {
	var list []*cond
	list = guards(n.B, guards(n.A, list))
	if list == nil {
		return nil
	}
	return both(list...)
}

// guards appends, for each load, the condition that its header is there.
func guards(n *syntax.Number, list []*cond) []*cond {
	if n == nil {
		return list
	}
	list = guards(n.B, guards(n.A, list))
	if n.Op != "load" || n.Of == syntax.ProtoEther {
		return list
	}
	e := env{n.Env}
	if t, ok := syntax.EtherTypes[n.Of]; ok {
		return append(list, e.etherType(t))
	}
	if n.Of == syntax.ProtoICMP6 {
		// Unlike `icmp6` alone, the load counts from the end of the fixed header.
		return append(list, e.etherType(syntax.EtherIP6), cmp(bpf.JumpEqual, e.load(6, 1), syntax.ProtoNumbers[n.Of]))
	}
	return append(list, e.etherType(syntax.EtherIP4), e.proto4(syntax.ProtoNumbers[n.Of]), e.firstFragment())
}

func arithmetic(n *syntax.Number) *term {
	switch n.Op {
	case "":
		return constant(n.Val)
	case "len":
		return &term{op: termLen}
	case "neg":
		return &term{op: termNeg, a: arithmetic(n.A)}
	case "load":
		t := &term{op: termLoad, size: n.Size, a: arithmetic(n.A), base: base{reg: n.Env.Reg, off: n.Env.Payload}}
		switch n.Of {
		case syntax.ProtoEther:
			t.base.off = 0
		case syntax.ProtoICMP6:
			t.base.off += 40
		case syntax.ProtoIP, syntax.ProtoIP6, syntax.ProtoARP, syntax.ProtoRARP:
		default:
			t.base.ip4 = true
		}
		return t
	}
	return &term{op: termBinary, alu: alus[n.Op], a: arithmetic(n.A), b: arithmetic(n.B)}
}
