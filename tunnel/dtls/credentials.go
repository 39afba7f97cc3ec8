package dtls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// minKey is the shortest shared key in octets: what AES-256 would take.
const minKey = 32

// Credentials is how this host proves who it is, and what it asks of others:
// certificates, or one key that all share. It is immutable.
type Credentials struct {
	cert    tls.Certificate
	leaf    *x509.Certificate
	cas     []*x509.Certificate
	roots   *x509.CertPool // the same
	revoked map[revocation]bool
	listed  time.Time // when the first revocation list is to be replaced, zero = never
	key     []byte    // shared, instead of all of the above
}

// revocation names a certificate as its issuer does, or every certificate for a
// key by the SHA-256 of its SubjectPublicKeyInfo.
type revocation struct{ issuer, serial, key string }

// keyExtension has that SHA-256 in an entry of a list: a subject key identifier
// (RFC 7093 clause 2, method 4). Lists that don't have it name serial numbers only.
var keyExtension = asn1.ObjectIdentifier{2, 5, 29, 14}

// Certificates makes credentials of PEM files: this host's certificate with any
// intermediates behind it, its key, the CAs that others' certificates may come
// from, and their revocation lists (nil for none). A list counts however old it
// is; one that none of the CAs has signed is an error.
func Certificates(cert, key, ca, crl []byte) (*Credentials, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read certificate and key: %w", err)
	}
	c := &Credentials{cert: pair, leaf: pair.Leaf, roots: x509.NewCertPool()}
	if !strongKey(c.leaf) {
		return nil, fmt.Errorf("read certificate: its key is %v: want ECDSA on P-256 or P-384", c.leaf.PublicKeyAlgorithm)
	}
	err = eachBlock(ca, "CERTIFICATE", func(der []byte) error {
		a, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		if !a.IsCA {
			return fmt.Errorf("%v isn't a CA's", a.Subject)
		}
		c.cas = append(c.cas, a)
		c.roots.AddCert(a)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read CA certificates: %w", err)
	}
	if crl == nil {
		return c, nil
	}
	return c.WithList(crl)
}

// WithList is c with those revocation lists, in PEM, instead of the ones it has.
func (c *Credentials) WithList(crl []byte) (*Credentials, error) {
	d := *c
	d.revoked, d.listed = make(map[revocation]bool), time.Time{}
	if err := eachBlock(crl, "X509 CRL", d.revoke); err != nil {
		return nil, fmt.Errorf("read revocation list: %w", err)
	}
	return &d, nil
}

// revoke takes one revocation list.
func (c *Credentials) revoke(der []byte) error {
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(c.cas, func(a *x509.Certificate) bool {
		return bytes.Equal(a.RawSubject, l.RawIssuer) && l.CheckSignatureFrom(a) == nil
	}) {
		return fmt.Errorf("the list of %v isn't signed by any of the CAs", l.Issuer)
	}
	if next := l.NextUpdate; !next.IsZero() && (c.listed.IsZero() || next.Before(c.listed)) {
		c.listed = next
	}
	for _, e := range l.RevokedCertificateEntries {
		c.revoked[revocation{issuer: string(l.RawIssuer), serial: e.SerialNumber.String()}] = true
		for _, x := range e.Extensions {
			var id []byte
			if _, err := asn1.Unmarshal(x.Value, &id); x.Id.Equal(keyExtension) && err == nil && len(id) == sha256.Size {
				c.revoked[revocation{key: string(id)}] = true
			}
		}
	}
	return nil
}

// eachBlock calls f with every PEM block of a kind, of which there must be one.
func eachBlock(b []byte, kind string, f func(der []byte) error) error {
	n := 0
	for p, rest := pem.Decode(b); p != nil; p, rest = pem.Decode(rest) {
		if p.Type != kind {
			continue
		}
		n++
		if err := f(p.Bytes); err != nil {
			return fmt.Errorf("block %d: %w", n, err)
		}
	}
	if n == 0 {
		return fmt.Errorf("no PEM block %q", kind)
	}
	return nil
}

