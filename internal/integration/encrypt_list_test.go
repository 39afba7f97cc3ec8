package integration_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/pki"
)

// TestEncryptedList gives a running host revocation lists by copying them alone:
// one that is old is told and stays in force, as does the one before a file that
// can't be read, and one that is gone.
func TestEncryptedList(t *testing.T) {
	t.Parallel()
	const dtls = "cert: host.crt, key: host.key, ca: ca.crt"
	f, ca := newFabric(t, 2), newAuthority(t, "fabric")
	first, _ := ca.issue("h1", nil)
	second, cert2 := ca.issue("h2", nil)
	ca.list = 3 * 24 * time.Hour
	first["revoked.crl"] = ca.revoked()
	one := f.upSealed(1, dtls+", crl: revoked.crl", first)
	f.upSealed(2, dtls, second)
	f.meet(1, 2)
	told := func(what string) {
		t.Helper()
		one.until("status says "+what, func() bool { return strings.Contains(one.cli("status"), what) })
		one.until("the log says "+what, func() bool { return strings.Contains(one.log.String(), what) })
	}
	told("revoked certificates expires on")
	ca.list = -time.Hour
	one.put(map[string]string{"revoked.crl": ca.revoked()})
	told("revoked certificates has expired")
	if out, _, _ := one.try("doctor"); !strings.Contains(out, "has expired") {
		t.Errorf("doctor: %s", out)
	}
	one.put(map[string]string{"revoked.crl": "nothing of the kind"})
	told("could not be read anew")
	if err := os.Remove(filepath.Join(one.dir, "revoked.crl")); err != nil {
		t.Fatal(err)
	}
	told("no such file")
	ping(t, f.hosts[0].container, "10.1.0.2", 2)
	if n := strings.Count(one.log.String(), "has expired"); n != 1 {
		t.Errorf("%d lines of the log say that the list has expired, want 1", n)
	}
	one.put(map[string]string{"revoked.crl": ca.revoked(cert2)}) // expired, and in force
	one.refuses("h2", "revoked")
	ca.list = 0
	one.put(map[string]string{"revoked.crl": ca.revoked()})
	f.meet(1, 2)
	if out := one.cli("status"); strings.Contains(out, "revoked") {
		t.Errorf("all is well: %s", out)
	}
}

// TestEncryptedRevokedKey has the CA of this program revoke a host whose key
// somebody has copied, and has had certified once more: he finds no link.
func TestEncryptedRevokedKey(t *testing.T) {
	t.Parallel()
	const dtls = "cert: host.crt, key: host.key, ca: ca.crt"
	ca, err := pki.Init(filepath.Join(t.TempDir(), "pki"), "fabric")
	if err != nil {
		t.Fatal(err)
	}
	defer ca.Close()
	read := func(name string) string {
		t.Helper()
		b, err := ca.Folder().Read(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	files := func(host string) map[string]string {
		t.Helper()
		if _, err := ca.Issue(pki.Order{Host: host}); err != nil {
			t.Fatal(err)
		}
		return map[string]string{"host.crt": read(host + ".crt"), "host.key": read(host + ".key"), "ca.crt": read("ca.crt"), "revoked.crl": read("revoked.crl")}
	}
	f := newFabric(t, 2)
	one := f.upSealed(1, dtls+", crl: revoked.crl", files("h1"))
	stolen := files("h2")
	stolen["host.crt"] = again(t, &authority{t: t, serial: 1000, cert: ca.Certificate(), key: keyOf(t, read("ca.key"))}, keyOf(t, stolen["host.key"]))
	f.upSealed(2, dtls, stolen)
	f.meet(1, 2)
	if _, err := ca.Revoke("h2"); err != nil {
		t.Fatal(err)
	}
	one.put(map[string]string{"revoked.crl": read("revoked.crl")})
	one.refuses("h2", "revoked")
}

// again is another certificate for a key of host h2.
func again(t *testing.T, ca *authority, key *ecdsa.PrivateKey) string {
	t.Helper()
	x := &x509.Certificate{Subject: pkix.Name{CommonName: "h2"}, DNSNames: []string{"h2"}, KeyUsage: x509.KeyUsageDigitalSignature}
	return inPEM("CERTIFICATE", ca.sign(x, ca.cert, &key.PublicKey).Raw)
}

func keyOf(t *testing.T, text string) *ecdsa.PrivateKey {
	t.Helper()
	b, _ := pem.Decode([]byte(text))
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return k.(*ecdsa.PrivateKey)
}
