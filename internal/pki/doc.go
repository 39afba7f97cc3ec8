// Package pki is a certificate authority in a folder: it makes the certificates
// by which hosts know each other on encrypted links, and takes them back.
//
//	DIR/            0700, its files 0600
//	  ca.crt        the CA's certificate, PEM; every host has a copy
//	  ca.key        the CA's private key, PEM (PKCS #8); stays here
//	  revoked.crl   what has been revoked, PEM; every host has a copy
//	  issued.json   what has been issued, and to whom
//	  HOST.crt      a host's certificate, PEM
//	  HOST.key      its private key, PEM (PKCS #8)
//	  lock          held by whoever changes something
//
// Keys are ECDSA on P-256. A host's certificate has the host's name as its only
// DNS name, serves both sides of a link, and begins five minutes before it was
// made, for clocks that differ. Serial numbers are 128 random bits.
//
// # Files
//
// A file is written under another name, synced and given its own: after a crash
// at any instant the old or the new one is there whole. None is replaced unless
// this CA made it and the caller asks for it. A folder or key that others could
// read is refused. Host names can't lead out of the folder: they have no slash,
// and files are opened relative to it (os.Root).
//
// The index is written before what follows from it, so that nothing is issued
// that can't be revoked, and no list lacks what the index says. A crash in
// between leaves an entry whose certificate nobody has, which may be revoked or
// renewed, or a list that the same revocation, run again, makes anew.
//
// # Concurrency
//
// A CA may be used by any number of goroutines and processes: each change holds
// the folder's lock and begins by reading the index.
//
// # Standards
//
// RFC 5280 (certificates and revocation lists), RFC 5958 (private keys). A list
// is to be made anew within thirty days, so that a host notices when none comes.
// Its entries have the SHA-256 of the certificate's key too, for whoever knows
// that extension: what is revoked is the key, with every certificate for it, and
// this CA certifies it no more.
package pki
