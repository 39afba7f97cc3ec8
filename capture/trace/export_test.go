package trace

import "golang.org/x/net/bpf"

// Program is BPF's program for packets that begin with their IP header, which the
// VM of x/net can run.
func (k *Key) Program() []bpf.Instruction { return k.program(0) }
