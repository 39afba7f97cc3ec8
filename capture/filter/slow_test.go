package filter

import (
	"net/netip"
	"slices"

	"github.com/tapestry-net/tapestry/capture/filter/syntax"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// slow is the readable twin of a Program: it walks the tree, takes headers
// apart with the standard library's types and knows no BPF.
type slow struct {
	root  syntax.Node
	data  []byte
	start map[int8]int // of inner frames, by register
}

// short ends the evaluation: something beyond the end of the frame was read.
type short struct{}

// slowMatch reports whether expr, which must parse, matches data.
func slowMatch(expr string, data []byte) (match bool) {
	root, _, err := syntax.Parse(expr)
	if err != nil {
		panic(err)
	}
	s := &slow{root: root, data: data, start: map[int8]int{}}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(short); !ok {
				panic(r)
			}
			match = false
		}
	}()
	return root == nil || s.holds(root)
}

func (s *slow) octets(off, n int) []byte {
	if off < 0 || off+n > len(s.data) {
		panic(short{})
	}
	return s.data[off : off+n]
}

func (s *slow) value(off, n int) int {
	v := 0
	for _, b := range s.octets(off, n) {
		v = v<<8 | int(b)
	}
	return v
}

func (s *slow) holds(n syntax.Node) bool {
	switch n := n.(type) {
	case syntax.Logic:
		if n.Or {
			return s.holds(n.A) || s.holds(n.B)
		}
		return s.holds(n.A) && s.holds(n.B)
	case syntax.Negation:
		return !s.holds(n.A)
	case syntax.Relation:
		return s.relation(n)
	case syntax.Primitive:
		return s.primitive(n)
	}
	panic("no such node")
}

// at is where the headers stand for e.
func (s *slow) at(e syntax.Env) (link, typ, pay int) {
	link = s.start[e.Reg]
	return link, link + int(e.Link), link + int(e.Payload)
}

func (s *slow) etherType(e syntax.Env) int {
	_, typ, _ := s.at(e)
	return s.value(typ, 2)
}

func (s *slow) isIP4(e syntax.Env) bool { return s.etherType(e) == 0x0800 }
func (s *slow) isIP6(e syntax.Env) bool { return s.etherType(e) == 0x86dd }

func (s *slow) primitive(n syntax.Primitive) bool {
	link, typ, pay := s.at(n.Env)
	switch n.Kind {
	case syntax.KindAlone:
		return s.alone(n)
	case syntax.KindProto:
		return s.protocol(n.Env, n.Proto, int(n.Num))
	case syntax.KindPort, syntax.KindRange:
		return s.port(n)
	case syntax.KindBroadcast:
		return s.value(link+2, 4) == 0xffffffff && s.value(link, 2) == 0xffff
	case syntax.KindMulticast:
		switch n.Proto {
		case syntax.ProtoIP:
			return s.isIP4(n.Env) && s.value(pay+16, 1) >= 224
		case syntax.ProtoIP6:
			return s.isIP6(n.Env) && s.value(pay+24, 1) == 0xff
		}
		return s.value(link, 1)&1 == 1
	case syntax.KindVLAN:
		return slices.Contains([]int{0x8100, 0x88a8, 0x9100}, s.value(typ, 2)) && (!n.Given || s.value(pay, 2)&0xfff == int(n.Num))
	case syntax.KindVXLAN:
		return s.vxlan(n, pay)
	}
	if n.Ether {
		is := func(off int) bool {
			s.octets(off+2, 4) // read first, as the program does
			return frame.MAC(s.octets(off, 6)) == frame.MAC(n.MAC)
		}
		return directed(n.Dir, func() bool { return is(link + 6) }, func() bool { return is(link) })
	}
	if n.Net.IsValid() {
		in := func(off int) func() bool {
			return func() bool { return s.isIP6(n.Env) && s.inNet6(pay+off, n.Net) }
		}
		return directed(n.Dir, in(8), in(24))
	}
	return s.host4(n, pay)
}

