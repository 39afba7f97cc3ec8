package filter

import "net/netip"

// env is where headers stand for a primitive: `vlan` moves it on by a tag,
// `vxlan` into the inner frame.
type env struct {
	reg     int8   // scratch register with the start of the inner frame plus one; 0 = the frame's own start
	link    uint32 // of the EtherType
	payload uint32 // of what the EtherType names
}

var outer = env{link: 12, payload: 14}

// qual is the list of qualifiers in front of a value.
type qual struct {
	proto proto
	dir   dir
	kind  kind
}

// node is one node of the tree of an expression.
type node interface{}

type (
	logic struct {
		or   bool
		a, b node
	}
	negation struct{ a node }
	// primitive is one test without an operator.
	primitive struct {
		qual
		value
		env env
		reg int8 // of a kindVXLAN: where the inner frame's start goes, plus one
	}
	// relation compares two numbers: = != < <= > >=.
	relation struct {
		op   string
		a, b *number
	}
)

// value is what follows the qualifiers.
type value struct {
	given    bool // a VLAN or VNI may be left out
	num, end uint32
	mask     uint32 // of an IPv4 address
	net      netip.Prefix
	ether    bool // mac holds an address
	mac      [6]byte
}

// number is one node of an arithmetic expression. All arithmetic is unsigned,
// of 32 bits.
type number struct {
	op   string // "" a constant, "len", "load", "neg", or a binary operator
	val  uint32
	a, b *number // operands; a is the index of a load
	of   proto   // of a load
	size int     // of a load: 1, 2 or 4
	env  env     // of a load
}
