// Package pktgen sends measured traffic from one network namespace to another,
// by two processes of its own.
//
//	Measure                 server in To              client in From
//	   │ start ───────────────> ready
//	   │ start ────────────────────────────────────────> connects, sends
//	   │ <──── begin ───────── end of the warm-up
//	   │ <──── end ─────────── end of the window
//	   │ closes both standard inputs: traffic stops
//	   │ <──── result ──────── <──────────────────────── result
//
// Each process is this program again, called with Command and a job, and enters
// its namespace before it opens a socket. The side that counts marks the window
// on its standard output, so that the caller can read other counters, such as
// processor time, for the same stretch. For PingPong it is the client.
//
// # Load
//
// TCP writes 128 KiB at a time and reads 256 KiB. Flood calls sendmmsg for 64
// datagrams as fast as it can; its receiver drains the socket every 300 µs, so
// that the price of a wake-up for each datagram hides nobody's cost. What counts
// is what the receiving application gets.
//
// # Concurrency
//
// Measure must be called from a goroutine whose thread lives as long as it
// runs, since the kernel ends the children with the thread that started them.
package pktgen
