package integration_test

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// authority is a CA of a test's own.
type authority struct {
	t      *testing.T
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
	list   time.Duration // how long a revocation list is good; 0 = 30 days
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, serial: 1, key: newKey(t)}
	a.cert = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil, &a.key.PublicKey)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign signs x for a key with parent's, or, with nil, as its own.
func (a *authority) sign(x, parent *x509.Certificate, pub *ecdsa.PublicKey) *x509.Certificate {
	a.t.Helper()
	x.SerialNumber = big.NewInt(a.serial)
	a.serial++
	if x.NotAfter.IsZero() {
		x.NotBefore, x.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(30*24*time.Hour)
	}
	if parent == nil {
		parent = x
	}
	der, err := x509.CreateCertificate(rand.Reader, x, parent, pub, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// issue makes the files of a host: host.crt, host.key and ca.crt. edit changes the
// certificate before it is signed; nil for none.
func (a *authority) issue(host string, edit func(*x509.Certificate)) (files map[string]string, cert *x509.Certificate) {
	a.t.Helper()
	k := newKey(a.t)
	x := &x509.Certificate{Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, KeyUsage: x509.KeyUsageDigitalSignature}
	if edit != nil {
		edit(x)
	}
	cert = a.sign(x, a.cert, &k.PublicKey)
	return map[string]string{"host.crt": inPEM("CERTIFICATE", cert.Raw), "host.key": a.keyPEM(k), "ca.crt": inPEM("CERTIFICATE", a.cert.Raw)}, cert
}

func (a *authority) keyPEM(k *ecdsa.PrivateKey) string {
	a.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return inPEM("PRIVATE KEY", der)
}

// revoked is the list of those certificates.
func (a *authority) revoked(certs ...*x509.Certificate) string {
	a.t.Helper()
	a.serial++
	l := &x509.RevocationList{Number: big.NewInt(a.serial), ThisUpdate: time.Now().Add(-365 * 24 * time.Hour), NextUpdate: time.Now().Add(cmp.Or(a.list, 30*24*time.Hour))}
	for _, c := range certs {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return inPEM("X509 CRL", der)
}

func inPEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
