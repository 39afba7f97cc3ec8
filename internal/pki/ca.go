package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
	"unicode"
	"unicode/utf8"
)

// Files of the folder, drawn in the package comment.
const (
	caFile    = "ca.crt"
	caKeyFile = "ca.key"
	crlFile   = "revoked.crl"
	indexFile = "issued.json"
	lockFile  = "lock"
)

// Kinds of PEM block (RFC 7468).
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
	pemCRL         = "X509 CRL"
)

const (
	backdated = 5 * time.Minute           // a certificate begins so long before it was made, for clocks that are slow
	listLife  = 30 * 24 * time.Hour       // of a revocation list, which hosts keep in force after it, and complain
	caLife    = 10 * 365 * 24 * time.Hour // of the CA; hosts' certificates end with it
	maxName   = 64                        // octets of a common name (RFC 5280 appendix A, ub-common-name)
)

// CA is an open certificate authority.
type CA struct {
	folder *Folder
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	now    func() time.Time
}

// Init makes a CA in the folder dir: its key, certificate, index and an empty
// revocation list. name is its common name, for people. A folder that holds a CA
// already is ErrExists.
func Init(dir, name string) (*CA, error) {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || containsControl(name) {
		return nil, fmt.Errorf("CA name %q %w: want 1 to %d printable octets", name, ErrInvalid, maxName)
	}
	f, err := OpenFolder(dir, true)
	if err != nil {
		return nil, err
	}
	c := &CA{folder: f, now: time.Now}
	if err := c.create(name); err != nil {
		f.Close()
		return nil, fmt.Errorf("make CA: %w", err)
	}
	return c, nil
}

func containsControl(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return true
		}
	}
	return false
}

// create lays the CA down; its certificate comes last and makes it one.
func (c *CA) create(name string) error {
	l, err := c.folder.Lock(lockFile)
	if err != nil {
		return err
	}
	defer l.Close()
	for _, file := range []string{caFile, caKeyFile, crlFile, indexFile} {
		if c.folder.Has(file) {
			return fmt.Errorf("%s %w", c.folder.Path(file), ErrExists)
		}
	}
	if c.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	now := c.now().UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-backdated), NotAfter: now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, c.key.Public(), c.key)
	if err != nil {
		return fmt.Errorf("sign certificate: %w", err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("read own certificate: %w", err)
	}
	key, err := EncodeKey(c.key)
	if err != nil {
		return err
	}
	if err := c.folder.Create(caKeyFile, key); err != nil {
		return err
	}
	x := &index{Version: version, Issued: []Issued{}}
	if _, err := c.writeCRL(x); err != nil {
		return err
	}
	return c.folder.Create(caFile, encodeCertificate(der))
}

// Open opens the CA in the folder dir. A folder without one is ErrNotFound.
func Open(dir string) (*CA, error) {
	f, err := OpenFolder(dir, false)
	if err != nil {
		return nil, err
	}
	c := &CA{folder: f, now: time.Now}
	if err := c.read(); err != nil {
		f.Close()
		return nil, fmt.Errorf("open CA: %w", err)
	}
	return c, nil
}

func (c *CA) read() error {
	text, err := c.folder.Read(caFile)
	if err != nil {
		return err
	}
	if c.cert, err = ParseCertificate(text); err != nil {
		return fmt.Errorf("read %s: %w", c.folder.Path(caFile), err)
	}
	if text, err = c.folder.Read(caKeyFile); err != nil {
		return err
	}
	if c.key, err = parseKey(text); err != nil {
		return fmt.Errorf("read %s: %w", c.folder.Path(caKeyFile), err)
	}
	if !c.key.PublicKey.Equal(c.cert.PublicKey) {
		return fmt.Errorf("%s isn't the key of %s", c.folder.Path(caKeyFile), caFile)
	}
	return nil
}

// Close closes the folder.
func (c *CA) Close() error { return c.folder.Close() }

// Folder is where the CA lies. It is closed with the CA.
func (c *CA) Folder() *Folder { return c.folder }

// Certificate is the CA's own certificate, which the caller doesn't change.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

// Fingerprint is the SHA-256 of the CA's certificate, as DER.
func (c *CA) Fingerprint() [sha256.Size]byte { return sha256.Sum256(c.cert.Raw) }

// newSerial is a serial number of 128 random bits, and not 0.
func newSerial() *big.Int {
	b := make([]byte, 16)
	for {
		_, _ = rand.Read(b) // never fails
		if n := new(big.Int).SetBytes(b); n.Sign() > 0 {
			return n
		}
	}
}

// EncodeKey is a private key as PEM (PKCS #8).
func EncodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}

// ParseCertificate reads the first certificate of a PEM text.
func ParseCertificate(text []byte) (*x509.Certificate, error) {
	b, _ := pem.Decode(text)
	if b == nil || b.Type != pemCertificate {
		return nil, errors.New("no certificate in PEM")
	}
	return x509.ParseCertificate(b.Bytes)
}

// ParseCRL reads the first revocation list of a PEM text.
func ParseCRL(text []byte) (*x509.RevocationList, error) {
	b, _ := pem.Decode(text)
	if b == nil || b.Type != pemCRL {
		return nil, errors.New("no revocation list in PEM")
	}
	return x509.ParseRevocationList(b.Bytes)
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	b, _ := pem.Decode(text)
	if b == nil || b.Type != pemKey {
		return nil, errors.New("no private key in PEM (PKCS #8)")
	}
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, errors.New("no private key in PKCS #8") // the error would tell of its octets
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the key isn't ECDSA on P-256")
	}
	return key, nil
}
