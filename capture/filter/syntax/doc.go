// Package syntax reads the expressions of tcpdump, as pcap-filter(7) describes
// them, into a tree:
//
//	text ──lexer──> tokens ──parser──> Node
//
//	vlan 10 and (tcp port 443 or ip[8] < 2)
//
//	Logic and
//	├── Primitive vlan 10               Env: 12, 14
//	└── Logic or
//	    ├── Primitive tcp port 443      Env: 16, 18
//	    └── Relation <
//	        ├── Number load ip 8        Env: 16, 18
//	        └── Number 2
//
// `and` and `or` bind equally and from the left. Each primitive and each load
// carries its Env: where headers stand for it, behind the `vlan` and `vxlan` to
// its left. A value without qualifiers takes over the last ones. What can't be
// meant is an *Error with its column and, where there is one, the mend.
//
// # Bounds
//
// MaxLen octets and MaxDepth levels; a tree is no deeper than that, and no larger
// than its text.
//
// # Concurrency
//
// Parse keeps no state. A tree isn't changed once it is there.
//
// # Standards
//
// pcap-filter(7) of libpcap 1.10. Differences: names of hosts and networks are not
// looked up, and those of ports in a table of our own; `net 10/8` is understood;
// `vxlan [VNI]`, see package filter.
package syntax
