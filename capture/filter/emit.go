package filter

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// MaxInstructions is the most that the kernel accepts (BPF_MAXINSNS).
const MaxInstructions = 4096

// accept is what a matching frame returns: more octets than any frame has.
const accept = 262144

// scratchLen is how many scratch registers BPF has.
const scratchLen = 16

// label is a place in the program that jumps lead to; always further on.
type label int

// step is one instruction; jumps name labels.
type step struct {
	ins    bpf.Instruction
	jump   bool
	t, f   label
	always bool // an unconditional jump to t
}

// emitter writes a program.
type emitter struct {
	steps  []step
	places []int // of each label, the step it stands before
	free   int   // the first free scratch register
	err    error
}

// emit turns a condition into a program. regs is how many registers hold the
// starts of inner frames.
func emit(c *cond, regs int8) ([]bpf.Instruction, error) {
	e := &emitter{free: int(regs)}
	if regs > 0 {
		e.add(bpf.LoadConstant{Dst: bpf.RegA})
		for r := range int(regs) {
			e.add(bpf.StoreScratch{Src: bpf.RegA, N: r})
		}
	}
	yes, no := e.label(), e.label()
	e.cond(c, yes, no)
	e.place(yes)
	e.add(bpf.RetConstant{Val: accept})
	e.place(no)
	e.add(bpf.RetConstant{Val: 0})
	if e.err != nil {
		return nil, e.err
	}
	return e.link()
}

func (e *emitter) add(i bpf.Instruction) { e.steps = append(e.steps, step{ins: i}) }

func (e *emitter) label() label {
	e.places = append(e.places, -1)
	return label(len(e.places) - 1)
}

func (e *emitter) place(l label) { e.places[l] = len(e.steps) }

func (e *emitter) cond(c *cond, t, f label) {
	switch c.op {
	case condAnd:
		next := e.label()
		e.cond(c.a, next, f)
		e.place(next)
		e.cond(c.b, t, f)
	case condOr:
		next := e.label()
		e.cond(c.a, t, next)
		e.place(next)
		e.cond(c.b, t, f)
	case condNot:
		e.cond(c.a, f, t)
	case condCmp:
		e.compare(c, t, f)
	case condSet:
		e.eval(c.l)
		e.add(bpf.StoreScratch{Src: bpf.RegA, N: int(c.reg) - 1})
		e.steps = append(e.steps, step{always: true, t: t})
	case condTrue:
		e.steps = append(e.steps, step{always: true, t: t})
	}
}

func (e *emitter) compare(c *cond, t, f label) {
	if c.r.op == termConst {
		e.eval(c.l)
		e.steps = append(e.steps, step{ins: bpf.JumpIf{Cond: c.test, Val: c.r.val}, jump: true, t: t, f: f})
		return
	}
	e.pair(c.l, c.r)
	e.steps = append(e.steps, step{ins: bpf.JumpIfX{Cond: c.test}, jump: true, t: t, f: f})
}

// pair leaves l in A and r in X.
func (e *emitter) pair(l, r *term) {
	e.eval(l)
	m := e.hold()
	e.eval(r)
	e.add(bpf.TAX{})
	e.add(bpf.LoadScratch{Dst: bpf.RegA, N: m})
	e.free--
}

// hold keeps A in a scratch register.
func (e *emitter) hold() int {
	m := e.free
	e.free++
	if m >= scratchLen {
		e.err = &Error{Column: 1, Msg: fmt.Sprintf("the arithmetic needs more than %d intermediate results", scratchLen), Hint: "put the deeper operand on the left"}
		m = 0
	}
	e.add(bpf.StoreScratch{Src: bpf.RegA, N: m})
	return m
}

// eval leaves t in A.
func (e *emitter) eval(t *term) {
	switch t.op {
	case termConst:
		e.add(bpf.LoadConstant{Dst: bpf.RegA, Val: t.val})
	case termLen:
		e.add(bpf.LoadExtension{Num: bpf.ExtLen})
	case termNeg:
		e.pair(constant(0), t.a)
		e.add(bpf.ALUOpX{Op: bpf.ALUOpSub})
	case termBinary:
		if t.b.op == termConst {
			e.eval(t.a)
			e.add(bpf.ALUOpConstant{Op: t.alu, Val: t.b.val})
			return
		}
		e.pair(t.a, t.b)
		e.add(bpf.ALUOpX{Op: t.alu})
	case termHeader:
		e.header(t.base)
		if !t.base.ip4 {
			e.add(bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: t.base.off})
		}
	case termLoad:
		e.load(t)
	}
}

