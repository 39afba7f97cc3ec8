// Package tracer follows one packet: it sends the probe, watches for it on this
// host, has other hosts watch, and says what became of it.
//
//	Trace   resolve ──> summon peers ──> look out ──> send ──> await ──> collect ──> merge ──> conclude
//	Asked   a peer's question ──> an errand: look out, tell, end
//
//	lookout  a switch's observer, a tunnel's, an ear for each namespace, a wall for its firewall
//	ear      packet sockets beside the interfaces of a namespace: what its kernel receives and sends
//	wall     the rules of nftables that the probe meets, while one is suspected
//
// # Bounds
//
// A host watches 8 traces of others at most, each for 15 s and 64 sights; it
// answers 8 questions at a time and leaves further ones to be asked again.
// Everything that is opened for a trace is closed when it ends, when its caller
// hangs up, or when the time is over.
//
// # Concurrency
//
// A Tracer's methods may be called from any goroutine. Asked does not block.
package tracer
