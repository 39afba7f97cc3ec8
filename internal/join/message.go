package join

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/tapestry-net/tapestry/internal/pki"
)

// Bounds of the protocol.
const (
	maxRequest = 16 << 10
	maxReply   = 16 << 20
	maxMessage = 300 // octets of an error that are shown
)

// serverName is the DNS name of the listener's certificate.
const serverName = "_join"

// request is what the joining host says.
type request struct {
	Proof   []byte     `json:"proof"`
	Host    string     `json:"host"`
	Address netip.Addr `json:"address,omitzero"` // where it can be reached; absent = where it comes from
	CSR     []byte     `json:"csr"`              // PKCS #10, DER; its key counts, and nothing else of it
}

// reply is what the listener says: why not, or everything else.
type reply struct {
	Refused Refusal    `json:"refused,omitempty"`
	Why     string     `json:"why,omitempty"`
	Cert    []byte     `json:"cert,omitempty"`   // PEM
	CA      []byte     `json:"ca,omitempty"`     // PEM
	CRL     []byte     `json:"crl,omitempty"`    // PEM
	File    []byte     `json:"file,omitempty"`   // configuration, YAML
	Address netip.Addr `json:"address,omitzero"` // of the host, as others will know it

	wrong bool // the proof was; not said
}

// Refusal is why a host may not join.
type Refusal string

// Refusals.
const (
	Denied  Refusal = "denied"  // the token is wrong, used, expired, removed, or for another host
	Taken   Refusal = "taken"   // another host has the name
	Invalid Refusal = "invalid" // the request can't be understood
	Failed  Refusal = "failed"  // the listener could not do it
)

// RefusedError is what the listener answered instead of a certificate.
type RefusedError struct {
	Refusal Refusal
	Why     string // foreign text
}

func (e *RefusedError) Error() string { return "refused: " + e.Why }

// proof shows that who sends it knows the token's secret, in this TLS session
// only.
func proof(t Token, s tls.ConnectionState) ([]byte, error) {
	session, err := s.ExportKeyingMaterial("EXPORTER-tapestry-join", nil, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("export keying material: %w", err)
	}
	m := hmac.New(sha256.New, t.secret[:])
	m.Write([]byte("tapestry join 1"))
	m.Write(session)
	return m.Sum(nil), nil
}

// send writes one message.
func send(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// receive reads one message of at most limit octets into v. Memory grows with
// what has come, not with the length that was announced.
func receive(r io.Reader, limit uint32, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > limit {
		return fmt.Errorf("message of %d octets: the limit is %d", n, limit)
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	if len(b) < int(n) {
		return fmt.Errorf("read message: %w", io.ErrUnexpectedEOF)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("decode message: there is more after it")
	}
	return nil
}

// check reads the request's parts, and returns the key to be certified.
func (q *request) check() (*ecdsa.PublicKey, error) {
	if err := pki.CheckHost(q.Host); err != nil {
		return nil, err
	}
	if a := q.Address; a.IsValid() && (a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6()) {
		return nil, fmt.Errorf("address %v is none of a single host", a)
	}
	csr, err := x509.ParseCertificateRequest(q.CSR)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the key isn't ECDSA on P-256")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check certificate request: %w", err)
	}
	return key, nil
}

func clip(s string, n int) string { return s[:min(len(s), n)] }
