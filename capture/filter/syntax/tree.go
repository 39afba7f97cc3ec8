package syntax

import "net/netip"

// Env is where headers stand for a primitive: `vlan` moves it on by a tag,
// `vxlan` into the inner frame.
type Env struct {
	Reg     int8   // scratch register with the start of the inner frame plus one; 0 = the frame's own start
	Link    uint32 // of the EtherType
	Payload uint32 // of what the EtherType names
}

var outer = Env{Link: 12, Payload: 14}

// Qual is the list of qualifiers in front of a value.
type Qual struct {
	Proto Proto
	Dir   Dir
	Kind  Kind
}

// Node is a Logic, a Negation, a Primitive or a Relation.
type Node any

// The nodes of a tree.
type (
	// Logic joins two conditions by and, or by or.
	Logic struct {
		Or   bool
		A, B Node
	}
	// Negation is the opposite of a condition.
	Negation struct{ A Node }
	// Primitive is one test without an operator.
	Primitive struct {
		Qual
		Value
		Env Env
		Reg int8 // of a KindVXLAN: where the inner frame's start goes, plus one
	}
	// Relation compares two numbers: = != < <= > >=.
	Relation struct {
		Op   string
		A, B *Number
	}
)

// Value is what follows the qualifiers.
type Value struct {
	Given    bool // a VLAN or VNI may be left out
	Num, End uint32
	Mask     uint32 // of an IPv4 address
	Net      netip.Prefix
	Ether    bool // MAC holds an address
	MAC      [6]byte
}

// Number is one node of an arithmetic expression. All arithmetic is unsigned,
// of 32 bits.
type Number struct {
	Op   string // "" a constant, "len", "load", "neg", or a binary operator
	Val  uint32
	A, B *Number // operands; A is the index of a load
	Of   Proto   // of a load
	Size int     // of a load: 1, 2 or 4
	Env  Env     // of a load
}
