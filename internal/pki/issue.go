package pki

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// DefaultLife is how long a host's certificate holds.
const DefaultLife = 365 * 24 * time.Hour

// Order is what a host's certificate should be.
type Order struct {
	Host    string
	Life    time.Duration // 0 = DefaultLife; cut at the end of the CA
	Renew   bool          // although the host has a certificate that is valid
	Own     bool          // it is the host that the CA is on
	Address netip.Addr    // where the host is; invalid = unknown
}

// Sign makes a certificate for a key that somebody else has, as PEM. If the name
// is taken, by a certificate that is valid, the error is ErrExists.
func (c *CA) Sign(o Order, key *ecdsa.PublicKey) (made Issued, cert []byte, err error) {
	err = c.change(func(x *index) error {
		made, cert, err = c.sign(x, o, key)
		return err
	})
	return made, cert, err
}

// Issue makes a key and a certificate for it, HOST.key and HOST.crt in the
// folder. Files of that name that this CA hasn't made are ErrExists.
func (c *CA) Issue(o Order) (made Issued, err error) {
	err = c.change(func(x *index) error {
		if err := CheckHost(o.Host); err != nil {
			return err
		}
		if err := c.ours(x, o.Host); err != nil {
			return err
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("make key: %w", err)
		}
		text, err := EncodeKey(key)
		if err != nil {
			return err
		}
		var cert []byte
		if made, cert, err = c.sign(x, o, &key.PublicKey); err != nil {
			return err
		}
		// The certificate goes first: it tells the next one that the key is ours.
		if err := c.folder.Replace(o.Host+".crt", cert); err != nil {
			return err
		}
		return c.folder.Replace(o.Host+".key", text)
	})
	return made, err
}

// ours refuses to replace a host's files unless they are a certificate of this
// CA and its key.
func (c *CA) ours(x *index, host string) error {
	crt, key := host+".crt", host+".key"
	switch {
	case !c.folder.Has(crt) && !c.folder.Has(key):
		return nil
	case !c.folder.Has(crt):
		return fmt.Errorf("%s %w, without a certificate", c.folder.Path(key), ErrExists)
	}
	text, err := c.folder.Read(crt)
	if err != nil {
		return err
	}
	cert, err := ParseCertificate(text)
	if err != nil || !x.has(serial(cert.SerialNumber)) {
		return fmt.Errorf("%s %w, and isn't this CA's", c.folder.Path(crt), ErrExists)
	}
	return nil
}

func serial(n *big.Int) string { return fmt.Sprintf("%032x", n) }

// keyID names a key in the index.
func keyID(key *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("encode key: %w", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(der)), nil
}

// sign makes a certificate and enters it in the index.
func (c *CA) sign(x *index, o Order, key *ecdsa.PublicKey) (Issued, []byte, error) {
	if err := CheckHost(o.Host); err != nil {
		return Issued{}, nil, err
	}
	if key == nil || key.Curve != elliptic.P256() {
		return Issued{}, nil, fmt.Errorf("key of %s %w: want ECDSA on P-256", o.Host, ErrInvalid)
	}
	if o.Life == 0 {
		o.Life = DefaultLife
	}
	now := c.now().UTC().Truncate(time.Second)
	end := now.Add(min(o.Life, caLife))
	if end.After(c.cert.NotAfter) {
		end = c.cert.NotAfter
	}
	if o.Life < 0 || !end.After(now) {
		return Issued{}, nil, fmt.Errorf("certificate of %s %w: it would end at %s", o.Host, ErrInvalid, end.Format(time.RFC3339))
	}
	id, err := keyID(key)
	if err != nil {
		return Issued{}, nil, err
	}
	if x.taken(id) {
		return Issued{}, nil, fmt.Errorf("key of %s %w: a certificate for it has been revoked; make a new key", o.Host, ErrInvalid)
	}
	if old, ok := x.valid(o.Host, now); ok && !o.Renew {
		return Issued{}, nil, fmt.Errorf("certificate of %s %w: serial number %s, valid until %s", o.Host, ErrExists, old.Serial, old.NotAfter.Format(time.RFC3339))
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: o.Host},
		DNSNames:     []string{o.Host},
		NotBefore:    now.Add(-backdated), NotAfter: end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key, c.key)
	if err != nil {
		return Issued{}, nil, fmt.Errorf("sign certificate of %s: %w", o.Host, err)
	}
	made := Issued{Host: o.Host, Serial: serial(template.SerialNumber), Key: id, NotBefore: template.NotBefore, NotAfter: end, Address: o.Address}
	x.Issued = append(x.Issued, made)
	if o.Own {
		x.Host = o.Host
	}
	if err := c.save(x); err != nil {
		return Issued{}, nil, err
	}
	return made, encodeCertificate(der), nil
}

// Revoke takes back all certificates of a host, makes a new revocation list and
// tells how many there were that hadn't been revoked before. A host that never
// had one is ErrNotFound.
func (c *CA) Revoke(host string) (n int, err error) {
	if err := CheckHost(host); err != nil {
		return 0, err
	}
	err = c.change(func(x *index) error {
		known := false
		now := c.now().UTC().Truncate(time.Second)
		for i := range x.Issued {
			if x.Issued[i].Host != host {
				continue
			}
			known = true
			if x.Issued[i].Revoked.IsZero() {
				x.Issued[i].Revoked = now
				n++
			}
		}
		if !known {
			return fmt.Errorf("certificate of %s %w", host, ErrNotFound)
		}
		_, err := c.writeCRL(x)
		return err
	})
	return n, err
}

// List returns all certificates of hosts, by name and then by age.
func (c *CA) List() ([]Issued, error) {
	x, err := c.load()
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(x.Issued, func(a, b Issued) int {
		return cmp.Or(strings.Compare(a.Host, b.Host), a.NotBefore.Compare(b.NotBefore))
	})
	return x.Issued, nil
}

// Hosts returns the newest valid certificate of each host, by name, and the name
// of the host that the CA is on, which is empty if it is on none.
func (c *CA) Hosts() (hosts map[string]Issued, own string, err error) {
	x, err := c.load()
	if err != nil {
		return nil, "", err
	}
	hosts = map[string]Issued{}
	now := c.now()
	for _, i := range x.Issued {
		if i.State(now) == Valid && !i.NotAfter.Before(hosts[i.Host].NotAfter) {
			hosts[i.Host] = i
		}
	}
	return hosts, x.Host, nil
}

// Files returns what every host has a copy of, as PEM: the CA's certificate and
// the revocation list.
func (c *CA) Files() (ca, crl []byte, err error) {
	ca, err1 := c.folder.Read(caFile)
	crl, err2 := c.folder.Read(crlFile)
	return ca, crl, errors.Join(err1, err2)
}

// TransientCertificate is a certificate for a TLS server that is no host: name
// is one that no host can have. It is written nowhere.
func (c *CA) TransientCertificate(name string, until time.Time) (der []byte, key *ecdsa.PrivateKey, err error) {
	if CheckHost(name) == nil {
		return nil, nil, fmt.Errorf("name %q %w: a host could have it", name, ErrInvalid)
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	der, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: c.now().Add(-backdated), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}, c.cert, key.Public(), c.key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate: %w", err)
	}
	return der, key, nil
}
