package filter

import (
	"encoding/binary"
	"slices"

	"golang.org/x/net/bpf"

	"github.com/tapestry-net/tapestry/capture/filter/syntax"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Error says what is wrong with an expression, and where.
type Error = syntax.Error

// Bounds of an expression.
const (
	MaxLen   = syntax.MaxLen   // octets
	MaxDepth = syntax.MaxDepth // nested parentheses, signs and negations
)

// Program is a compiled expression.
type Program struct {
	text string
	ins  []bpf.Instruction
	raw  []bpf.RawInstruction
}

// Compile compiles an expression; the empty one matches every frame. Its
// errors are *Error.
func Compile(expr string) (*Program, error) {
	n, regs, err := syntax.Parse(expr)
	if err != nil {
		return nil, err
	}
	ins, err := emit(lower(n), regs)
	if err != nil {
		return nil, err
	}
	raw, err := bpf.Assemble(ins)
	if err != nil {
		return nil, &Error{Column: 1, Msg: err.Error()}
	}
	return &Program{text: expr, ins: ins, raw: raw}, nil
}

// String returns the expression.
func (p *Program) String() string { return p.text }

// Instructions returns the program for a packet socket or a bpf.VM. The result
// is the caller's.
func (p *Program) Instructions() []bpf.Instruction { return slices.Clone(p.ins) }

// Socket returns a program for a packet socket. The kernel takes the outer tag out
// before its program sees a packet, so all that had one pass: who reads the socket
// puts the tag back and asks Match again.
func (p *Program) Socket() []bpf.RawInstruction {
	return append([]bpf.RawInstruction{
		must(bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}),
		must(bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1}),
		must(bpf.RetConstant{Val: accept}),
	}, p.raw...)
}

// must assembles an instruction that is right.
func must(i bpf.Instruction) bpf.RawInstruction {
	raw, err := i.Assemble()
	if err != nil {
		panic(err)
	}
	return raw
}

// Match reports whether the frame with the octets data matches.
//
// Hot path: no allocation.
func (p *Program) Match(data []byte) bool {
	v := view{data: data, length: len(data)}
	return p.run(&v)
}

// MatchFrame reports whether f matches as it leaves: with Pop and Push carried
// out. Only Data counts, not Frags.
//
// Hot path: no allocation.
func (p *Program) MatchFrame(f *frame.Frame) bool {
	v := view{data: f.Data, length: len(f.Data)}
	if (f.Pop || f.Push.Present()) && len(f.Data) >= frame.HeaderLen {
		v.edited = true
		v.length += f.Shift()
		v.shift = f.Shift()
		v.behind = addrLen
		if f.Push.Present() {
			v.behind += frame.TagLen
			binary.BigEndian.PutUint16(v.tag[0:], uint16(f.Push.TPID))
			binary.BigEndian.PutUint16(v.tag[2:], f.Push.TCI)
		}
	}
	return p.run(&v)
}

// addrLen is the length of both addresses, behind which a tag stands.
const addrLen = 12

// view is a frame as the program sees it.
type view struct {
	data   []byte
	length int
	edited bool
	behind int     // where the unchanged rest starts
	shift  int     // by how much it has moved
	tag    [4]byte // between the addresses and the rest
}

// load returns size octets at off; ok is false when the frame ends before.
func (v *view) load(off uint64, size int) (n uint32, ok bool) {
	if off+uint64(size) > uint64(v.length) {
		return 0, false
	}
	if !v.edited {
		b := v.data[off:]
		switch size {
		case 1:
			return uint32(b[0]), true
		case 2:
			return uint32(binary.BigEndian.Uint16(b)), true
		}
		return binary.BigEndian.Uint32(b), true
	}
	for i := int(off); i < int(off)+size; i++ {
		c := byte(0)
		switch {
		case i < addrLen:
			c = v.data[i]
		case i < v.behind:
			c = v.tag[i-addrLen]
		default:
			c = v.data[i-v.shift]
		}
		n = n<<8 | uint32(c)
	}
	return n, true
}
