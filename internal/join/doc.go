// Package join takes a host into a fabric: who has the CA makes a token and
// waits, who has the token gets a certificate in exchange for it.
//
//	pki token ── Listen, Serve              join TOKEN ── Join
//	     │                                        │ makes its key and a certificate request
//	     │ <───────────── TCP, TLS 1.3 ────────── │
//	     │   _join, signed by the CA ───────────> │ is this the CA with the token's fingerprint?
//	     │ <── proof, host, address, request ──── │ proof: HMAC of the session, by the token's secret
//	     │   certificate, CA, list, file ───────> │ is the certificate mine, and this CA's?
//	   closed <── one octet ──────────────────  written
//
// A token, in base64url without padding after "tapestry-":
//
//	octets
//	     1  version, 1
//	    32  SHA-256 of the CA's certificate (DER)
//	    16  secret, random
//	     8  when it expires, in seconds since 1970
//	     1  length of the host's name; 0: whoever joins chooses it
//	     n  the host's name
//	     1  number of addresses, 1 to 8
//	        each: 1 octet its length, 4 or 16; the address; 2 octets the TCP port
//	     4  the first octets of the SHA-256 of everything before
//
// After the handshake each side sends one message: its length in four octets,
// then that much JSON. The octet at the end says that the files are on disk.
//
// # Who proves what
//
// The joining host speaks only to the CA of the token: the listener shows a
// certificate with the name _join, which no host can have, signed by the CA with
// that fingerprint. So no host of the fabric can pass for the listener, and a
// listener of another CA learns nothing. The secret itself is never sent: what
// is sent is an HMAC with it of the TLS session's exported keying material, which
// is of no use in another session. The private key of the new host stays on it.
//
// # A token's life
//
// The listener is open while its token is: until somebody has joined, it
// expires, it is removed, or its process ends. Wrong proofs don't end it, since
// anybody could send them, and nobody finds 128 bits by trying. The secret is in the token and in the listening process and in no file; the file
// token-ID.json in the CA's folder is locked by that process, and says that the
// token lives. Removing the file ends it.
//
// # Bounds
//
// 64 connections at once, eight from one source, ten seconds for each, 16 KiB for
// a request, 16 MiB for a reply; one line of log for each connection, and none
// after the thousandth. A wrong proof is answered after a second. A connection
// that has proved nothing makes room for one that comes, the oldest of the source
// that has most first, so that silent ones keep nobody out.
//
// # Concurrency
//
// A Listener serves from one goroutine, and one more for each connection. Join
// may be called from any goroutine.
//
// # Standards
//
// RFC 8446 (TLS 1.3), RFC 5705 and RFC 8446 clause 7.5 (exported keying
// material), RFC 2104 (HMAC), RFC 2986 (certificate requests), RFC 4648 clause 5
// (base64url).
package join
