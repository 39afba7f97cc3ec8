package join

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/internal/pki"
)

// The token's format, drawn in the package comment.
const (
	tokenPrefix  = "tapestry-"
	tokenVersion = 1
	secretLen    = 16
	sumLen       = 4
	maxAddresses = 8
	maxHost      = 63
	maxToken     = 1 + sha256.Size + secretLen + 8 + 1 + maxHost + 1 + maxAddresses*(1+16+2) + sumLen
)

// Token lets one host join, once. Printed by package fmt it shows its ID only.
type Token struct {
	Fingerprint [sha256.Size]byte // of the CA's certificate
	Expires     time.Time         // whole seconds
	Host        string            // who may join; empty = anybody
	Addresses   []netip.AddrPort  // of the listener, in the order to try
	secret      [secretLen]byte
}

// ErrToken is the error for a text that is no token.
var ErrToken = errors.New("no token")

// newToken is a token with a new secret.
func newToken(t Token) Token {
	_, _ = rand.Read(t.secret[:]) // never fails
	t.Expires = t.Expires.UTC().Truncate(time.Second)
	return t
}

// ID names the token and tells nothing about its secret.
func (t Token) ID() string {
	h := sha256.Sum256(append([]byte("tapestry token id"), t.secret[:]...))
	return hex.EncodeToString(h[:4])
}

// Format writes the ID whatever the verb, so that no log has the secret.
func (t Token) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "token %s", t.ID()) }

// Text is the token as it is handed over, with its secret.
func (t Token) Text() string {
	b := append([]byte{tokenVersion}, t.Fingerprint[:]...)
	b = append(b, t.secret[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.Unix()))
	b = append(append(b, byte(len(t.Host))), t.Host...)
	b = append(b, byte(len(t.Addresses)))
	for _, a := range t.Addresses {
		ip := a.Addr().AsSlice()
		b = append(append(b, byte(len(ip))), ip...)
		b = binary.BigEndian.AppendUint16(b, a.Port())
	}
	sum := sha256.Sum256(b)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:sumLen]...))
}

// ParseToken reads what Text wrote; space around it doesn't matter. The error is
// ErrToken, and has nothing of the text in it.
func ParseToken(text string) (Token, error) {
	t, err := parseToken(strings.TrimSpace(text))
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	return t, nil
}

func parseToken(text string) (t Token, err error) {
	code, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		return t, fmt.Errorf("it doesn't begin with %s", tokenPrefix)
	}
	if len(code) > base64.RawURLEncoding.EncodedLen(maxToken) {
		return t, errors.New("it is too long")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(code)
	if err != nil || len(b) < sumLen {
		return t, errors.New("it isn't base64url, or not all of it")
	}
	b, sum := b[:len(b)-sumLen], b[len(b)-sumLen:]
	if want := sha256.Sum256(b); !bytes.Equal(sum, want[:sumLen]) {
		return t, errors.New("it was changed, or isn't all there")
	}
	r := &reader{b: b}
	if v := r.octet(); v != tokenVersion {
		return t, fmt.Errorf("version %d: this program knows %d", v, tokenVersion)
	}
	copy(t.Fingerprint[:], r.take(sha256.Size))
	copy(t.secret[:], r.take(secretLen))
	seconds := r.uint(8)
	t.Host = string(r.take(int(r.octet())))
	n := int(r.octet())
	for range min(n, maxAddresses) {
		ip, _ := netip.AddrFromSlice(r.take(int(r.octet())))
		t.Addresses = append(t.Addresses, netip.AddrPortFrom(ip, uint16(r.uint(2))))
	}
	if r.short || len(r.b) > 0 {
		return t, errors.New("its length is wrong")
	}
	if seconds > maxSeconds {
		return t, errors.New("it expires after the year 9999")
	}
	t.Expires = time.Unix(int64(seconds), 0).UTC()
	return t, t.check(n)
}

// maxSeconds is the last second of the year 9999.
const maxSeconds = 253402300799

// check is what a token must satisfy besides its form; n is its number of
// addresses.
func (t Token) check(n int) error {
	if t.Host != "" {
		if err := pki.CheckHost(t.Host); err != nil {
			return err
		}
	}
	if n < 1 || n > maxAddresses {
		return fmt.Errorf("%d addresses: want 1 to %d", n, maxAddresses)
	}
	for _, a := range t.Addresses {
		if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Addr().Zone() != "" || a.Addr().Is4In6() {
			return fmt.Errorf("%v is no address to connect to", a)
		}
	}
	return nil
}

// reader takes octets from the front of b until there are too few.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) octet() byte { return byte(r.uint(1)) }

// uint is a number of n octets in network octet order.
func (r *reader) uint(n int) (v uint64) {
	for _, o := range r.take(n) {
		v = v<<8 | uint64(o)
	}
	return v
}
