// Package nftrace names the firewall rule that a packet met: a temporary table
// of nftables marks the packet, and the kernel reports every rule that matches it.
//
//	keeper   Open → a socket that owns the table · Fetch → a rule as the kernel has it
//	worker   New, Read → steps · Describe → the rule in words
//
//	prerouting, output    at the earliest priority:
//	   meta l4proto icmp  ip saddr A  ip daddr B  icmp type echo-request  icmp id N   meta nftrace set 1
//	   the same for the answer: addresses and ports exchanged
//
// # Meaning
//
// Steps are those of chains of every family and of what iptables-nft has made,
// in the namespace's order. Not seen are: rules of iptables-legacy (Legacy names
// their tables), chains at the ingress of an interface and of a bridge, which
// come before the mark, and hooks that are no rules. A packet whose addresses
// are translated keeps its mark, and its steps are told by its number.
//
// # Ownership
//
// The table belongs to the socket (NFT_TABLE_F_OWNER): when the last descriptor
// of it is closed, by a process that ends in whatever way, the kernel removes
// the table. Nobody else can change it meanwhile, and nothing else is changed.
//
// # Concurrency
//
// Open, Fetch and Legacy act on the calling thread's namespace and need
// CAP_NET_ADMIN; a Listener and Describe need no privilege. Read is called by
// one goroutine at a time.
//
// # Standards
//
// nft(8), section on tracing; linux/netfilter/nf_tables.h; netlink(7).
package nftrace
