package join

import (
	"bytes"
	"crypto/ecdsa"
	"net/netip"
	"time"
)

// SetPenalty lets a test choose how long who says a wrong proof waits.
func SetPenalty(l *Listener, d time.Duration) { l.penalty = d }

// WithSecret is a token that knows another secret.
func WithSecret(t Token, b byte) Token {
	t.secret[0] ^= b
	return t
}

// With is a token with a new secret.
func With(t Token) Token { return newToken(t) }

// Request reads a request as the listener does, and judges its parts.
func Request(b []byte) (*ecdsa.PublicKey, string, netip.Addr, error) {
	var q request
	if err := receive(bytes.NewReader(b), maxRequest, &q); err != nil {
		return nil, "", netip.Addr{}, err
	}
	key, err := q.check()
	return key, q.Host, q.Address, err
}

// Proof is what a host that knows t's secret says.
var Proof = proof
