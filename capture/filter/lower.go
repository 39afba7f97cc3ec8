package filter

import (
	"encoding/binary"

	"golang.org/x/net/bpf"

	"github.com/tapestry-net/tapestry/capture/filter/syntax"
)

type condOp uint8

const (
	condAnd condOp = iota
	condOr
	condNot
	condCmp
	condTrue
	condSet // l goes to a scratch register; true
)

// cond is a condition in the terms of BPF.
type cond struct {
	op   condOp
	a, b *cond
	test bpf.JumpTest
	l, r *term
	reg  int8
}

type termOp uint8

const (
	termConst termOp = iota
	termLen
	termLoad   // size octets at base + index a
	termHeader // the length of the IPv4 header at base, with base
	termNeg
	termBinary
)

// term is a number in the terms of BPF.
type term struct {
	op   termOp
	alu  bpf.ALUOp
	val  uint32
	a, b *term
	base base
	size int
}

// base is where the offsets of a load count from.
type base struct {
	reg int8 // as env.reg
	off uint32
	ip4 bool // behind the IPv4 header that stands there
}

// env loads from where headers stand for a primitive.
type env struct{ syntax.Env }

func both(list ...*cond) *cond   { return fold(condAnd, list) }
func either(list ...*cond) *cond { return fold(condOr, list) }

func fold(op condOp, list []*cond) *cond {
	c := list[0]
	for _, b := range list[1:] {
		c = &cond{op: op, a: c, b: b}
	}
	return c
}

func constant(v uint32) *term { return &term{val: v} }

func cmp(test bpf.JumpTest, l *term, v uint32) *cond {
	return &cond{op: condCmp, test: test, l: l, r: constant(v)}
}

func masked(t *term, mask uint32) *term {
	if mask == ^uint32(0) {
		return t
	}
	return &term{op: termBinary, alu: bpf.ALUOpAnd, a: t, b: constant(mask)}
}

// payload loads size octets at offset off of what the EtherType names.
func (e env) load(off uint32, size int) *term {
	return &term{op: termLoad, base: base{reg: e.Reg, off: e.Payload + off}, size: size}
}

// ether loads from the Ethernet header.
func (e env) ether(off uint32, size int) *term {
	return &term{op: termLoad, base: base{reg: e.Reg, off: off}, size: size}
}

// inner loads from behind the IPv4 header.
func (e env) inner(off uint32, size int) *term {
	return &term{op: termLoad, base: base{reg: e.Reg, off: e.Payload, ip4: true}, a: constant(off), size: size}
}

func (e env) etherType(v uint32) *cond {
	t := e.ether(e.Link, 2)
	if v > 1500 {
		return cmp(bpf.JumpEqual, t, v)
	}
	// IEEE 802.3 clause 3.2.6: this is a length, and LLC follows.
	return both(cmp(bpf.JumpLessOrEqual, t, 1500), cmp(bpf.JumpEqual, e.ether(e.Link+2, 1), v))
}

func (e env) proto4(v uint32) *cond { return cmp(bpf.JumpEqual, e.load(9, 1), v) }

// proto6 looks at the next header, or behind one fragment header.
func (e env) proto6(v uint32) *cond {
	const fragment = 44
	return either(cmp(bpf.JumpEqual, e.load(6, 1), v),
		both(cmp(bpf.JumpEqual, e.load(6, 1), fragment), cmp(bpf.JumpEqual, e.load(40, 1), v)))
}

func (e env) firstFragment() *cond {
	return cmp(bpf.JumpEqual, masked(e.load(6, 2), 0x1fff), 0)
}

// lower turns a tree into conditions.
func lower(n syntax.Node) *cond {
	switch n := n.(type) {
	case syntax.Logic:
		op := condAnd
		if n.Or {
			op = condOr
		}
		return &cond{op: op, a: lower(n.A), b: lower(n.B)}
	case syntax.Negation:
		return &cond{op: condNot, a: lower(n.A)}
	case syntax.Relation:
		return compare(n)
	case syntax.Primitive:
		return primitive{n}.lower()
	}
	return &cond{op: condTrue}
}

