package trace

import "golang.org/x/net/bpf"

// netOff is the kernel's SKF_NET_OFF: an offset from it counts from the IP
// header, whatever header the interface has in front and whatever tag it took
// out.
const netOff = 0xfff00000

// BPF is a program that passes the probe, its answer, any ICMP and little else,
// so that a socket on a busy interface wakes its reader for the trace alone.
func (k *Key) BPF() ([]bpf.RawInstruction, error) { return bpf.Assemble(k.program(netOff)) }

// program is BPF's for packets that begin at offset ip. What a Matcher knows it
// passes: by the ports, or by the mark where NAT has put others in place. What is
// too short to bear a mark ends the program, and is not passed.
func (k *Key) program(ip uint32) []bpf.Instruction {
	const all = 1 << 18
	icmp, version, proto := uint32(protoICMP), uint32(4), uint32(9)
	var locate bpf.Instruction = bpf.LoadMemShift{Off: ip}
	if k.Src.Is6() {
		icmp, version, proto = protoICMPv6, 6, 6
		locate = bpf.LoadConstant{Dst: bpf.RegX, Val: ipv6Len}
	}
	const id = udpLen + uint32(len(magic))
	mark := []bpf.Instruction{ // both halves of the ID
		bpf.LoadIndirect{Off: ip + id, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(k.ID >> 32), SkipTrue: 3},
		bpf.LoadIndirect{Off: ip + id + 4, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(k.ID), SkipTrue: 1},
	}
	if k.Proto == TCP {
		mark = []bpf.Instruction{ // its sequence number, or what acknowledges it
			bpf.LoadIndirect{Off: ip + 4, Size: 4},
			bpf.JumpIf{Val: k.Sequence(), SkipTrue: 2},
			bpf.LoadIndirect{Off: ip + 8, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: k.Sequence() + 1, SkipTrue: 1},
		}
	}
	n := uint8(len(mark))
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: ip, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: version, SkipTrue: n + 9},
		bpf.LoadAbsolute{Off: ip + proto, Size: 1},
		bpf.JumpIf{Val: icmp, SkipTrue: n + 6},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(k.Protocol()), SkipTrue: n + 6},
		locate,
		bpf.LoadIndirect{Off: ip, Size: 2},
		bpf.JumpIf{Val: uint32(k.SourcePort()), SkipTrue: n + 2},
		bpf.LoadIndirect{Off: ip + 2, Size: 2},
		bpf.JumpIf{Val: uint32(k.SourcePort()), SkipTrue: n},
	}
	return append(append(program, mark...), bpf.RetConstant{Val: all}, bpf.RetConstant{Val: 0})
}
