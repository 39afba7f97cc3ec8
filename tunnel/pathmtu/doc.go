// Package pathmtu finds how long a packet a path carries, by probes alone: it
// says which sizes to probe and concludes from those that were answered. It
// knows no clock and no socket.
//
//	floor ───────── low ···?···?···?··· soft ─────────── high
//	taken to pass   shown to pass       lost, perhaps     refused by the device,
//	                                    by chance         or lost again and again
//
// # Rounds
//
// The caller sends all sizes of a round at once, together with a packet so short
// that any path carries it, and tells which were answered. That one answered and
// another not, of one round, is what tells a narrow path from a bad or a dead
// one. A round that nothing answers proves nothing.
//
// At rest a round is the present size alone. When it is lost, the next rounds
// are a ladder of sizes below it, and the present size again: its MTU falls only
// when three rounds have lost every copy, seven in all, so that a path that
// loses one packet in five keeps its MTU for a day. Ladders of up to
// eight sizes, common ones first and then divisions of what is left, find the
// size to the octet within a few rounds more. The bound found by loss is tried
// twice more, with sizes beyond it, before the search rests.
//
// # Concurrency
//
// A Search belongs to one goroutine.
//
// # Standards
//
// RFC 8899 (packetization layer path MTU discovery for datagrams): clause 5.3.2
// (search by more than one size), 5.1.4 (base and search phases). Differences:
// black holes are told by three lost rounds beside packets that pass, not by
// MAX_PROBES of one size; ICMP, which anybody can forge, is not heard. What the
// device refuses is, and so the caller looks at once when it refuses a packet.
package pathmtu
