package join_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/join"
	"github.com/tapestry-net/tapestry/internal/pki"
)

// listener is a TLS server in the middle that shows chain and records what a
// client says after the handshake.
func listener(t *testing.T, chain tls.Certificate) (at netip.AddrPort, said func() []byte) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{chain}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan []byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			heard <- nil
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		heard <- b
	}()
	return netip.MustParseAddrPort(l.Addr().String()), func() []byte { l.Close(); return <-heard }
}

// TestMiddle puts somebody between: with another CA, with a certificate that
// another CA signed under our CA's name, and with a host's certificate of our CA.
func TestMiddle(t *testing.T) {
	ca, evil := newCA(t), newCA(t)
	if _, err := ca.Issue(pki.Order{Host: "bad"}); err != nil {
		t.Fatal(err)
	}
	host, err := tls.LoadX509KeyPair(ca.Folder().Path("bad.crt"), ca.Folder().Path("bad.key"))
	if err != nil {
		t.Fatal(err)
	}
	host.Certificate = append(host.Certificate, ca.Certificate().Raw)
	der, key, err := evil.TransientCertificate("_join", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for name, chain := range map[string]tls.Certificate{
		"another CA":          {Certificate: [][]byte{der, evil.Certificate().Raw}, PrivateKey: key},
		"our CA shown beside": {Certificate: [][]byte{der, ca.Certificate().Raw}, PrivateKey: key},
		"no CA":               {Certificate: [][]byte{der}, PrivateKey: key},
		"a host of ours":      host,
	} {
		at, said := listener(t, chain)
		tok := join.With(join.Token{Fingerprint: ca.Fingerprint(), Expires: time.Now().Add(time.Minute), Addresses: []netip.AddrPort{at}})
		_, err := join.Join(t.Context(), join.Order{Token: tok, Host: "h2", Dir: filepath.Join(t.TempDir(), "pki")})
		if !errors.Is(err, join.ErrForeign) {
			t.Errorf("%s: got %v, want ErrForeign", name, err)
		}
		if b := said(); len(b) > 0 {
			t.Errorf("%s: the host said %d octets", name, len(b))
		}
	}
}

// TestSecondAddress has somebody else at the first of the token's addresses.
func TestSecondAddress(t *testing.T) {
	evil := newCA(t)
	der, key, err := evil.TransientCertificate("_join", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	at, said := listener(t, tls.Certificate{Certificate: [][]byte{der, evil.Certificate().Raw}, PrivateKey: key})
	r := serve(t, newCA(t), join.Offer{})
	tok := r.token
	tok.Addresses = []netip.AddrPort{at, netip.MustParseAddrPort("127.0.0.1:1"), r.token.Addresses[0]}
	if _, err := r.join(tok, "h2"); err != nil {
		t.Error(err)
	}
	r.end(nil)
	if b := said(); len(b) > 0 {
		t.Errorf("the other heard %d octets", len(b))
	}
}

// say sends octets through a TLS session of its own.
func (r *rig) say(octets func(s tls.ConnectionState) []byte) {
	r.t.Helper()
	conn, err := tls.Dial("tcp", r.token.Addresses[0].String(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(octets(conn.ConnectionState())); err != nil {
		r.t.Fatal(err)
	}
	_ = conn.CloseWrite()
	_, _ = io.ReadAll(conn)
}

// message is text as a message of the protocol.
func message(text string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}

func TestHostileRequests(t *testing.T) {
	r := serve(t, newCA(t), join.Offer{})
	for _, c := range []struct {
		what string
		say  []byte
		want string
	}{
		{"a guess", message(`{"proof":"` + strings.Repeat("A", 43) + `=","host":"h2","csr":""}`), "secret is wrong"},
		{"no proof", message(`{"host":"h2"}`), "secret is wrong"},
		{"too long", []byte{0xff, 0xff, 0xff, 0xff}, "the limit is 16384"},
		{"no JSON", message("GET / HTTP/1.1"), "decode message"},
		{"unknown fields", message(`{"root":true}`), "decode message"},
		{"two in one", message(`{}{}`), "more after it"},
		{"a half", message(`{}`)[:5], "EOF"},
	} {
		r.say(func(tls.ConnectionState) []byte { return c.say })
		r.log.want(t, c.what, c.want)
	}
	if old, err := tls.Dial("tcp", r.token.Addresses[0].String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		old.Close()
		t.Error("TLS 1.2 was accepted")
	}
	if _, err := r.join(r.token, "h2"); err != nil {
		t.Errorf("after all that: %v", err)
	}
	r.end(nil)
	if list, err := r.ca.List(); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v, want one certificate", list, err)
	}
}

// TestReplay says in one session what is right in another: it is worth nothing.
// In its own it would be right, so the request itself is what is refused.
func TestReplay(t *testing.T) {
	r := serve(t, newCA(t), join.Offer{})
	var proof string
	r.say(func(s tls.ConnectionState) []byte {
		p, err := join.Proof(r.token, s)
		if err != nil {
			t.Fatal(err)
		}
		proof = base64.StdEncoding.EncodeToString(p)
		return message(`{"proof":"` + proof + `","host":"h2","csr":""}`)
	})
	r.log.want(t, "in its own session", "read certificate request")
	r.say(func(tls.ConnectionState) []byte { return message(`{"proof":"` + proof + `","host":"h2","csr":""}`) })
	r.log.want(t, "in another", "secret is wrong")
	for host, want := range map[string]string{`../x`: "isn't valid", `ca`: "isn't valid"} {
		r.say(func(s tls.ConnectionState) []byte {
			p, _ := join.Proof(r.token, s)
			return message(`{"proof":"` + base64.StdEncoding.EncodeToString(p) + `","host":"` + host + `","csr":""}`)
		})
		r.log.want(t, host, want)
	}
	r.stop()
	r.end(context.Canceled)
	if list, err := r.ca.List(); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v, want no certificate", list, err)
	}
}

// valid is a request that the token's listener grants in a session.
func valid(t testing.TB, tok join.Token, s tls.ConnectionState) []byte {
	t.Helper()
	p, err := join.Proof(tok, s)
	if err != nil {
		t.Fatal(err)
	}
	return message(`{"proof":"` + base64.StdEncoding.EncodeToString(p) + `","host":"h2","csr":"` + base64.StdEncoding.EncodeToString(newCSR(t)) + `"}`)
}

func newCSR(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"h1", "*"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}
