// Package wiretest is a bad wire for tests: it carries packets between two ends
// and loses, delays, reorders, doubles and corrupts some of them, the same ones
// for the same seed.
//
//	end A ── offered ──> fate by seed ──> held until due ──> delivered ──> end B
//	                       │                │                  │
//	              Lost, Cut, TooLong      Full              Refused
//
// An end keeps packets apart: one Read is one packet, so is one Write. There
// are ends in memory (Pipe), UDP sockets (UDP) and interfaces (Device), and
// NewLAN joins namespaces, each behind a wire of its own.
//
// # Determinism
//
// The fate of packet n of a way depends on the seed, the way, n and the Link
// alone, so Hash is equal for equal traffic however fast the machine is. What
// depends on time (which packets find the queue full, when they arrive) is
// exact too inside a testing/synctest bubble with ends in memory.
//
// # Conservation
//
// Offered + Duplicated = Lost + Cut + TooLong + Full + Refused + Delivered +
// Held, at any moment. What an interface's socket had no room for was never
// offered: Missed tells how much that is.
//
// # Concurrency
//
// Any goroutine may call any method. A Wire runs four goroutines until Close.
// Its memory is bounded by Link.Queue.
package wiretest
