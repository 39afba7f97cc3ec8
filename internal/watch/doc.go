// Package watch opens the sockets that see what the interfaces of a namespace
// receive and send, without being in the way of it, and the socket that a probe
// leaves by.
//
// # Ownership
//
// Each descriptor is the caller's.
//
// # Concurrency
//
// Open and OpenRaw act on the calling thread's namespace and need CAP_NET_RAW.
//
// # Standards
//
// packet(7), socket(7), raw(7).
package watch
