package dtls_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
)

// TestRefusals makes links that mustn't come up. Host b is as it should be and
// says why it refuses a, whichever side it is of the handshake.
func TestRefusals(t *testing.T) {
	type bad func(t *testing.T, c *ca) (a, b *dtls.Credentials)
	for _, test := range []struct {
		name string
		want dtls.Reason // of b about a; ReasonNone when only a can tell
		told dtls.Reason // of a about b
		bad  bad
	}{
		{"another CA", dtls.WrongCA, dtls.WrongCA, func(t *testing.T, c *ca) (a, b *dtls.Credentials) {
			return newCA(t).credentials("a"), c.credentials("b")
		}},
		{"self-signed", dtls.SelfSigned, dtls.ReasonNone, func(t *testing.T, c *ca) (a, b *dtls.Credentials) {
			self := newCA(t)
			self.cert = &x509.Certificate{Subject: pkix.Name{CommonName: "a"}} // the issuer is the subject
			cert, key := self.issueFor("a", self.key, nil)
			return must(t)(dtls.Certificates(cert, key, c.pem(), nil)), c.credentials("b")
		}},
		{"expired", dtls.Expired, dtls.ReasonNone, func(t *testing.T, c *ca) (a, b *dtls.Credentials) {
			return c.credentialsWith("a", nil, func(x *x509.Certificate) { x.NotAfter = now().Add(-time.Minute) }), c.credentials("b")
		}},
		{"not valid yet", dtls.Expired, dtls.ReasonNone, func(t *testing.T, c *ca) (a, b *dtls.Credentials) {
			return c.credentialsWith("a", nil, func(x *x509.Certificate) { x.NotBefore = now().Add(time.Hour) }), c.credentials("b")
		}},
		{"revoked", dtls.Revoked, dtls.ReasonNone, func(t *testing.T, c *ca) (a, b *dtls.Credentials) {
			return c.credentialsWith("a", nil, func(x *x509.Certificate) { x.SerialNumber = big.NewInt(77) }), c.credentialsWith("b", c.crl(5, 77), nil)
		}},
		{"another host's name", dtls.WrongName, dtls.ReasonNone, func(t *testing.T, c *ca) (a, b *dtls.Credentials) {
			// a is "a" and "c" to itself, and shows b only what makes it "c".
			return c.credentialsWith("c", nil, nil), c.credentials("b")
		}},
		{"a wildcard", dtls.WrongName, dtls.ReasonNone, func(t *testing.T, c *ca) (a, b *dtls.Credentials) {
			return c.credentialsWith("*", nil, nil), c.credentials("b")
		}},
		{"another shared key", dtls.WrongKey, dtls.WrongKey, func(t *testing.T, _ *ca) (a, b *dtls.Credentials) {
			return shared(t, 1), shared(t, 2)
		}},
		{"shared key and certificate", dtls.WeakSuite, dtls.WeakSuite, func(t *testing.T, c *ca) (a, b *dtls.Credentials) {
			return shared(t, 1), c.credentials("b")
		}},
		{"not a client's purpose, nor a server's", dtls.WrongCA, dtls.ReasonNone, func(t *testing.T, c *ca) (a, b *dtls.Credentials) {
			return c.credentialsWith("a", nil, func(x *x509.Certificate) {
				x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}
			}), c.credentials("b")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t)
				defer w.close()
				ca, cb := test.bad(t, newCA(t))
				a := w.hostAs("a", dtls.Options{}, ca, "b")
				b := w.host("b", dtls.Options{}, cb, "a")
				told := func() bool { // whoever is the client is left to chance, again and again
					return (test.want == dtls.ReasonNone || b.failures("a")[test.want]) &&
						(test.told == dtls.ReasonNone || a.failures("b")[test.told])
				}
				for i := 0; i < 100 || i < 1000 && !told(); i++ {
					settle(time.Second)
					if a.say("b", "x") || b.say("a", "x") {
						t.Fatal("a frame left")
					}
				}
				if !told() {
					t.Errorf("b refused a as %v, want %v; a refused b as %v, want %v", b.failures("a"), test.want, a.failures("b"), test.told)
				}
				w.noLeaks()
			})
		})
	}
}

