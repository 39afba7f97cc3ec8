package filter

// Opcodes of classic BPF (McCanne and Jacobson, "The BSD Packet Filter", 1993),
// as far as emit writes them.
const (
	opLoadConst  = 0x00
	opLoadConstX = 0x01
	opLoadAbs32  = 0x20
	opLoadAbs16  = 0x28
	opLoadAbs8   = 0x30
	opLoadInd32  = 0x40
	opLoadInd16  = 0x48
	opLoadInd8   = 0x50
	opLoadMem    = 0x60
	opLoadMemX   = 0x61
	opLoadShift  = 0xb1
	opLen        = 0x80
	opStore      = 0x02
	opStoreX     = 0x03
	opJump       = 0x05
	opJumpEq     = 0x15
	opJumpGt     = 0x25
	opJumpGe     = 0x35
	opJumpSet    = 0x45
	opReturn     = 0x06
	opTAX        = 0x07

	classJmp = 0x05
	bitX     = 0x08
)

// run carries out the program. It ends because every jump leads forward.
//
// Hot path: no allocation.
func (p *Program) run(v *view) bool {
	var a, x uint32
	var mem [scratchLen]uint32
	ok := true
	for pc := 0; pc < len(p.raw); pc++ {
		i := &p.raw[pc]
		k := i.K
		switch i.Op {
		case opLoadAbs8:
			a, ok = v.load(uint64(k), 1)
		case opLoadAbs16:
			a, ok = v.load(uint64(k), 2)
		case opLoadAbs32:
			a, ok = v.load(uint64(k), 4)
		case opLoadInd8:
			a, ok = v.load(uint64(x)+uint64(k), 1)
		case opLoadInd16:
			a, ok = v.load(uint64(x)+uint64(k), 2)
		case opLoadInd32:
			a, ok = v.load(uint64(x)+uint64(k), 4)
		case opLoadShift:
			x, ok = v.load(uint64(k), 1)
			x = x & 0x0f << 2
		case opLoadConst:
			a = k
		case opLoadConstX:
			x = k
		case opLen:
			a = uint32(v.length)
		case opLoadMem:
			a = mem[k%scratchLen]
		case opLoadMemX:
			x = mem[k%scratchLen]
		case opStore:
			mem[k%scratchLen] = a
		case opStoreX:
			mem[k%scratchLen] = x
		case opTAX:
			x = a
		case opJump:
			pc += int(k)
		case opReturn:
			return k != 0
		default:
			if i.Op&bitX != 0 {
				k = x
			}
			if i.Op&0x07 == classJmp {
				pc += skip(i.Op, a, k, i.Jt, i.Jf)
			} else {
				a, ok = alu(i.Op, a, k)
			}
		}
		if !ok {
			return false
		}
	}
	return false
}

func skip(op uint16, a, k uint32, t, f uint8) int {
	yes := false
	switch op &^ bitX {
	case opJumpEq:
		yes = a == k
	case opJumpGt:
		yes = a > k
	case opJumpGe:
		yes = a >= k
	case opJumpSet:
		yes = a&k != 0
	}
	if yes {
		return int(t)
	}
	return int(f)
}

// alu reports false for a division by zero, which ends the program.
func alu(op uint16, a, k uint32) (uint32, bool) {
	switch op >> 4 {
	case 0x0:
		a += k
	case 0x1:
		a -= k
	case 0x2:
		a *= k
	case 0x3, 0x9:
		if k == 0 {
			return 0, false
		}
		if op>>4 == 0x3 {
			a /= k
		} else {
			a %= k
		}
	case 0x4:
		a |= k
	case 0x5:
		a &= k
	case 0x6:
		a <<= k
	case 0x7:
		a >>= k
	case 0xa:
		a ^= k
	}
	return a, true
}
