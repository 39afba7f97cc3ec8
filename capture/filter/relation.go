package filter

import "golang.org/x/net/bpf"

var tests = map[string]bpf.JumpTest{
	"=": bpf.JumpEqual, "!=": bpf.JumpNotEqual, "<": bpf.JumpLessThan, "<=": bpf.JumpLessOrEqual,
	">": bpf.JumpGreaterThan, ">=": bpf.JumpGreaterOrEqual,
}

var alus = map[string]bpf.ALUOp{
	"+": bpf.ALUOpAdd, "-": bpf.ALUOpSub, "*": bpf.ALUOpMul, "/": bpf.ALUOpDiv, "%": bpf.ALUOpMod,
	"&": bpf.ALUOpAnd, "|": bpf.ALUOpOr, "^": bpf.ALUOpXor, "<<": bpf.ALUOpShiftLeft, ">>": bpf.ALUOpShiftRight,
}

// lower tests that the headers which are loaded from are there, and compares.
func (n relation) lower() *cond {
	c := &cond{op: condCmp, test: tests[n.op], l: n.a.lower(), r: n.b.lower()}
	if g := n.guard(); g != nil {
		return both(g, c)
	}
	return c
}

func (n relation) guard() *cond {
	var list []*cond
	list = n.b.guards(n.a.guards(list))
	if list == nil {
		return nil
	}
	return both(list...)
}

// guards appends, for each load, the condition that its header is there.
func (n *number) guards(list []*cond) []*cond {
	if n == nil {
		return list
	}
	list = n.b.guards(n.a.guards(list))
	if n.op != "load" || n.of == protoEther {
		return list
	}
	e := n.env
	if t, ok := etherTypes[n.of]; ok {
		return append(list, e.etherType(t))
	}
	if n.of == protoICMP6 {
		// Unlike `icmp6` alone, the load counts from the end of the fixed header.
		return append(list, e.etherType(etherIP6), cmp(bpf.JumpEqual, e.load(6, 1), protoNumbers[n.of]))
	}
	return append(list, e.etherType(etherIP4), e.proto4(protoNumbers[n.of]), e.firstFragment())
}

func (n *number) lower() *term {
	switch n.op {
	case "":
		return constant(n.val)
	case "len":
		return &term{op: termLen}
	case "neg":
		return &term{op: termNeg, a: n.a.lower()}
	case "load":
		t := &term{op: termLoad, size: n.size, a: n.a.lower(), base: base{reg: n.env.reg, off: n.env.payload}}
		switch n.of {
		case protoEther:
			t.base.off = 0
		case protoICMP6:
			t.base.off += 40
		case protoIP, protoIP6, protoARP, protoRARP:
		default:
			t.base.ip4 = true
		}
		return t
	}
	return &term{op: termBinary, alu: alus[n.op], a: n.a.lower(), b: n.b.lower()}
}
