package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/pki"
)

// Bounds of the joining side.
const (
	dialTimeout = 3 * time.Second  // for one address
	joinTimeout = 15 * time.Second // for everything after it answered
)

// Why a host could not join, besides RefusedError.
var (
	ErrForeign     = errors.New("who listens there isn't the CA of the token") // nothing was said to it
	ErrUnreachable = errors.New("nobody listens: the token was used, removed or has expired, or a firewall is between")
)

// Order is what Join should do.
type Order struct {
	Token   Token
	Host    string     // this host's name; empty = the token's
	Dir     string     // where the files go
	Address netip.Addr // where others reach this host; invalid = what the listener sees
	Renew   bool       // replaces this host's certificate and key
}

// Result is what Join has done.
type Result struct {
	Host     string     `json:"host"`
	Address  netip.Addr `json:"address"`
	Peers    []string   `json:"peers"`
	Networks []string   `json:"networks"`
	NotAfter time.Time  `json:"not_after"`
	Cert     string     `json:"cert"` // paths
	Key      string     `json:"key"`
	CA       string     `json:"ca"`
	CRL      string     `json:"crl"`
	File     string     `json:"file"` // the configuration
	Kept     bool       `json:"kept"` // the configuration was there already and is as it was
}

// Join gets this host a certificate and writes it with everything that belongs
// to it. Nothing is sent before it is known that the listener is the token's CA,
// and nothing is replaced but, with Renew, the certificate and key. The error is
// pki.ErrExists, pki.ErrInvalid, ErrExpired, ErrForeign, ErrUnreachable or a
// RefusedError where that is the reason.
func Join(ctx context.Context, o Order) (Result, error) {
	if o.Host == "" {
		o.Host = o.Token.Host
	}
	if err := pki.CheckHost(o.Host); err != nil {
		return Result{}, err
	}
	if o.Token.Host != "" && o.Host != o.Token.Host {
		return Result{}, fmt.Errorf("host name %q %w: the token is for %s", o.Host, pki.ErrInvalid, o.Token.Host)
	}
	if time.Now().After(o.Token.Expires) {
		return Result{}, fmt.Errorf("%w: at %s", ErrExpired, o.Token.Expires.Format(time.RFC3339))
	}
	f, err := pki.OpenFolder(o.Dir, true)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	l, err := f.Lock("lock")
	if err != nil {
		return Result{}, err
	}
	defer l.Close()
	if err := vacant(f, o); err != nil {
		return Result{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Result{}, fmt.Errorf("make key: %w", err)
	}
	c, err := connect(ctx, o.Token)
	if err != nil {
		return Result{}, err
	}
	raw := c.NetConn()
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	r, err := exchange(c, o, key)
	if err != nil {
		return Result{}, err
	}
	res, err := settle(f, o, key, r)
	if err != nil {
		return Result{}, fmt.Errorf("%w (the token is used up: revoke %s and make another)", err, o.Host)
	}
	_, _ = c.Write([]byte{1}) // the files are there, whether the other side hears of it or not
	return res, nil
}

// vacant refuses a folder whose files would be replaced.
func vacant(f *pki.Folder, o Order) error {
	if f.Has("ca.key") {
		return fmt.Errorf("%s %w: the CA is here, and its hosts' certificates are made by pki issue", f.Path("ca.key"), pki.ErrExists)
	}
	for _, n := range []string{o.Host + ".crt", o.Host + ".key", o.Host + ".yaml"} {
		if !o.Renew && f.Has(n) {
			return fmt.Errorf("%s %w", f.Path(n), pki.ErrExists)
		}
	}
	if !f.Has("ca.crt") {
		return nil
	}
	text, err := f.Read("ca.crt")
	if err != nil {
		return err
	}
	ca, err := pki.ParseCertificate(text)
	if err != nil || sha256.Sum256(ca.Raw) != o.Token.Fingerprint {
		return fmt.Errorf("%s %w, of another CA", f.Path("ca.crt"), pki.ErrExists)
	}
	return nil
}

// connect finds the token's listener among its addresses.
func connect(ctx context.Context, t Token) (*tls.Conn, error) {
	var failed []error
	for _, a := range t.Addresses {
		d := net.Dialer{Timeout: dialTimeout}
		conn, err := d.DialContext(ctx, "tcp", a.String())
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%w: %w", ErrUnreachable, err))
			continue
		}
		c := tls.Client(conn, &tls.Config{
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: true, // VerifyConnection verifies, by the fingerprint
			VerifyConnection:   func(s tls.ConnectionState) error { return pinned(s, t.Fingerprint) },
		})
		if err = conn.SetDeadline(time.Now().Add(joinTimeout)); err == nil {
			err = c.HandshakeContext(ctx)
		}
		if err == nil {
			return c, nil
		}
		conn.Close()
		failed = append(failed, fmt.Errorf("connect to %v: %w", a, err))
	}
	return nil, errors.Join(failed...)
}

