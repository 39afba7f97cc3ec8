// Package record is the DTLS 1.2 record layer with AES-GCM: it seals and opens
// records in place, never uses a nonce twice, and never accepts a record twice.
// The keys come from a handshake that is none of its business.
//
//	0    1         3       5            11       13              21            21+n        37+n
//	type version   epoch   sequence     length   explicit nonce  ciphertext    tag
//	23   fe fd     2       6            8+n+16   epoch‖sequence  n             16
//	└──────────── headroom: 21 octets ─────────────────────────┘└ plaintext ─┘└ room: 16 ┘
//
//	AES-GCM nonce   salt (4, from the key block) ‖ explicit nonce (8)
//	authenticated   epoch ‖ sequence ‖ type ‖ version ‖ n
//
// # Nonces
//
// The explicit nonce of a sealed record is its epoch and sequence number, and a
// Sealer gives each number away once: a Writer reserves a block of them by one
// atomic addition, so several loops seal under one key without a lock. Numbers of
// a block that aren't used are skipped. A Sealer ends at its limit; nothing wraps.
//
// # Replay
//
// A Window remembers the last 2,032 sequence numbers or more. What decides is
// one compare-and-swap after the record was found authentic, so each is accepted
// once, however many goroutines open records.
//
// # Handing over
//
// Hand ends both ways of an association for good, and Take goes on with them in
// another process. The counter is retired by one swap, and each word of the window
// too, so what one process gives away or accepts the other never does; no lock and no
// order of the goroutines is needed for it.
//
// # Ownership
//
// Seal and Open work in the caller's octets and keep none of them.
//
// # Concurrency
//
// A Sealer, an Opener and a Window may be used by any number of goroutines. A
// Writer and a Reader hold what one goroutine needs meanwhile and belong to it.
//
// # Standards
//
// RFC 6347 clauses 4.1 and 4.1.2.6 (records, replay), RFC 5246 clauses 5, 6.2.3.3
// and 6.3 (PRF, AEAD, key block), RFC 5288 and 5289 (AES-GCM, its nonce, the
// ECDHE_ECDSA suites), RFC 5487 (the PSK suites). Difference: no other cipher,
// no compression, no version but DTLS 1.2.
package record
