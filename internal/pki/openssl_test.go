package pki_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/pki"
)

// TestOpenSSL lets another program judge what the CA makes.
func TestOpenSSL(t *testing.T) {
	netnstest.Require(t, "openssl")
	ca := newCA(t)
	issue(t, ca, pki.Order{Host: "h1"})
	issue(t, ca, pki.Order{Host: "h2"})
	if _, err := ca.Revoke("h2"); err != nil {
		t.Fatal(err)
	}
	p := ca.Folder().Path
	both := filepath.Join(t.TempDir(), "both.pem")
	cert, crl, err := ca.Files()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(both, append(cert, crl...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		ok   bool
		want string
	}{
		{"verify -x509_strict -crl_check -CAfile " + both + " " + p("h1.crt"), true, "OK"},
		{"verify -purpose sslclient -verify_hostname h1 -crl_check -CAfile " + both + " " + p("h1.crt"), true, "OK"},
		{"verify -purpose sslserver -verify_hostname h1 -crl_check -CAfile " + both + " " + p("h1.crt"), true, "OK"},
		{"verify -verify_hostname h2 -CAfile " + both + " " + p("h1.crt"), false, "ostname mismatch"},
		{"verify -crl_check -CAfile " + both + " " + p("h2.crt"), false, "certificate revoked"},
		{"crl -in " + p("revoked.crl") + " -CAfile " + p("ca.crt") + " -noout -text", true, "verify OK"},
		{"pkey -in " + p("h1.key") + " -noout -text", true, "prime256v1"},
		{"x509 -in " + p("h1.crt") + " -noout -text", true, "DNS:h1"},
	} {
		out, err := netnstest.Try(append([]string{"openssl"}, strings.Fields(c.args)...)...)
		if (err == nil) != c.ok || !strings.Contains(out, c.want) {
			t.Errorf("openssl %s: got %v, want %q in\n%s", c.args, err, c.want, out)
		}
	}
}
