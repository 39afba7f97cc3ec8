package dtls_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
)

// crlOf is a list with one serial number, and the octets of an extension that
// should say whose key it is.
func (c *ca) crlOf(serial int64, extension []byte) []byte {
	c.t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(2), ThisUpdate: now(), NextUpdate: now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{
			SerialNumber: big.NewInt(serial), RevocationTime: now(),
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 14}, Value: extension}},
		}},
	}, c.cert, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return block("X509 CRL", der)
}

// keyName is how a list names a key.
func keyName(t *testing.T, k *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	b, err := asn1.Marshal(sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRevokedKey revokes one certificate of two for the same key: neither is
// good, and a link with the other ends. A new key is.
func TestRevokedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		defer w.close()
		c := newCA(t)
		k := newKey(t, elliptic.P256())
		cert, key := c.issueFor("b", k, nil)
		c.next += 10
		again, _ := c.issueFor("b", k, nil)
		a := w.host("a", dtls.Options{}, c.credentials("a"), "b")
		b := w.host("b", dtls.Options{}, must(t)(dtls.Certificates(cert, key, c.pem(), nil)), "a")
		settle(2 * time.Second)
		talk(t, a, b)

		a.apply(c.credentialsWith("a", c.crlOf(7, keyName(t, k)), nil), "b")
		if a.say("b", "x") || a.status("b").Failure.Reason != dtls.Revoked {
			t.Errorf("the key is revoked: %+v", a.status("b"))
		}
		b.apply(must(t)(dtls.Certificates(again, key, c.pem(), nil)), "a")
		settle(time.Minute)
		if a.say("b", "x") {
			t.Error("another certificate for the key, and up again")
		}
		b.apply(c.credentials("b"), "a")
		settle(time.Minute)
		talk(t, a, b)
		w.noLeaks()
	})
}

// TestForeignRevocationList takes lists whose extension isn't a key's SHA-256 by
// serial number alone.
func TestForeignRevocationList(t *testing.T) {
	c := newCA(t)
	for _, extension := range [][]byte{{4, 2, 1, 2}, {5, 0}, {}, {4, 32}} {
		c.credentialsWith("a", c.crlOf(7, extension), nil)
	}
}

// TestWithList gives credentials another list: it counts instead of the one before.
func TestWithList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		defer w.close()
		c := newCA(t)
		cert, key := c.issue("b", nil) // serial 101
		first := c.credentialsWith("a", c.crl(5), nil)
		a := w.host("a", dtls.Options{}, first, "b")
		b := w.host("b", dtls.Options{}, must(t)(dtls.Certificates(cert, key, c.pem(), nil)), "a")
		settle(2 * time.Second)
		talk(t, a, b)
		a.apply(must(t)(first.WithList(c.crl(101))), "b")
		if a.say("b", "x") || a.status("b").Failure.Reason != dtls.Revoked {
			t.Errorf("revoked: %+v", a.status("b"))
		}
		a.apply(must(t)(first.WithList(c.crl())), "b")
		settle(time.Minute)
		talk(t, a, b)
		if _, err := first.WithList(newCA(t).crl()); err == nil {
			t.Error("a stranger's list: no error")
		}
		if _, err := first.WithList(nil); err == nil {
			t.Error("no list: no error")
		}
	})
}