// inNet6 reads word by word, as the program does, until one differs.
func (s *slow) inNet6(off int, net netip.Prefix) bool {
	for i := 0; i < 16; i += 4 {
		var a [16]byte
		copy(a[:], net.Addr().AsSlice())
		copy(a[i:], s.octets(off+i, 4))
		if !net.Contains(netip.AddrFrom16(a)) {
			return false
		}
	}
	return true
}

func directed(d syntax.Dir, src, dst func() bool) bool {
	switch d {
	case syntax.DirSrc:
		return src()
	case syntax.DirDst:
		return dst()
	case syntax.DirBoth:
		return src() && dst()
	}
	return src() || dst()
}

func (s *slow) host4(n syntax.Primitive, pay int) bool {
	places := []struct {
		of        syntax.Proto
		etherType int
		src, dst  int
	}{{syntax.ProtoIP, 0x0800, 12, 16}, {syntax.ProtoARP, 0x0806, 14, 24}, {syntax.ProtoRARP, 0x8035, 14, 24}}
	for _, p := range places {
		if n.Proto != syntax.ProtoAny && n.Proto != p.of {
			continue
		}
		in := func(off int) func() bool {
			return func() bool {
				return s.etherType(n.Env) == p.etherType && uint32(s.value(pay+off, 4))&n.Mask == n.Num
			}
		}
		if directed(n.Dir, in(p.src), in(p.dst)) {
			return true
		}
	}
	return false
}

func (s *slow) alone(n syntax.Primitive) bool {
	numbers := map[syntax.Proto]int{syntax.ProtoTCP: 6, syntax.ProtoUDP: 17, syntax.ProtoSCTP: 132, syntax.ProtoPIM: 103, syntax.ProtoAH: 51, syntax.ProtoESP: 50}
	switch n.Proto {
	case syntax.ProtoIP:
		return s.isIP4(n.Env)
	case syntax.ProtoIP6:
		return s.isIP6(n.Env)
	case syntax.ProtoARP:
		return s.etherType(n.Env) == 0x0806
	case syntax.ProtoRARP:
		return s.etherType(n.Env) == 0x8035
	case syntax.ProtoSTP:
		return s.protocol(n.Env, syntax.ProtoEther, 0x42)
	case syntax.ProtoICMP:
		return s.protocol(n.Env, syntax.ProtoIP, 1)
	case syntax.ProtoIGMP:
		return s.protocol(n.Env, syntax.ProtoIP, 2)
	case syntax.ProtoVRRP:
		return s.protocol(n.Env, syntax.ProtoIP, 112)
	case syntax.ProtoICMP6:
		return s.protocol(n.Env, syntax.ProtoIP6, 58)
	}
	return s.protocol(n.Env, syntax.ProtoAny, numbers[n.Proto])
}

func (s *slow) protocol(e syntax.Env, of syntax.Proto, want int) bool {
	_, typ, pay := s.at(e)
	switch of {
	case syntax.ProtoEther:
		t := s.value(typ, 2)
		return want > 1500 && t == want || want <= 1500 && t <= 1500 && s.value(typ+2, 1) == want
	case syntax.ProtoIP:
		return s.isIP4(e) && s.value(pay+9, 1) == want
	case syntax.ProtoIP6:
		if !s.isIP6(e) {
			return false
		}
		next := s.value(pay+6, 1)
		return next == want || next == 44 && s.value(pay+40, 1) == want
	}
	return s.protocol(e, syntax.ProtoIP, want) || s.protocol(e, syntax.ProtoIP6, want)
}

func (s *slow) port(n syntax.Primitive) bool {
	_, _, pay := s.at(n.Env)
	protos := map[syntax.Proto][]int{syntax.ProtoAny: {6, 17, 132}, syntax.ProtoTCP: {6}, syntax.ProtoUDP: {17}, syntax.ProtoSCTP: {132}}[n.Proto]
	l4 := 0
	switch {
	case s.isIP6(n.Env):
		if !slices.Contains(protos, s.value(pay+6, 1)) {
			return false
		}
		l4 = pay + 40
	case s.isIP4(n.Env):
		if !slices.Contains(protos, s.value(pay+9, 1)) || s.value(pay+6, 2)&0x1fff != 0 {
			return false
		}
		l4 = pay + s.value(pay, 1)&15*4
	default:
		return false
	}
	lo, hi := int(n.Num), int(n.End)
	if n.Kind == syntax.KindPort {
		hi = lo
	}
	in := func(off int) func() bool {
		return func() bool { p := s.value(l4+off, 2); return lo <= p && p <= hi }
	}
	return directed(n.Dir, in(0), in(2))
}

