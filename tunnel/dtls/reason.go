package dtls

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// Reason is why there is no link, or the last one ended.
type Reason uint8

// Reasons.
const (
	ReasonNone    Reason = iota
	NoAnswer             // the peer didn't answer in time
	WrongCA              // its certificate comes from no CA of ours
	SelfSigned           // its certificate vouches for itself
	Expired              // its certificate isn't valid now
	Revoked              // its certificate is on a revocation list
	WrongName            // its certificate or its identity is another host's
	WeakKey              // the key of its certificate isn't ECDSA on P-256 or P-384
	NoCertificate        // it has shown none
	BadSignature         // it doesn't hold the key of its certificate
	WrongKey             // its shared key is another
	WeakSuite            // it offers no suite with AES-GCM, or no extended master secret
	WrongVersion         // it doesn't speak DTLS 1.2
	PeerRefused          // the peer says that it refuses us
	PeerClosed           // the peer closed the link
	Silent               // nothing was heard by the link for too long
	Spent                // the keys were used up before new ones were there
	Withdrawn            // our own credentials changed
	Failed               // something else
	numReasons
)

// String returns the word for r in outputs.
func (r Reason) String() string {
	if r >= numReasons {
		return fmt.Sprintf("reason %d", uint8(r))
	}
	return [numReasons]string{
		"", "no_answer", "wrong_ca", "self_signed", "expired", "revoked", "wrong_name", "weak_key", "no_certificate",
		"bad_signature", "wrong_key", "weak_suite", "wrong_version", "peer_refused", "peer_closed", "silent", "spent",
		"withdrawn", "failed",
	}[r]
}

// refusal is an error with its reason.
type refusal struct {
	Reason
	detail string
}

func (r refusal) Error() string {
	if r.detail == "" {
		return r.String()
	}
	return r.String() + ": " + r.detail
}

// classify finds the reason for a failed handshake. What the library doesn't
// export it is recognised by: the library is frozen, and a test pins the texts.
func classify(err error) refusal {
	var r refusal
	if errors.As(err, &r) {
		return r
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return refusal{NoAnswer, ""}
	}
	if c := classifyCertificate(err); c.Reason != Failed {
		return c
	}
	for _, known := range []struct {
		text   string
		reason Reason
	}{
		{"unsupported protocol version", WrongVersion},
		{"do not support any shared cipher suites", WeakSuite},
		{"invalid or unknown cipher suite", WeakSuite},
		{"Extended Master Secret", WeakSuite},
		{"no SignatureScheme satisfy", WeakSuite},
		{"key signature do not match", BadSignature},
		{"ECDSA signature contained", BadSignature},
		{"got none", NoCertificate},
		{"no certificate provided", NoCertificate},
		{"did not verify it", BadSignature},
		{"verify data does not match", WrongKey},
	} {
		if strings.Contains(err.Error(), known.text) {
			return refusal{known.reason, ""}
		}
	}
	return refusal{Failed, err.Error()}
}

// classifyCertificate finds the reason for an error of package x509.
func classifyCertificate(err error) refusal {
	var (
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &unknown):
		if c := unknown.Cert; c != nil && bytes.Equal(c.RawIssuer, c.RawSubject) {
			return refusal{SelfSigned, ""}
		}
		return refusal{WrongCA, ""}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return refusal{Expired, invalid.Detail}
	case errors.As(err, &invalid):
		return refusal{WrongCA, invalid.Error()}
	}
	return refusal{Failed, err.Error()}
}
