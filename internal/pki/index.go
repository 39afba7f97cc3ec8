package pki

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"time"
)

// version of the index's format.
const version = 1

// index is what the CA remembers.
type index struct {
	Version int      `json:"version"`
	Host    string   `json:"host,omitempty"` // where the CA is, if that is a host
	List    int64    `json:"list"`           // number of the newest revocation list (RFC 5280 clause 5.2.3)
	Issued  []Issued `json:"issued"`
}

// Issued is one certificate of a host. Times are in UTC.
type Issued struct {
	Host      string     `json:"host"`
	Serial    string     `json:"serial"`        // 32 hexadecimal digits
	Key       string     `json:"key,omitempty"` // SHA-256 of the SubjectPublicKeyInfo, 64 hexadecimal digits; empty = unknown
	NotBefore time.Time  `json:"not_before"`
	NotAfter  time.Time  `json:"not_after"`
	Revoked   time.Time  `json:"revoked,omitzero"`
	Address   netip.Addr `json:"address,omitzero"` // where the host was when it joined
}

// State is what a certificate is worth.
type State string

// States.
const (
	Valid   State = "valid"
	Expired State = "expired"
	Revoked State = "revoked"
)

// State tells what c is worth at a moment.
func (c Issued) State(now time.Time) State {
	switch {
	case !c.Revoked.IsZero():
		return Revoked
	case now.After(c.NotAfter):
		return Expired
	}
	return Valid
}

// soon is how long before its end a certificate should be renewed, if its whole
// life isn't short.
const soon = 30 * 24 * time.Hour

// ExpiresSoon reports whether c should be renewed: it is valid, and in its last
// 30 days or the last quarter of its life, whichever is shorter.
func (c Issued) ExpiresSoon(now time.Time) bool {
	return c.State(now) == Valid && c.NotAfter.Sub(now) < min(soon, c.NotAfter.Sub(c.NotBefore)/4)
}

// number is the serial as a number.
func (c Issued) number() (*big.Int, error) {
	n, ok := new(big.Int).SetString(c.Serial, 16)
	if !ok || len(c.Serial) != 32 || n.Sign() <= 0 {
		return nil, fmt.Errorf("serial number %q %w", c.Serial, ErrInvalid)
	}
	return n, nil
}

// keyID is the octets of Key; nil when it is unknown.
func (c Issued) keyID() ([]byte, error) {
	id, err := hex.DecodeString(c.Key)
	if err != nil || len(id) != 0 && len(id) != sha256.Size {
		return nil, fmt.Errorf("key %q %w", c.Key, ErrInvalid)
	}
	return id, nil
}

func parseIndex(b []byte) (*index, error) {
	x := new(index)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(x); err != nil {
		return nil, err
	}
	if x.Version != version {
		return nil, fmt.Errorf("version %d: this program knows %d", x.Version, version)
	}
	for _, c := range x.Issued {
		if _, err := c.number(); err != nil {
			return nil, err
		}
		if _, err := c.keyID(); err != nil {
			return nil, err
		}
		if err := CheckHost(c.Host); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// load reads the index. The caller holds the lock, or looks only.
func (c *CA) load() (*index, error) {
	b, err := c.folder.Read(indexFile)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	x, err := parseIndex(b)
	if err != nil {
		return nil, fmt.Errorf("read index %s: %w", c.folder.Path(indexFile), err)
	}
	return x, nil
}

// save writes the index. The caller holds the lock.
func (c *CA) save(x *index) error {
	b, err := json.MarshalIndent(x, "", " ")
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return c.folder.Replace(indexFile, append(b, '\n'))
}

// change calls f with the index under the folder's lock. f saves it.
func (c *CA) change(f func(x *index) error) error {
	l, err := c.folder.Lock(lockFile)
	if err != nil {
		return err
	}
	x, err := c.load()
	if err == nil {
		err = f(x)
	}
	return errors.Join(err, l.Close())
}

// valid is the certificate of host that ends last, if any is valid.
func (x *index) valid(host string, now time.Time) (Issued, bool) {
	var found Issued
	for _, c := range x.Issued {
		if c.Host == host && c.State(now) == Valid && c.NotAfter.After(found.NotAfter) {
			found = c
		}
	}
	return found, found.Host != ""
}

// taken reports whether a certificate for that key has been revoked.
func (x *index) taken(key string) bool {
	return slices.ContainsFunc(x.Issued, func(c Issued) bool { return c.Key == key && !c.Revoked.IsZero() })
}

// has reports whether the certificate with this serial is one of ours.
func (x *index) has(serial string) bool {
	return slices.ContainsFunc(x.Issued, func(c Issued) bool { return c.Serial == serial })
}
