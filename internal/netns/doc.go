// Package netns finds network namespaces and runs code inside them.
//
//	name         /run/netns/NAME, then /var/run/netns/NAME (ip netns)
//	/abs/path    a file of the namespace file system, such as /proc/N/ns/net
//	pid:N        the namespace of process N
//
// A Handle keeps its namespace alive. The spec is looked up once; afterwards
// only the descriptor counts, so a name that is reused for another namespace
// changes nothing for those who hold a Handle.
//
// # Ownership
//
// The caller of Open, Current or New closes the Handle.
//
// # Concurrency
//
// A Handle may be used from any goroutine; Close must be the last call. Do runs
// its function on an operating system thread of its own, which is thrown away
// if it can't be brought back.
//
// # Standards
//
// setns(2), namespaces(7), ip-netns(8).
package netns
