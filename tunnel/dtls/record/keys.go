package record

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"slices"
)

// Suite is a cipher suite by its number in the TLS registry.
type Suite uint16

// The suites whose records this package seals and opens.
const (
	ECDHEWithAES128GCM Suite = 0xc02b // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
	ECDHEWithAES256GCM Suite = 0xc02c // TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
	PSKWithAES128GCM   Suite = 0x00a8 // TLS_PSK_WITH_AES_128_GCM_SHA256
)

// String returns the registry's name.
func (s Suite) String() string {
	switch s {
	case ECDHEWithAES128GCM:
		return "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
	case ECDHEWithAES256GCM:
		return "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
	case PSKWithAES128GCM:
		return "TLS_PSK_WITH_AES_128_GCM_SHA256"
	}
	return fmt.Sprintf("0x%04x", uint16(s))
}

// parameters are the key length and the hash of the PRF.
func (s Suite) parameters() (keyLen int, newHash func() hash.Hash, ok bool) {
	switch s {
	case ECDHEWithAES128GCM, PSKWithAES128GCM:
		return 16, sha256.New, true
	case ECDHEWithAES256GCM:
		return 32, sha512.New384, true
	}
	return 0, nil, false
}

const saltLen = 4

// Secrets is what a handshake has agreed upon.
type Secrets struct {
	Suite        Suite
	Master       []byte // 48 octets
	ClientRandom [32]byte
	ServerRandom [32]byte
	Client       bool   // this end is the client
	Epoch        uint16 // of the records to come, both ways
}

// direction is key and salt of one way.
type direction struct {
	aead cipher.AEAD
	salt [saltLen]byte
	key  []byte // aead's, for Hand
}

// newDirection copies key and salt.
func newDirection(key, salt []byte) (d direction, err error) {
	c, err := aes.NewCipher(key)
	if err != nil {
		return d, err
	}
	d.key = slices.Clone(key)
	copy(d.salt[:], salt)
	d.aead, err = cipher.NewGCM(c)
	return d, err
}

// derive makes the key block (RFC 5246 clause 6.3; AEAD suites have no MAC keys)
// and returns the way of what is sent and of what is received.
func (s *Secrets) derive() (out, in direction, err error) {
	keyLen, newHash, ok := s.Suite.parameters()
	if !ok {
		return out, in, fmt.Errorf("derive keys: suite %v is none with AES-GCM that is allowed", s.Suite)
	}
	if s.Epoch == 0 || len(s.Master) == 0 {
		return out, in, fmt.Errorf("derive keys: epoch %d and a master secret of %d octets: the handshake isn't complete", s.Epoch, len(s.Master))
	}
	seed := append([]byte("key expansion"), s.ServerRandom[:]...)
	seed = append(seed, s.ClientRandom[:]...)
	block := expand(newHash, s.Master, seed, 2*(keyLen+saltLen))
	defer clear(block)
	keys, salts := block[:2*keyLen], block[2*keyLen:]
	var ways [2]direction // client's, server's
	for i := range ways {
		if ways[i], err = newDirection(keys[i*keyLen:(i+1)*keyLen], salts[i*saltLen:(i+1)*saltLen]); err != nil {
			return out, in, fmt.Errorf("derive keys: %w", err)
		}
	}
	if s.Client {
		return ways[0], ways[1], nil
	}
	return ways[1], ways[0], nil
}

// expand is P_hash (RFC 5246 clause 5).
func expand(newHash func() hash.Hash, secret, seed []byte, n int) []byte {
	mac := hmac.New(newHash, secret)
	next := func(parts ...[]byte) []byte {
		mac.Reset()
		for _, p := range parts {
			mac.Write(p)
		}
		return mac.Sum(nil)
	}
	var out []byte
	for a := next(seed); len(out) < n; a = next(a) {
		out = append(out, next(a, seed)...)
	}
	return out[:n]
}

// New makes the two ways of an association. The first record sealed has sequence
// number first; those below were the handshake's own. limit is how many records
// may be sealed in all.
func New(s *Secrets, first, limit uint64) (*Sealer, *Opener, error) {
	if first > MaxSequence || limit > MaxSequence-first {
		return nil, nil, fmt.Errorf("new association: %d records from number %d on: an epoch has no number above %d", limit, first, uint64(MaxSequence))
	}
	out, in, err := s.derive()
	if err != nil {
		return nil, nil, err
	}
	w := &Sealer{direction: out, epoch: s.Epoch, first: first, end: first + limit}
	w.next.Store(first)
	return w, &Opener{direction: in, epoch: s.Epoch}, nil
}