// SharedKey makes credentials of the text of a key file: 32 or more random
// octets in base64. Who knows the key can be any host, and can read what was
// recorded before he knew it: certificates are better.
func SharedKey(file []byte) (*Credentials, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(file)))
	if err != nil {
		return nil, errors.New("read shared key: not base64") // the error would quote the key
	}
	if len(key) < minKey {
		return nil, fmt.Errorf("read shared key: %d octets: want %d or more random ones", len(key), minKey)
	}
	return &Credentials{key: key}, nil
}

// Expires is when this host's certificate does; zero with a shared key.
func (c *Credentials) Expires() time.Time {
	if c.leaf == nil {
		return time.Time{}
	}
	return c.leaf.NotAfter
}

// ListExpires is when the first of the revocation lists should have been replaced;
// zero without a list. An old list counts all the same.
func (c *Credentials) ListExpires() time.Time { return c.listed }

// fits checks that the credentials are host's own.
func (c *Credentials) fits(host string) error {
	if c.leaf != nil && !named(c.leaf, host) {
		return fmt.Errorf("the certificate is for %q, and this host is %q", c.leaf.DNSNames, host)
	}
	return nil
}

// same reports whether a link made with c holds with d: the same kind, the same
// shared key. Certificates are for verify to judge.
func (c *Credentials) same(d *Credentials) bool {
	return (c.key == nil) == (d.key == nil) && subtle.ConstantTimeCompare(c.key, d.key) == 1
}

// verify checks a peer's certificates as they came, its own first: chain, time,
// purpose, key, name and revocation, in both roles. It returns until when they are
// good: when the first certificate of a chain expires, of the chain that lasts.
func (c *Credentials) verify(raw [][]byte, peer string, now time.Time) (until time.Time, err error) {
	if len(raw) == 0 {
		return until, refusal{NoCertificate, "the peer showed none"}
	}
	certs := make([]*x509.Certificate, len(raw))
	for i, der := range raw {
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			return until, refusal{WrongCA, err.Error()}
		}
	}
	leaf := certs[0]
	o := x509.VerifyOptions{
		Roots: c.roots, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, i := range certs[1:] {
		o.Intermediates.AddCert(i)
	}
	chains, err := leaf.Verify(o)
	if err != nil {
		return until, classifyCertificate(err)
	}
	for _, chain := range chains {
		if ends := expiry(chain); c.unrevoked(chain) && ends.After(until) {
			until = ends
		}
	}
	switch {
	case until.IsZero():
		return until, refusal{Revoked, fmt.Sprintf("serial %v", leaf.SerialNumber)}
	case !strongKey(leaf):
		return until, refusal{WeakKey, fmt.Sprintf("%v", leaf.PublicKeyAlgorithm)}
	case !named(leaf, peer):
		return until, refusal{WrongName, fmt.Sprintf("it is for %q, and the peer is %q", leaf.DNSNames, peer)}
	}
	return until, nil
}

// expiry is when the first certificate of a chain expires.
func expiry(chain []*x509.Certificate) time.Time {
	first := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return first.NotAfter
}

// unrevoked reports whether no certificate of a chain, nor its key, is on a list.
func (c *Credentials) unrevoked(chain []*x509.Certificate) bool {
	return !slices.ContainsFunc(chain, func(x *x509.Certificate) bool {
		key := sha256.Sum256(x.RawSubjectPublicKeyInfo)
		return c.revoked[revocation{issuer: string(x.RawIssuer), serial: x.SerialNumber.String()}] || c.revoked[revocation{key: string(key[:])}]
	})
}

// named reports whether name is one of the certificate's DNS names. A wildcard
// is no host's name.
func named(c *x509.Certificate, name string) bool {
	return slices.ContainsFunc(c.DNSNames, func(n string) bool { return strings.EqualFold(n, name) })
}

// strongKey reports whether the key is one that the suites can use.
func strongKey(c *x509.Certificate) bool {
	k, ok := c.PublicKey.(*ecdsa.PublicKey)
	return ok && (k.Curve == elliptic.P256() || k.Curve == elliptic.P384())
}