// pinned wants the listener's certificate to be what the CA with this
// fingerprint gives to listeners, and to no host.
func pinned(s tls.ConnectionState, fingerprint [sha256.Size]byte) error {
	for _, ca := range s.PeerCertificates[1:] {
		if sha256.Sum256(ca.Raw) != fingerprint {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		leaf := s.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
			return fmt.Errorf("%w: %w", ErrForeign, err)
		}
		if !slices.Equal(leaf.DNSNames, []string{serverName}) {
			return fmt.Errorf("%w: its certificate is for %q", ErrForeign, leaf.DNSNames)
		}
		return nil
	}
	return ErrForeign
}

// exchange asks for a certificate and checks what comes.
func exchange(c *tls.Conn, o Order, key *ecdsa.PrivateKey) (*reply, error) {
	q := request{Host: o.Host, Address: o.Address}
	var err error
	if q.Proof, err = proof(o.Token, c.ConnectionState()); err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: o.Host}}
	if q.CSR, err = x509.CreateCertificateRequest(rand.Reader, template, key); err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	if err := send(c, q); err != nil {
		return nil, fmt.Errorf("ask for a certificate: %w", err)
	}
	r := new(reply)
	if err := receive(c, maxReply, r); err != nil {
		return nil, fmt.Errorf("wait for the certificate: %w", err)
	}
	if r.Refused != "" {
		return nil, &RefusedError{r.Refused, clip(r.Why, maxMessage)}
	}
	return r, r.check(o, &key.PublicKey)
}

// check wants a certificate of the token's CA for this host and key, and a list
// signed by that CA.
func (r *reply) check(o Order, key *ecdsa.PublicKey) error {
	ca, err := pki.ParseCertificate(r.CA)
	if err != nil {
		return fmt.Errorf("read the CA's certificate: %w", err)
	}
	if sha256.Sum256(ca.Raw) != o.Token.Fingerprint {
		return ErrForeign
	}
	cert, err := pki.ParseCertificate(r.Cert)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("check certificate: %w", err)
	}
	if !key.Equal(cert.PublicKey) || !slices.Equal(cert.DNSNames, []string{o.Host}) {
		return errors.New("check certificate: it is for another key or name")
	}
	crl, err := pki.ParseCRL(r.CRL)
	if err == nil {
		err = crl.CheckSignatureFrom(ca)
	}
	if err != nil {
		return fmt.Errorf("check revocation list: %w", err)
	}
	return nil
}

// settle writes what has come.
func settle(f *pki.Folder, o Order, key *ecdsa.PrivateKey, r *reply) (Result, error) {
	crt, private, file := o.Host+".crt", o.Host+".key", o.Host+".yaml"
	res := Result{
		Host: o.Host, Address: r.Address, Kept: f.Has(file),
		Cert: f.Path(crt), Key: f.Path(private), CA: f.Path("ca.crt"), CRL: f.Path("revoked.crl"), File: f.Path(file),
	}
	c, err := config.Parse("the listener's configuration", r.File)
	if err != nil {
		return Result{}, err
	}
	// Only what makes it a member counts: no port, no route is taken from afar.
	mine := &config.Config{Host: o.Host, Networks: c.Networks, Tunnel: c.Tunnel}
	if mine.Tunnel == nil {
		mine.Tunnel = &config.Tunnel{}
	}
	if mine.Tunnel.DTLS == nil {
		mine.Tunnel.DTLS = &config.DTLS{}
	}
	d := mine.Tunnel.DTLS
	d.Cert, d.Key, d.CA, d.CRL, d.PSKFile = res.Cert, res.Key, res.CA, res.CRL, ""
	res.Peers = slices.AppendSeq([]string{}, maps.Keys(mine.Tunnel.Peers))
	res.Networks = slices.AppendSeq([]string{}, maps.Keys(mine.Networks))
	slices.Sort(res.Peers)
	slices.Sort(res.Networks)
	cert, err := pki.ParseCertificate(r.Cert)
	if err != nil {
		return Result{}, fmt.Errorf("read certificate: %w", err)
	}
	res.NotAfter = cert.NotAfter
	text, err := pki.EncodeKey(key)
	if err != nil {
		return Result{}, err
	}
	own := f.Create
	if o.Renew {
		own = f.Replace
	}
	if err := errors.Join(own(private, text), own(crt, r.Cert), f.Replace("ca.crt", r.CA), f.Replace("revoked.crl", r.CRL)); err != nil {
		return Result{}, err
	}
	if !res.Kept {
		err = f.Create(file, mine.Marshal())
	}
	return res, err
}
