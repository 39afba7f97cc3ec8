package filter

import (
	"encoding/binary"

	"golang.org/x/net/bpf"
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
	return &term{op: termLoad, base: base{reg: e.reg, off: e.payload + off}, size: size}
}

// ether loads from the Ethernet header.
func (e env) ether(off uint32, size int) *term {
	return &term{op: termLoad, base: base{reg: e.reg, off: off}, size: size}
}

// inner loads from behind the IPv4 header.
func (e env) inner(off uint32, size int) *term {
	return &term{op: termLoad, base: base{reg: e.reg, off: e.payload, ip4: true}, a: constant(off), size: size}
}

func (e env) etherType(v uint32) *cond {
	t := e.ether(e.link, 2)
	if v > 1500 {
		return cmp(bpf.JumpEqual, t, v)
	}
	// IEEE 802.3 clause 3.2.6: this is a length, and LLC follows.
	return both(cmp(bpf.JumpLessOrEqual, t, 1500), cmp(bpf.JumpEqual, e.ether(e.link+2, 1), v))
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
func lower(n node) *cond {
	switch n := n.(type) {
	case logic:
		op := condAnd
		if n.or {
			op = condOr
		}
		return &cond{op: op, a: lower(n.a), b: lower(n.b)}
	case negation:
		return &cond{op: condNot, a: lower(n.a)}
	case relation:
		return n.lower()
	case primitive:
		return n.lower()
	}
	return &cond{op: condTrue}
}

func (n primitive) lower() *cond {
	switch n.kind {
	case kindAlone:
		return n.env.alone(n.proto)
	case kindProto:
		return n.env.protocol(n.proto, n.num)
	case kindPort, kindRange:
		return n.ports()
	case kindBroadcast:
		return n.etherAddr([6]byte{255, 255, 255, 255, 255, 255}, 0)
	case kindMulticast:
		switch n.proto {
		case protoIP:
			return both(n.env.etherType(etherIP4), cmp(bpf.JumpGreaterOrEqual, n.env.load(16, 1), 224))
		case protoIP6:
			return both(n.env.etherType(etherIP6), cmp(bpf.JumpEqual, n.env.load(24, 1), 255))
		}
		return cmp(bpf.JumpBitsSet, n.env.ether(0, 1), 1)
	case kindVLAN:
		return n.vlan()
	case kindVXLAN:
		return n.vxlan()
	}
	switch {
	case n.ether:
		return n.directed(func(src bool) *cond {
			if src {
				return n.etherAddr(n.mac, 6)
			}
			return n.etherAddr(n.mac, 0)
		})
	case n.net.IsValid():
		return n.directed(func(src bool) *cond { return n.host6(src) })
	}
	return n.host4()
}

// directed combines source and destination as the qualifier says.
func (n primitive) directed(test func(src bool) *cond) *cond {
	switch n.dir {
	case dirSrc:
		return test(true)
	case dirDst:
		return test(false)
	case dirBoth:
		return both(test(true), test(false))
	}
	return either(test(true), test(false))
}

func (n primitive) etherAddr(m [6]byte, off uint32) *cond {
	return both(cmp(bpf.JumpEqual, n.env.ether(off+2, 4), binary.BigEndian.Uint32(m[2:])),
		cmp(bpf.JumpEqual, n.env.ether(off, 2), uint32(binary.BigEndian.Uint16(m[:]))))
}

func (n primitive) host4() *cond {
	in := func(etherType, src, dst uint32) *cond {
		return n.directed(func(isSrc bool) *cond {
			off := dst
			if isSrc {
				off = src
			}
			return both(n.env.etherType(etherType), cmp(bpf.JumpEqual, masked(n.env.load(off, 4), n.mask), n.num))
		})
	}
	switch n.proto {
	case protoIP:
		return in(etherIP4, 12, 16)
	case protoARP:
		return in(etherARP, 14, 24)
	case protoRARP:
		return in(etherRARP, 14, 24)
	}
	return either(in(etherIP4, 12, 16), in(etherARP, 14, 24), in(etherRARP, 14, 24))
}

func (n primitive) host6(src bool) *cond {
	off := uint32(24)
	if src {
		off = 8
	}
	a := n.net.Addr().As16()
	c := n.env.etherType(etherIP6)
	for i := 0; i < 4; i++ {
		mask := ^uint32(0)
		if left := n.net.Bits() - 32*i; left < 32 {
			mask <<= 32 - max(left, 0)
		}
		c = both(c, cmp(bpf.JumpEqual, masked(n.env.load(off+uint32(4*i), 4), mask), binary.BigEndian.Uint32(a[4*i:])))
	}
	return c
}

func (e env) alone(of proto) *cond {
	if t, ok := etherTypes[of]; ok {
		return e.etherType(t)
	}
	if of == protoSTP {
		return e.etherType(stpSAP)
	}
	v := protoNumbers[of]
	switch {
	case only4[of]:
		return e.protocol(protoIP, v)
	case only6[of]:
		return e.protocol(protoIP6, v)
	}
	return e.protocol(protoAny, v)
}

func (e env) protocol(of proto, v uint32) *cond {
	switch of {
	case protoEther:
		return e.etherType(v)
	case protoIP:
		return both(e.etherType(etherIP4), e.proto4(v))
	case protoIP6:
		return both(e.etherType(etherIP6), e.proto6(v))
	}
	return either(e.protocol(protoIP, v), e.protocol(protoIP6, v))
}

func (n primitive) ports() *cond {
	e := n.env
	protos := []proto{protoTCP, protoUDP, protoSCTP}
	if n.proto != protoAny {
		protos = []proto{n.proto}
	}
	test := func(t *term) *cond {
		if n.kind == kindPort {
			return cmp(bpf.JumpEqual, t, n.num)
		}
		return both(cmp(bpf.JumpGreaterOrEqual, t, n.num), cmp(bpf.JumpLessOrEqual, t, n.end))
	}
	var in4, in6 []*cond
	for _, of := range protos {
		in4 = append(in4, e.proto4(protoNumbers[of]))
		in6 = append(in6, cmp(bpf.JumpEqual, e.load(6, 1), protoNumbers[of]))
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
		both(e.etherType(etherIP6), either(in6...), at(e.load, 40)),
		both(e.etherType(etherIP4), either(in4...), e.firstFragment(), at(e.inner, 0)))
}

func (n primitive) vlan() *cond {
	e := n.env
	c := either(e.etherType(0x8100), e.etherType(0x88a8), e.etherType(0x9100))
	if n.given {
		c = both(c, cmp(bpf.JumpEqual, masked(e.load(0, 2), 0x0fff), n.num))
	}
	return c
}

// vxlan tests for UDP port 4789, the I flag and the VNI, and notes where the
// inner frame starts: 8 octets of UDP and 8 of VXLAN further on.
func (n primitive) vxlan() *cond {
	const port, flagI, udp, headers = 4789, 0x08, 17, 16
	e := n.env
	in := func(load func(uint32, int) *term, off uint32, start *term) *cond {
		c := both(cmp(bpf.JumpEqual, load(off+2, 2), port), cmp(bpf.JumpBitsSet, load(off+8, 1), flagI))
		if n.given {
			c = both(c, cmp(bpf.JumpEqual, masked(load(off+12, 4), 0xffffff00), n.num<<8))
		}
		return both(c, &cond{op: condSet, l: start, reg: n.reg})
	}
	sum := func(t *term, v uint32) *term {
		return &term{op: termBinary, alu: bpf.ALUOpAdd, a: t, b: constant(v)}
	}
	return either(
		both(e.etherType(etherIP6), cmp(bpf.JumpEqual, e.load(6, 1), udp),
			in(e.load, 40, sum(&term{op: termHeader, base: base{reg: e.reg, off: e.payload}}, 40+headers))),
		both(e.etherType(etherIP4), e.proto4(udp), e.firstFragment(),
			in(e.inner, 0, sum(&term{op: termHeader, base: base{reg: e.reg, off: e.payload, ip4: true}}, headers))))
}
