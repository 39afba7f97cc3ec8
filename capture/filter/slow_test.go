package filter

import (
	"net/netip"
	"slices"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// slow is the readable twin of a Program: it walks the tree, takes headers
// apart with the standard library's types and knows no BPF.
type slow struct {
	root  node
	data  []byte
	start map[int8]int // of inner frames, by register
}

// short ends the evaluation: something beyond the end of the frame was read.
type short struct{}

// slowMatch reports whether expr, which must parse, matches data.
func slowMatch(expr string, data []byte) (match bool) {
	root, _, err := parse(expr)
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

func (s *slow) holds(n node) bool {
	switch n := n.(type) {
	case logic:
		if n.or {
			return s.holds(n.a) || s.holds(n.b)
		}
		return s.holds(n.a) && s.holds(n.b)
	case negation:
		return !s.holds(n.a)
	case relation:
		return s.relation(n)
	case primitive:
		return s.primitive(n)
	}
	panic("no such node")
}

// at is where the headers stand for e.
func (s *slow) at(e env) (link, typ, pay int) {
	link = s.start[e.reg]
	return link, link + int(e.link), link + int(e.payload)
}

func (s *slow) etherType(e env) int {
	_, typ, _ := s.at(e)
	return s.value(typ, 2)
}

func (s *slow) isIP4(e env) bool { return s.etherType(e) == 0x0800 }
func (s *slow) isIP6(e env) bool { return s.etherType(e) == 0x86dd }

func (s *slow) primitive(n primitive) bool {
	link, typ, pay := s.at(n.env)
	switch n.kind {
	case kindAlone:
		return s.alone(n)
	case kindProto:
		return s.protocol(n.env, n.proto, int(n.num))
	case kindPort, kindRange:
		return s.port(n)
	case kindBroadcast:
		return s.value(link+2, 4) == 0xffffffff && s.value(link, 2) == 0xffff
	case kindMulticast:
		switch n.proto {
		case protoIP:
			return s.isIP4(n.env) && s.value(pay+16, 1) >= 224
		case protoIP6:
			return s.isIP6(n.env) && s.value(pay+24, 1) == 0xff
		}
		return s.value(link, 1)&1 == 1
	case kindVLAN:
		return slices.Contains([]int{0x8100, 0x88a8, 0x9100}, s.value(typ, 2)) && (!n.given || s.value(pay, 2)&0xfff == int(n.num))
	case kindVXLAN:
		return s.vxlan(n, pay)
	}
	if n.ether {
		is := func(off int) bool {
			s.octets(off+2, 4) // read first, as the program does
			return frame.MAC(s.octets(off, 6)) == frame.MAC(n.mac)
		}
		return directed(n.dir, func() bool { return is(link + 6) }, func() bool { return is(link) })
	}
	if n.net.IsValid() {
		in := func(off int) func() bool {
			return func() bool { return s.isIP6(n.env) && s.inNet6(pay+off, n.net) }
		}
		return directed(n.dir, in(8), in(24))
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

func directed(d dir, src, dst func() bool) bool {
	switch d {
	case dirSrc:
		return src()
	case dirDst:
		return dst()
	case dirBoth:
		return src() && dst()
	}
	return src() || dst()
}

func (s *slow) host4(n primitive, pay int) bool {
	places := []struct {
		of        proto
		etherType int
		src, dst  int
	}{{protoIP, 0x0800, 12, 16}, {protoARP, 0x0806, 14, 24}, {protoRARP, 0x8035, 14, 24}}
	for _, p := range places {
		if n.proto != protoAny && n.proto != p.of {
			continue
		}
		in := func(off int) func() bool {
			return func() bool {
				return s.etherType(n.env) == p.etherType && uint32(s.value(pay+off, 4))&n.mask == n.num
			}
		}
		if directed(n.dir, in(p.src), in(p.dst)) {
			return true
		}
	}
	return false
}

func (s *slow) alone(n primitive) bool {
	numbers := map[proto]int{protoTCP: 6, protoUDP: 17, protoSCTP: 132, protoPIM: 103, protoAH: 51, protoESP: 50}
	switch n.proto {
	case protoIP:
		return s.isIP4(n.env)
	case protoIP6:
		return s.isIP6(n.env)
	case protoARP:
		return s.etherType(n.env) == 0x0806
	case protoRARP:
		return s.etherType(n.env) == 0x8035
	case protoSTP:
		return s.protocol(n.env, protoEther, 0x42)
	case protoICMP:
		return s.protocol(n.env, protoIP, 1)
	case protoIGMP:
		return s.protocol(n.env, protoIP, 2)
	case protoVRRP:
		return s.protocol(n.env, protoIP, 112)
	case protoICMP6:
		return s.protocol(n.env, protoIP6, 58)
	}
	return s.protocol(n.env, protoAny, numbers[n.proto])
}

func (s *slow) protocol(e env, of proto, want int) bool {
	_, typ, pay := s.at(e)
	switch of {
	case protoEther:
		t := s.value(typ, 2)
		return want > 1500 && t == want || want <= 1500 && t <= 1500 && s.value(typ+2, 1) == want
	case protoIP:
		return s.isIP4(e) && s.value(pay+9, 1) == want
	case protoIP6:
		if !s.isIP6(e) {
			return false
		}
		next := s.value(pay+6, 1)
		return next == want || next == 44 && s.value(pay+40, 1) == want
	}
	return s.protocol(e, protoIP, want) || s.protocol(e, protoIP6, want)
}

func (s *slow) port(n primitive) bool {
	_, _, pay := s.at(n.env)
	protos := map[proto][]int{protoAny: {6, 17, 132}, protoTCP: {6}, protoUDP: {17}, protoSCTP: {132}}[n.proto]
	l4 := 0
	switch {
	case s.isIP6(n.env):
		if !slices.Contains(protos, s.value(pay+6, 1)) {
			return false
		}
		l4 = pay + 40
	case s.isIP4(n.env):
		if !slices.Contains(protos, s.value(pay+9, 1)) || s.value(pay+6, 2)&0x1fff != 0 {
			return false
		}
		l4 = pay + s.value(pay, 1)&15*4
	default:
		return false
	}
	lo, hi := int(n.num), int(n.end)
	if n.kind == kindPort {
		hi = lo
	}
	in := func(off int) func() bool {
		return func() bool { p := s.value(l4+off, 2); return lo <= p && p <= hi }
	}
	return directed(n.dir, in(0), in(2))
}

func (s *slow) vxlan(n primitive, pay int) bool {
	udp := 0
	switch {
	case s.isIP6(n.env):
		if s.value(pay+6, 1) != 17 {
			return false
		}
		udp = pay + 40
	case s.isIP4(n.env):
		if s.value(pay+9, 1) != 17 || s.value(pay+6, 2)&0x1fff != 0 {
			return false
		}
		udp = pay + s.value(pay, 1)&15*4
	default:
		return false
	}
	if s.value(udp+2, 2) != 4789 || s.value(udp+8, 1)&8 == 0 || n.given && s.value(udp+12, 4)>>8 != int(n.num) {
		return false
	}
	s.start[n.reg] = udp + 16
	return true
}

func (s *slow) relation(n relation) bool {
	if !s.present(n.a) || !s.present(n.b) {
		return false
	}
	a, b := s.number(n.a), s.number(n.b)
	switch n.op {
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
func (s *slow) present(n *number) bool {
	if n == nil {
		return true
	}
	if !s.present(n.a) || !s.present(n.b) {
		return false
	}
	if n.op != "load" {
		return true
	}
	_, _, pay := s.at(n.env)
	numbers := map[proto]int{protoTCP: 6, protoUDP: 17, protoSCTP: 132, protoICMP: 1, protoIGMP: 2, protoPIM: 103, protoVRRP: 112}
	switch n.of {
	case protoEther:
		return true
	case protoIP:
		return s.isIP4(n.env)
	case protoIP6:
		return s.isIP6(n.env)
	case protoARP, protoRARP:
		return s.etherType(n.env) == map[proto]int{protoARP: 0x0806, protoRARP: 0x8035}[n.of]
	case protoICMP6:
		return s.isIP6(n.env) && s.value(pay+6, 1) == 58
	}
	return s.isIP4(n.env) && s.value(pay+9, 1) == numbers[n.of] && s.value(pay+6, 2)&0x1fff == 0
}

func (s *slow) number(n *number) uint32 {
	switch n.op {
	case "":
		return n.val
	case "len":
		return uint32(len(s.data))
	case "neg":
		return -s.number(n.a)
	case "load":
		i := int(s.number(n.a))
		link, _, pay := s.at(n.env)
		switch n.of {
		case protoEther:
			return uint32(s.value(link+i, n.size))
		case protoIP, protoIP6, protoARP, protoRARP:
			return uint32(s.value(pay+i, n.size))
		case protoICMP6:
			return uint32(s.value(pay+40+i, n.size))
		}
		return uint32(s.value(pay+s.value(pay, 1)&15*4+i, n.size))
	}
	a, b := s.number(n.a), s.number(n.b)
	switch n.op {
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
		if n.op == "/" {
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
