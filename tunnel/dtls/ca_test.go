package dtls_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
)

// ca is a certificate authority for tests.
type ca struct {
	t    testing.TB
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newCA(t testing.TB) *ca {
	t.Helper()
	return newCANamed(t, "test CA")
}

func newCANamed(t testing.TB, name string) *ca {
	t.Helper()
	c := &ca{t: t, name: name, key: newKey(t, elliptic.P256()), next: 100}
	return c.again(1000 * time.Hour)
}

// again is the same CA with a certificate that lives as long as d.
func (c *ca) again(d time.Duration) *ca {
	c.t.Helper()
	again := *c
	again.certify(c.template(d), &again)
	return &again
}

// under is a CA below c that lives as long as d.
func (c *ca) under(d time.Duration) *ca {
	c.t.Helper()
	below := &ca{t: c.t, name: c.name + " below", key: newKey(c.t, elliptic.P256()), next: 200}
	below.certify(below.template(d), c)
	return below
}

func (c *ca) template(d time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: c.name},
		NotBefore: now().Add(-time.Hour), NotAfter: now().Add(d), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// certify makes c's own certificate, signed by another CA or itself.
func (c *ca) certify(tmpl *x509.Certificate, by *ca) {
	c.t.Helper()
	parent := by.cert
	if by == c {
		parent = tmpl
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &c.key.PublicKey, by.key)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		c.t.Fatal(err)
	}
}

// now is the time that handshakes go by: inside a bubble not the wall clock's.
func now() time.Time { return time.Now() }

func newKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (c *ca) pem() []byte { return block("CERTIFICATE", c.cert.Raw) }

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// issue makes a certificate and its key for a host, changed by f.
func (c *ca) issue(host string, f func(*x509.Certificate)) (cert, key []byte) {
	return c.issueFor(host, newKey(c.t, elliptic.P256()), f)
}

func (c *ca) issueFor(host string, k *ecdsa.PrivateKey, f func(*x509.Certificate)) (cert, key []byte) {
	c.t.Helper()
	c.next++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(c.next), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: now().Add(-time.Hour), NotAfter: now().Add(100 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if f != nil {
		f(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, &k.PublicKey, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		c.t.Fatal(err)
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", b)
}

// crl is a list of revoked serial numbers.
func (c *ca) crl(serials ...int64) []byte {
	c.t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now(), NextUpdate: now().Add(time.Hour)}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, c.cert, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return block("X509 CRL", der)
}

func (c *ca) credentials(host string) *dtls.Credentials { return c.credentialsWith(host, nil, nil) }

func (c *ca) credentialsWith(host string, crl []byte, f func(*x509.Certificate)) *dtls.Credentials {
	c.t.Helper()
	cert, key := c.issue(host, f)
	return must(c.t)(dtls.Certificates(cert, key, c.pem(), crl))
}

func must(t testing.TB) func(*dtls.Credentials, error) *dtls.Credentials {
	return func(c *dtls.Credentials, err error) *dtls.Credentials {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func shared(t testing.TB, seed byte) *dtls.Credentials {
	return must(t)(dtls.SharedKey([]byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{seed}, 32)))))
}

// expiresIn makes a certificate's life short.
func expiresIn(d time.Duration) func(*x509.Certificate) {
	return func(x *x509.Certificate) { x.NotAfter = now().Add(d) }
}
