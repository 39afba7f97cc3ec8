// Package keeper is the privileged half of the switch: it opens, moves, holds
// and removes interfaces and sockets for the worker, and parses no packet.
//
//	tapestry up ─ keeper   every descriptor · locks · api socket · fdb memory
//	                │        SOCK_SEQPACKET: one JSON request or reply a datagram,
//	                │        at most 64 KiB, descriptors beside it (SCM_RIGHTS)
//	                └─ worker   Connect, Hello, FDB, Open …, Confine, Ready
//
// Run is the keeper, Client the worker's end. Confine takes every privilege
// from the worker; SaveState and LoadState keep what it must not forget.
//
// # Ownership
//
// The keeper holds a copy of each descriptor, so that a worker may die or be
// replaced without a link event. Those that Client returns are the caller's.
// What a capture or a trace asks for (Watch, OpenRaw, Firewall) it doesn't hold:
// that ends with the worker, and a table of the firewall with its socket.
// Keys that a worker hands to the next one (Quiesced, Standby) pass through it as a
// descriptor of sealed memory, which it neither reads nor maps, and which one worker
// gets: the next, when the former is dead.
// An interface that doesn't bear our mark is never changed, except that an
// adopted one is spliced and a device is bound.
//
// # Concurrency
//
// One goroutine owns the keeper's state and calls Devices; others only post to
// it. At most two workers run, and one of them at most touches frames: see
// Client.Upgrade, Client.Standby and Client.Quiesced.
//
// # Standards
//
// unix(7), memfd_create(2), capabilities(7), tc-mirred(8), sd_notify(3).
package keeper
