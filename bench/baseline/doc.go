// Package baseline builds what the switch is measured against: the kernel's own
// bridge with a veth pair to each namespace.
//
//	namespace a           bridge namespace            namespace b
//	eth0 ══ veth ══ p0 ── br0 ── p1 ══ veth ══ eth0
//
// The bridge hands no frame to netfilter (bridge-nf-call-iptables and its
// siblings are 0), has no VLAN filter and no spanning tree: the fastest the
// kernel's bridge can be. Everything else is the kernel's default, offloads
// included.
//
// # Ownership
//
// Everything lives in the namespaces given and goes with them.
package baseline