func (s *slow) vxlan(n syntax.Primitive, pay int) bool {
	udp := 0
	switch {
	case s.isIP6(n.Env):
		if s.value(pay+6, 1) != 17 {
			return false
		}
		udp = pay + 40
	case s.isIP4(n.Env):
		if s.value(pay+9, 1) != 17 || s.value(pay+6, 2)&0x1fff != 0 {
			return false
		}
		udp = pay + s.value(pay, 1)&15*4
	default:
		return false
	}
	if s.value(udp+2, 2) != 4789 || s.value(udp+8, 1)&8 == 0 || n.Given && s.value(udp+12, 4)>>8 != int(n.Num) {
		return false
	}
	s.start[n.Reg] = udp + 16
	return true
}

func (s *slow) relation(n syntax.Relation) bool {
	if !s.present(n.A) || !s.present(n.B) {
		return false
	}
	a, b := s.number(n.A), s.number(n.B)
	switch n.Op {
	case "=":
		return a == b
	case "!=":
		return a != b
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	}
	return a >= b
}

// present reports whether the headers that n looks into are there.
func (s *slow) present(n *syntax.Number) bool {
	if n == nil {
		return true
	}
	if !s.present(n.A) || !s.present(n.B) {
		return false
	}
	if n.Op != "load" {
		return true
	}
	_, _, pay := s.at(n.Env)
	numbers := map[syntax.Proto]int{syntax.ProtoTCP: 6, syntax.ProtoUDP: 17, syntax.ProtoSCTP: 132, syntax.ProtoICMP: 1, syntax.ProtoIGMP: 2, syntax.ProtoPIM: 103, syntax.ProtoVRRP: 112}
	switch n.Of {
	case syntax.ProtoEther:
		return true
	case syntax.ProtoIP:
		return s.isIP4(n.Env)
	case syntax.ProtoIP6:
		return s.isIP6(n.Env)
	case syntax.ProtoARP, syntax.ProtoRARP:
		return s.etherType(n.Env) == map[syntax.Proto]int{syntax.ProtoARP: 0x0806, syntax.ProtoRARP: 0x8035}[n.Of]
	case syntax.ProtoICMP6:
		return s.isIP6(n.Env) && s.value(pay+6, 1) == 58
	}
	return s.isIP4(n.Env) && s.value(pay+9, 1) == numbers[n.Of] && s.value(pay+6, 2)&0x1fff == 0
}

func (s *slow) number(n *syntax.Number) uint32 {
	switch n.Op {
	case "":
		return n.Val
	case "len":
		return uint32(len(s.data))
	case "neg":
		return -s.number(n.A)
	case "load":
		i := int(s.number(n.A))
		link, _, pay := s.at(n.Env)
		switch n.Of {
		case syntax.ProtoEther:
			return uint32(s.value(link+i, n.Size))
		case syntax.ProtoIP, syntax.ProtoIP6, syntax.ProtoARP, syntax.ProtoRARP:
			return uint32(s.value(pay+i, n.Size))
		case syntax.ProtoICMP6:
			return uint32(s.value(pay+40+i, n.Size))
		}
		return uint32(s.value(pay+s.value(pay, 1)&15*4+i, n.Size))
	}
	a, b := s.number(n.A), s.number(n.B)
	switch n.Op {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "/", "%":
		if b == 0 {
			panic(short{}) // ends the program, too
		}
		if n.Op == "/" {
			return a / b
		}
		return a % b
	case "&":
		return a & b
	case "|":
		return a | b
	case "^":
		return a ^ b
	case "<<":
		return a << b
	}
	return a >> b
}
