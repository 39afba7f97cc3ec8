// Package dtls is the encrypted link below a tunnel: one DTLS 1.2 association
// with each peer, through which frames leave sealed or not at all.
//
//	tunnel ── Link.Reserve, Writer.Seal ──> datagram          one UDP socket for all peers
//	tunnel <── Link.Open ──┬── data: opened in place, no copy
//	                       └── handshakes: copied ──> inbox ──> one goroutine ──> the library, a goroutine each
//
//	13             8               8         n                          16
//	record header  explicit nonce  VXLAN     inner frame                tag        37 octets more than plain VXLAN
//	               epoch‖sequence  └──────── sealed in place ─────────┘
//
// The library (pion/dtls/v2) does handshakes and nothing else: package record
// seals and opens with the keys that it agrees upon. See pion.go.
//
// # A link's states
//
//	waiting ──> handshaking ──> established <──> rekeying      closed: no peer of ours any more
//	   ^────────────┴─────────────────┴─────────────┘
//
// Both sides begin when they have no keys. If they meet, the lower name is the
// client. A side that is established serves a new handshake beside its keys: what
// replaces them is a handshake that ended well, never one that began, so a host
// that has restarted is back at once and a forger achieves nothing. The client
// uses new keys when it has them, the server when it has opened something; it
// lets its last flight go only when it can open. Former keys go on opening for
// Options.Overlap, so no frame is lost.
//
// # Fail closed
//
// Reserve says no unless a handshake has ended well, its keys aren't used up,
// and the peer isn't silent, revoked, expired, removed, or shown to have another
// name. There is no other way to seal, and no way around sealing. What isn't
// authentic changes no keys and no state: alerts and data in clear are dropped,
// an alert explains a failure and makes none.
//
// # From one process to the next
//
// Hand ends all links at once and returns their keys, for the Endpoint of the next
// process. What a link has sealed and opened by then is counted exactly, whichever
// goroutine comes late (see package record), so no nonce is used twice and no record
// taken twice, and the peers notice nothing. The first Apply takes what its peers and
// credentials still allow, on the word of nobody: certificates are verified anew. A
// handshake under way is not handed over; one that has ended is, though the peer may
// not know yet: a client seals with its keys already.
//
// # Who is who
//
// Certificates: ECDSA on P-256 or P-384, from a CA of ours, valid now, not
// revoked, with exactly the peer's name among its DNS names (no wildcard), asked
// for by both sides. Or one shared key: then a peer is who it says it is, and who
// learns the key reads what he has recorded. AES-GCM suites only, extended
// master secret required (the library's server doesn't compare the client's
// Finished; with it, the keys themselves depend on all that was said).
//
// # The library's two advisories
//
// CVE-2026-26014, random nonces: none of our records has one. A Finished does;
// those that could be ours never leave (conn.Write, TestNoNonceOfOurs), and nothing
// else that the library seals does (TestSealsNothingElse). So no nonce is used
// twice, rather than seldom.
//
// CVE-2026-54908, a malformed ECDHE_PSK key exchange ends the process: no such
// suite is ever offered or taken (TestNoECDHEPSK).
//
// # Strangers
//
// Only datagrams from addresses of peers come here, and only what something waits
// for goes further (gate.go): each kind has a budget, and in a flood each datagram
// the same chance. A ClientHello is answered with fewer octets than it has, until
// its cookie is back; handshakes that wait for it are few for each peer and in all,
// and yield to newer ones, first where the most are. Links that are up don't
// notice, and a part of the handshakes is for renewing their keys.
//
// Records in clear are known by their numbers: a client's begin where nobody can
// guess, and a server's follow from them. So what is forged by who doesn't see the
// handshake is no part of it, on a link that is up. On one that isn't, a peer whose
// numbers begin at 0 is heard once some hellos have had no other answer.
//
// # Ownership
//
// Open works in the caller's datagram, and plaintext shares its octets. What
// Options.Send is given belongs to the caller again when it returns.
//
// # Concurrency
//
// Link.Reserve and Link.Open may be called by any number of goroutines, each with
// its own Writer and Reader; they take no lock. Everything else may be called
// from any goroutine too. An Endpoint has one goroutine and one timer for all its
// links, and three goroutines for each handshake under way; a link that is up has
// none.
//
// # Standards
//
// RFC 6347 (DTLS 1.2), RFC 5246 (TLS 1.2), RFC 5288, 5289 and 5487 (AES-GCM
// suites), RFC 7627 (extended master secret), RFC 5280 (certificates and
// revocation), RFC 9325 (use of TLS), RFC 4279 clause 5.1 (identities of shared
// keys). Differences: no renegotiation, but a second handshake on the same
// addresses; a client's numbers in epoch 0 don't begin at 0 (RFC 6347 clause 4.1); no
// resumption; no server name indication (RFC 6066): the link tells
// who is meant, and an observer learns no names from it; alerts in clear are
// never obeyed.
package dtls
