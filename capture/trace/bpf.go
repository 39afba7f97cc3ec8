package trace

import "golang.org/x/net/bpf"

// netOff is the kernel's SKF_NET_OFF: an offset from it counts from the IP
// header, whatever header the interface has in front and whatever tag it took
// out.
const netOff = 0xfff00000

// BPF is a program that passes the probe, its answer, any ICMP and little else,
// so that a socket on a busy interface wakes its reader for the trace alone.
func (k *Key) BPF() ([]bpf.RawInstruction, error) {
	const all = 1 << 18
	icmp, version, proto := uint32(protoICMP), uint32(4), uint32(9)
	ports := []bpf.Instruction{
		bpf.LoadMemShift{Off: netOff},
		bpf.LoadIndirect{Off: netOff, Size: 2},
		bpf.JumpIf{Val: uint32(k.SourcePort()), SkipTrue: 2},
		bpf.LoadIndirect{Off: netOff + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(k.SourcePort()), SkipTrue: 1},
	}
	if k.Src.Is6() {
		icmp, version, proto = protoICMPv6, 6, 6
		ports[0] = bpf.LoadConstant{Dst: bpf.RegX, Val: ipv6Len}
	}
	n := uint8(len(ports))
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: netOff, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: version, SkipTrue: n + 4},
		bpf.LoadAbsolute{Off: netOff + proto, Size: 1},
		bpf.JumpIf{Val: icmp, SkipTrue: n + 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(k.Protocol()), SkipTrue: n + 1},
	}
	program = append(program, ports...)
	return bpf.Assemble(append(program, bpf.RetConstant{Val: all}, bpf.RetConstant{Val: 0}))
}