// primitive makes the conditions of one test.
type primitive struct{ syntax.Primitive }

func (n primitive) env() env { return env{n.Env} }

func (n primitive) lower() *cond {
	switch n.Kind {
	case syntax.KindAlone:
		return n.env().alone(n.Proto)
	case syntax.KindProto:
		return n.env().protocol(n.Proto, n.Num)
	case syntax.KindPort, syntax.KindRange:
		return n.ports()
	case syntax.KindBroadcast:
		return n.etherAddr([6]byte{255, 255, 255, 255, 255, 255}, 0)
	case syntax.KindMulticast:
		switch n.Proto {
		case syntax.ProtoIP:
			return both(n.env().etherType(syntax.EtherIP4), cmp(bpf.JumpGreaterOrEqual, n.env().load(16, 1), 224))
		case syntax.ProtoIP6:
			return both(n.env().etherType(syntax.EtherIP6), cmp(bpf.JumpEqual, n.env().load(24, 1), 255))
		}
		return cmp(bpf.JumpBitsSet, n.env().ether(0, 1), 1)
	case syntax.KindVLAN:
		return n.vlan()
	case syntax.KindVXLAN:
		return n.vxlan()
	}
	switch {
	case n.Ether:
		return n.directed(func(src bool) *cond {
			if src {
				return n.etherAddr(n.MAC, 6)
			}
			return n.etherAddr(n.MAC, 0)
		})
	case n.Net.IsValid():
		return n.directed(func(src bool) *cond { return n.host6(src) })
	}
	return n.host4()
}

// directed combines source and destination as the qualifier says.
func (n primitive) directed(test func(src bool) *cond) *cond {
	switch n.Dir {
	case syntax.DirSrc:
		return test(true)
	case syntax.DirDst:
		return test(false)
	case syntax.DirBoth:
		return both(test(true), test(false))
	}
	return either(test(true), test(false))
}

func (n primitive) etherAddr(m [6]byte, off uint32) *cond {
	return both(cmp(bpf.JumpEqual, n.env().ether(off+2, 4), binary.BigEndian.Uint32(m[2:])),
		cmp(bpf.JumpEqual, n.env().ether(off, 2), uint32(binary.BigEndian.Uint16(m[:]))))
}

func (n primitive) host4() *cond {
	in := func(etherType, src, dst uint32) *cond {
		return n.directed(func(isSrc bool) *cond {
			off := dst
			if isSrc {
				off = src
			}
			return both(n.env().etherType(etherType), cmp(bpf.JumpEqual, masked(n.env().load(off, 4), n.Mask), n.Num))
		})
	}
	switch n.Proto {
	case syntax.ProtoIP:
		return in(syntax.EtherIP4, 12, 16)
	case syntax.ProtoARP:
		return in(syntax.EtherARP, 14, 24)
	case syntax.ProtoRARP:
		return in(syntax.EtherRARP, 14, 24)
	}
	return either(in(syntax.EtherIP4, 12, 16), in(syntax.EtherARP, 14, 24), in(syntax.EtherRARP, 14, 24))
}

func (n primitive) host6(src bool) *cond {
	off := uint32(24)
	if src {
		off = 8
	}
	a := n.Net.Addr().As16()
	c := n.env().etherType(syntax.EtherIP6)
	for i := 0; i < 4; i++ {
		mask := ^uint32(0)
		if left := n.Net.Bits() - 32*i; left < 32 {
			mask <<= 32 - max(left, 0)
		}
		c = both(c, cmp(bpf.JumpEqual, masked(n.env().load(off+uint32(4*i), 4), mask), binary.BigEndian.Uint32(a[4*i:])))
	}
	return c
}

