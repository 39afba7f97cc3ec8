package pki

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// ListSoon is how long before its end a revocation list should be made anew.
const ListSoon = 7 * 24 * time.Hour

// keyExtension says in an entry of a list whose key it is: a subject key
// identifier (RFC 5280 clause 4.2.1.2), the SHA-256 of the SubjectPublicKeyInfo
// (RFC 7093 clause 2, method 4). No standard has it in an entry; who doesn't know
// it goes by the serial number.
var keyExtension = asn1.ObjectIdentifier{2, 5, 29, 14}

// RenewList makes the revocation list anew, with what the one before had, and
// returns until when it is new enough.
func (c *CA) RenewList() (until time.Time, err error) {
	err = c.change(func(x *index) error {
		until, err = c.writeCRL(x)
		return err
	})
	return until, err
}

// ListEnds is until when the revocation list is new enough.
func (c *CA) ListEnds() (time.Time, error) {
	text, err := c.folder.Read(crlFile)
	if err != nil {
		return time.Time{}, err
	}
	l, err := ParseCRL(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("read %s: %w", c.folder.Path(crlFile), err)
	}
	return l.NextUpdate, nil
}

// writeCRL makes the next revocation list, of all that x says, after x itself is
// on disk.
func (c *CA) writeCRL(x *index) (until time.Time, err error) {
	x.List++
	if err := c.save(x); err != nil {
		return until, err
	}
	var entries []x509.RevocationListEntry
	for _, i := range x.Issued {
		if i.Revoked.IsZero() {
			continue
		}
		e, err := i.entry()
		if err != nil {
			return until, err
		}
		entries = append(entries, e)
	}
	now := c.now().UTC().Truncate(time.Second)
	until = now.Add(listLife)
	if until.After(c.cert.NotAfter) {
		until = c.cert.NotAfter
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(x.List), RevokedCertificateEntries: entries,
		ThisUpdate: now.Add(-backdated), NextUpdate: until,
	}, c.cert, c.key)
	if err != nil {
		return until, fmt.Errorf("sign revocation list: %w", err)
	}
	return until, c.folder.Replace(crlFile, pem.EncodeToMemory(&pem.Block{Type: pemCRL, Bytes: der}))
}

// entry is c in a revocation list.
func (c Issued) entry() (e x509.RevocationListEntry, err error) {
	e.RevocationTime = c.Revoked
	if e.SerialNumber, err = c.number(); err != nil {
		return e, err
	}
	id, err := c.keyID()
	if err != nil || id == nil {
		return e, err
	}
	value, err := asn1.Marshal(id)
	if err != nil {
		return e, fmt.Errorf("encode key's name: %w", err)
	}
	e.ExtraExtensions = []pkix.Extension{{Id: keyExtension, Value: value}}
	return e, nil
}