// header leaves in A where the base is: the start of the inner frame, and with
// ip4 the offset and the length of the IPv4 header.
func (e *emitter) header(b base) {
	if b.reg == 0 {
		e.add(bpf.LoadConstant{Dst: bpf.RegA})
	} else {
		e.add(bpf.LoadScratch{Dst: bpf.RegA, N: int(b.reg) - 1})
	}
	if !b.ip4 {
		return
	}
	m := e.hold()
	e.add(bpf.TAX{})
	e.add(bpf.LoadIndirect{Off: b.off, Size: 1})
	e.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0f})
	e.add(bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2})
	e.add(bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: b.off})
	e.add(bpf.LoadScratch{Dst: bpf.RegX, N: m})
	e.add(bpf.ALUOpX{Op: bpf.ALUOpAdd})
	e.free--
}

// maxOffset is the largest offset that is written into an instruction; beyond
// it lie the kernel's own meanings of negative offsets.
const maxOffset = 1 << 24

// load leaves in A the octets that t names.
func (e *emitter) load(t *term) {
	b, index := t.base, uint32(0)
	dynamic := t.a != nil && (t.a.op != termConst || t.a.val > maxOffset)
	if t.a != nil && !dynamic {
		index = t.a.val
	}
	switch {
	case !dynamic && b.reg == 0 && !b.ip4:
		e.add(bpf.LoadAbsolute{Off: b.off + index, Size: t.size})
		return
	case !dynamic && b.reg == 0:
		e.add(bpf.LoadMemShift{Off: b.off})
		e.add(bpf.LoadIndirect{Off: b.off + index, Size: t.size})
		return
	case !dynamic && !b.ip4:
		e.add(bpf.LoadScratch{Dst: bpf.RegX, N: int(b.reg) - 1})
		e.add(bpf.LoadIndirect{Off: b.off + index, Size: t.size})
		return
	}
	off := b.off + index
	if dynamic {
		e.eval(t.a)
		m := e.hold()
		e.header(b)
		e.add(bpf.LoadScratch{Dst: bpf.RegX, N: m})
		e.add(bpf.ALUOpX{Op: bpf.ALUOpAdd})
		e.free--
	} else {
		e.header(b)
	}
	if b.ip4 {
		off -= b.off // header has counted it
	}
	e.add(bpf.TAX{})
	e.add(bpf.LoadIndirect{Off: off, Size: t.size})
}

// link replaces labels by distances. A conditional jump reaches 255
// instructions; where one does not, all take the long way round.
func (e *emitter) link() ([]bpf.Instruction, error) {
	out, ok := e.layout(false)
	if !ok {
		out, _ = e.layout(true)
	}
	if len(out) > MaxInstructions {
		return nil, &Error{Column: 1, Msg: fmt.Sprintf("the expression makes %d instructions, and %d is the most", len(out), MaxInstructions)}
	}
	return out, nil
}

func (e *emitter) layout(long bool) (out []bpf.Instruction, ok bool) {
	at := make([]int, len(e.steps)+1)
	for i, s := range e.steps {
		at[i+1] = at[i] + 1
		if s.jump && long {
			at[i+1] += 2
		}
	}
	ok = true
	for i, s := range e.steps {
		skip := func(l label, from int) int { return at[e.places[l]] - from - 1 }
		switch {
		case s.always:
			out = append(out, bpf.Jump{Skip: uint32(skip(s.t, at[i]))})
		case !s.jump:
			out = append(out, s.ins)
		case long:
			out = append(out, withSkips(s.ins, 0, 1),
				bpf.Jump{Skip: uint32(skip(s.t, at[i]+1))}, bpf.Jump{Skip: uint32(skip(s.f, at[i]+2))})
		default:
			t, f := skip(s.t, at[i]), skip(s.f, at[i])
			ok = ok && t <= 255 && f <= 255
			out = append(out, withSkips(s.ins, uint8(t), uint8(f)))
		}
	}
	return out, ok
}

func withSkips(i bpf.Instruction, t, f uint8) bpf.Instruction {
	switch i := i.(type) {
	case bpf.JumpIf:
		i.SkipTrue, i.SkipFalse = t, f
		return i
	case bpf.JumpIfX:
		i.SkipTrue, i.SkipFalse = t, f
		return i
	}
	return i
}