func (e env) alone(of syntax.Proto) *cond {
	if t, ok := syntax.EtherTypes[of]; ok {
		return e.etherType(t)
	}
	if of == syntax.ProtoSTP {
		return e.etherType(syntax.STPSAP)
	}
	v := syntax.ProtoNumbers[of]
	switch {
	case syntax.Only4[of]:
		return e.protocol(syntax.ProtoIP, v)
	case syntax.Only6[of]:
		return e.protocol(syntax.ProtoIP6, v)
	}
	return e.protocol(syntax.ProtoAny, v)
}

func (e env) protocol(of syntax.Proto, v uint32) *cond {
	switch of {
	case syntax.ProtoEther:
		return e.etherType(v)
	case syntax.ProtoIP:
		return both(e.etherType(syntax.EtherIP4), e.proto4(v))
	case syntax.ProtoIP6:
		return both(e.etherType(syntax.EtherIP6), e.proto6(v))
	}
	return either(e.protocol(syntax.ProtoIP, v), e.protocol(syntax.ProtoIP6, v))
}

func (n primitive) ports() *cond {
	e := n.env()
	protos := []syntax.Proto{syntax.ProtoTCP, syntax.ProtoUDP, syntax.ProtoSCTP}
	if n.Proto != syntax.ProtoAny {
		protos = []syntax.Proto{n.Proto}
	}
	test := func(t *term) *cond {
		if n.Kind == syntax.KindPort {
			return cmp(bpf.JumpEqual, t, n.Num)
		}
		return both(cmp(bpf.JumpGreaterOrEqual, t, n.Num), cmp(bpf.JumpLessOrEqual, t, n.End))
	}
	var in4, in6 []*cond
	for _, of := range protos {
		in4 = append(in4, e.proto4(syntax.ProtoNumbers[of]))
		in6 = append(in6, cmp(bpf.JumpEqual, e.load(6, 1), syntax.ProtoNumbers[of]))
	}
	at := func(load func(uint32, int) *term, off uint32) *cond {
		return n.directed(func(src bool) *cond {
			if src {
				return test(load(off, 2))
			}
			return test(load(off+2, 2))
		})
	}
	return either(
		both(e.etherType(syntax.EtherIP6), either(in6...), at(e.load, 40)),
		both(e.etherType(syntax.EtherIP4), either(in4...), e.firstFragment(), at(e.inner, 0)))
}

func (n primitive) vlan() *cond {
	e := n.env()
	c := either(e.etherType(0x8100), e.etherType(0x88a8), e.etherType(0x9100))
	if n.Given {
		c = both(c, cmp(bpf.JumpEqual, masked(e.load(0, 2), 0x0fff), n.Num))
	}
	return c
}

// vxlan tests for UDP port 4789, the I flag and the VNI, and notes where the
// inner frame starts: 8 octets of UDP and 8 of VXLAN further on.
func (n primitive) vxlan() *cond {
	const port, flagI, udp, headers = 4789, 0x08, 17, 16
	e := n.env()
	in := func(load func(uint32, int) *term, off uint32, start *term) *cond {
		c := both(cmp(bpf.JumpEqual, load(off+2, 2), port), cmp(bpf.JumpBitsSet, load(off+8, 1), flagI))
		if n.Given {
			c = both(c, cmp(bpf.JumpEqual, masked(load(off+12, 4), 0xffffff00), n.Num<<8))
		}
		return both(c, &cond{op: condSet, l: start, reg: n.Reg})
	}
	sum := func(t *term, v uint32) *term {
		return &term{op: termBinary, alu: bpf.ALUOpAdd, a: t, b: constant(v)}
	}
	return either(
		both(e.etherType(syntax.EtherIP6), cmp(bpf.JumpEqual, e.load(6, 1), udp),
			in(e.load, 40, sum(&term{op: termHeader, base: base{reg: e.Reg, off: e.Payload}}, 40+headers))),
		both(e.etherType(syntax.EtherIP4), e.proto4(udp), e.firstFragment(),
			in(e.inner, 0, sum(&term{op: termHeader, base: base{reg: e.Reg, off: e.Payload, ip4: true}}, headers))))
}