// TestRefusedAtOnce lets a host serve a client that shows no certificate, since the
// host's CA has signed none of its own: it says so long before the handshake's time
// is over, and so does the client that is shown one of another CA.
func TestRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		defer w.close()
		c := newCA(t)
		cert, key := newCANamed(t, "another CA").issue("a", nil)
		b := w.host("b", dtls.Options{}, c.credentials("b"), "a")
		a := w.host("a", dtls.Options{}, must(t)(dtls.Certificates(cert, key, c.pem(), nil)), "b")
		settle(time.Second)
		if got := b.failures("a"); !got[dtls.NoCertificate] {
			t.Errorf("b serves a, and refuses it as %v: %+v", got, b.status("a"))
		}
		for i := 0; i < 300 && !b.failures("a")[dtls.WrongCA]; i++ {
			settle(time.Second)
		}
		if got := b.failures("a"); !got[dtls.WrongCA] || !a.failures("b")[dtls.PeerRefused] {
			t.Errorf("b refuses a as %v, which finds %v", got, a.failures("b"))
		}
	})
}

// hostAs starts a host whose credentials are another's, which Apply refuses: its
// endpoint has that other name, at this one's address.
func (w *wire) hostAs(name string, o dtls.Options, c *dtls.Credentials, peers ...string) *host {
	w.t.Helper()
	h := w.host(name, o, nil, peers...)
	if err := h.tryApply(c, peers...); err == nil {
		return h
	}
	for _, other := range []string{"c", "*"} {
		o := h.o
		o.Host = other
		if err := h.e.Close(); err != nil {
			w.t.Fatal(err)
		}
		var err error
		if h.e, err = dtls.New(o); err != nil {
			w.t.Fatal(err)
		}
		if h.tryApply(c, peers...) == nil {
			return h
		}
	}
	w.t.Fatal("nobody can have these credentials")
	return nil
}

// failures are the reasons that a host has told about a peer.
func (h *host) failures(peer string) map[dtls.Reason]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[dtls.Reason]bool{}
	for _, e := range h.events {
		if e.Peer == peer && e.Failure.Reason != dtls.ReasonNone {
			all[e.Failure.Reason] = true
		}
	}
	return all
}

func TestApplyRefuses(t *testing.T) {
	c := newCA(t)
	e, err := dtls.New(dtls.Options{Host: "a", Send: discard})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	good := dtls.Peer{Name: "b", Address: addresses["b"]}
	for name, f := range map[string]func() error{
		"credentials of another host": func() error { return e.Apply(c.credentials("b"), nil) },
		"a peer twice":                func() error { return e.Apply(nil, []dtls.Peer{good, good}) },
		"itself as a peer":            func() error { return e.Apply(nil, []dtls.Peer{{Name: "a", Address: good.Address}}) },
		"a peer without address":      func() error { return e.Apply(nil, []dtls.Peer{{Name: "b"}}) },
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCredentialsRefuse(t *testing.T) {
	c, other := newCA(t), newCA(t)
	cert, key := c.issue("a", nil)
	_, otherKey := c.issue("a", nil)
	p521, p521Key := c.issueFor("a", newKey(t, elliptic.P521()), nil)
	for name, f := range map[string]func() error{
		"another's key":    func() error { _, err := dtls.Certificates(cert, otherKey, c.pem(), nil); return err },
		"a P-521 key":      func() error { _, err := dtls.Certificates(p521, p521Key, c.pem(), nil); return err },
		"no CA":            func() error { _, err := dtls.Certificates(cert, key, nil, nil); return err },
		"a host as CA":     func() error { _, err := dtls.Certificates(cert, key, cert, nil); return err },
		"a stranger's CRL": func() error { _, err := dtls.Certificates(cert, key, c.pem(), other.crl(1)); return err },
		"an empty CRL":     func() error { _, err := dtls.Certificates(cert, key, c.pem(), []byte("\n")); return err },
		"a short key":      func() error { _, err := dtls.SharedKey([]byte("c2hvcnQ=")); return err },
		"no base64":        func() error { _, err := dtls.SharedKey([]byte("%%%")); return err },
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
