package pki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/pki"
)

// list reads the revocation list of a CA.
func list(t *testing.T, ca *pki.CA) *x509.RevocationList {
	t.Helper()
	_, crl, err := ca.Files()
	if err != nil {
		t.Fatal(err)
	}
	l, err := pki.ParseCRL(crl)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestRevokeKey wants the list to name the key of what is revoked, and the key
// never to be certified again, under any name.
func TestRevokeKey(t *testing.T) {
	ca := newCA(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ca.Sign(pki.Order{Host: "h1"}, &key.PublicKey); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Revoke("h1"); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	want, err := asn1.Marshal(sum[:])
	if err != nil {
		t.Fatal(err)
	}
	entries := list(t, ca).RevokedCertificateEntries
	if len(entries) != 1 || len(entries[0].Extensions) != 1 {
		t.Fatalf("got entries %+v, want one with one extension", entries)
	}
	if x := entries[0].Extensions[0]; x.Critical || !x.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 14}) || !slices.Equal(x.Value, want) {
		t.Errorf("got extension %+v, want the SHA-256 of the key", x)
	}
	for _, host := range []string{"h1", "h2"} {
		_, _, err := ca.Sign(pki.Order{Host: host, Renew: true}, &key.PublicKey)
		wantIs(t, "a revoked key for "+host, err, pki.ErrInvalid)
	}
}

// TestListEnds wants a list to last a month, and to be made anew.
func TestListEnds(t *testing.T) {
	ca := newCA(t)
	now := time.Now()
	ends := func(want time.Time) {
		t.Helper()
		got, err := ca.ListEnds()
		if l := list(t, ca); err != nil || !got.Equal(l.NextUpdate) || got.Sub(want).Abs() > time.Minute {
			t.Errorf("got end %v, %v, in the list %v, want %v", got, err, l.NextUpdate, want)
		}
	}
	ends(now.Add(30 * 24 * time.Hour))
	issue(t, ca, pki.Order{Host: "h1"})
	if _, err := ca.Revoke("h1"); err != nil {
		t.Fatal(err)
	}
	later := now.Add(40 * 24 * time.Hour)
	pki.SetClock(ca, func() time.Time { return later })
	if until, err := ca.RenewList(); err != nil || until.Sub(later) < 29*24*time.Hour {
		t.Fatalf("got %v, %v", until, err)
	}
	ends(later.Add(30 * 24 * time.Hour))
	if l := list(t, ca); l.Number.Int64() != 3 || len(l.RevokedCertificateEntries) != 1 {
		t.Errorf("got list %v with %v, want number 3 with all of the one before", l.Number, l.RevokedCertificateEntries)
	}
	pki.SetClock(ca, func() time.Time { return ca.Certificate().NotAfter.Add(-time.Hour) })
	if until, err := ca.RenewList(); err != nil || !until.Equal(ca.Certificate().NotAfter) {
		t.Errorf("got %v, %v, want the end of the CA", until, err)
	}
}
