package record_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"testing"

	"github.com/pion/dtls/v2/pkg/crypto/ciphersuite"
	"github.com/pion/dtls/v2/pkg/crypto/prf"
	"github.com/pion/dtls/v2/pkg/protocol"
	"github.com/pion/dtls/v2/pkg/protocol/recordlayer"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// slow is the record layer as the standards tell it, a line for a sentence.
type slow struct {
	key, salt []byte
	epoch     uint16
	seen      map[uint64]bool
	highest   uint64
}

// slowKeys is RFC 5246 clause 6.3: the way of the client, and the server's.
func slowKeys(s *record.Secrets) (client, server *slow) {
	keyLen, h := 16, sha256.New
	if s.Suite == record.ECDHEWithAES256GCM {
		keyLen, h = 32, sha512.New384
	}
	seed := append(append([]byte("key expansion"), s.ServerRandom[:]...), s.ClientRandom[:]...)
	block := slowPHash(h, s.Master, seed)
	take := func(n int) []byte { b := block[:n]; block = block[n:]; return b }
	client, server = &slow{epoch: s.Epoch, seen: map[uint64]bool{}}, &slow{epoch: s.Epoch, seen: map[uint64]bool{}}
	client.key, server.key = take(keyLen), take(keyLen)
	client.salt, server.salt = take(4), take(4)
	return client, server
}

// slowPHash is RFC 5246 clause 5: HMAC(A(1) + seed) + HMAC(A(2) + seed) + …
func slowPHash(h func() hash.Hash, secret, seed []byte) (out []byte) {
	mac := func(b []byte) []byte { m := hmac.New(h, secret); m.Write(b); return m.Sum(nil) }
	a := seed
	for range 8 {
		a = mac(a)
		out = append(out, mac(append(bytes.Clone(a), seed...))...)
	}
	return out
}

func (s *slow) gcm() cipher.AEAD {
	c, err := aes.NewCipher(s.key)
	if err != nil {
		panic(err)
	}
	g, err := cipher.NewGCM(c)
	if err != nil {
		panic(err)
	}
	return g
}

func (s *slow) authenticated(number uint64, t record.Type, n int) []byte {
	b := binary.BigEndian.AppendUint64(nil, number)
	b = append(b, byte(t), 0xfe, 0xfd)
	return binary.BigEndian.AppendUint16(b, uint16(n))
}

// seal is RFC 6347 clause 4.1 with RFC 5288 clause 3.
func (s *slow) seal(t record.Type, sequence uint64, plain []byte) []byte {
	number := uint64(s.epoch)<<48 | sequence
	explicit := binary.BigEndian.AppendUint64(nil, number)
	nonce := append(bytes.Clone(s.salt), explicit...)
	b := []byte{byte(t), 0xfe, 0xfd}
	b = binary.BigEndian.AppendUint64(b, number)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(plain)+16))
	b = append(b, explicit...)
	return s.gcm().Seal(b, nonce, plain, s.authenticated(number, t, len(plain)))
}

// open is the reverse, and RFC 6347 clause 4.1.2.6 with a window of 2,032.
func (s *slow) open(b []byte) ([]byte, record.Verdict) {
	known := len(b) > 0 && b[0] >= 20 && b[0] <= 23 // RFC 5246 clause 6.2.1
	if len(b) < 37 || !known || b[1] != 0xfe || b[2] != 0xfd {
		return nil, record.Bad
	}
	number := binary.BigEndian.Uint64(b[3:])
	sequence := number & (1<<48 - 1)
	n := int(binary.BigEndian.Uint16(b[11:])) - 24
	if uint16(number>>48) != s.epoch || n < 0 || n > 1<<14 || n+37 > len(b) {
		return nil, record.Bad
	}
	if s.seen[sequence] || sequence+2032 <= s.highest {
		return nil, record.Replayed
	}
	nonce := append(bytes.Clone(s.salt), b[13:21]...)
	plain, err := s.gcm().Open(nil, nonce, b[21:n+37], s.authenticated(number, record.Type(b[0]), n))
	if err != nil {
		return nil, record.Bad
	}
	s.seen[sequence] = true
	s.highest = max(s.highest, sequence)
	return plain, record.Opened
}

func drawSecrets(t *rapid.T) *record.Secrets {
	s := &record.Secrets{
		Suite:  rapid.SampledFrom([]record.Suite{record.ECDHEWithAES128GCM, record.ECDHEWithAES256GCM, record.PSKWithAES128GCM}).Draw(t, "suite"),
		Master: rapid.SliceOfN(rapid.Byte(), 48, 48).Draw(t, "master"),
		Client: rapid.Bool().Draw(t, "client"), Epoch: rapid.Uint16Range(1, 3).Draw(t, "epoch"),
	}
	copy(s.ClientRandom[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "client random"))
	copy(s.ServerRandom[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "server random"))
	return s
}

// TestSealIsTheStandards compares every octet of sealed records.
func TestSealIsTheStandards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secrets := drawSecrets(t)
		out, in := slowKeys(secrets)
		if !secrets.Client {
			out, in = in, out
		}
		first := rapid.Uint64Range(0, record.MaxSequence-100).Draw(t, "first")
		s, o, err := record.New(secrets, first, 100)
		if err != nil {
			t.Fatal(err)
		}
		var w record.Writer
		if !w.Reserve(s, 3) {
			t.Fatal("3 of 100 records refused")
		}
		for i := range uint64(3) {
			typ := rapid.SampledFrom([]record.Type{record.Alert, record.ApplicationData}).Draw(t, "type")
			plain := rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "plain")
			got := make([]byte, len(plain)+record.Overhead)
			copy(got[record.Headroom:], plain)
			if !w.Seal(typ, got) {
				t.Fatal("not sealed")
			}
			if want := out.seal(typ, first+i, plain); !bytes.Equal(got, want) {
				t.Fatalf("sealed % x, want % x", got, want)
			}
		}
		plain := rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "plain")
		b := in.seal(record.ApplicationData, first, plain)
		h, ok := record.Parse(b)
		got, _, v := new(record.Reader).Open([]*record.Opener{o}, h, b)
		if !ok || v != record.Opened || !bytes.Equal(got, plain) {
			t.Fatalf("opened % x, verdict %v, want % x", got, v, plain)
		}
	})
}

// TestOpenIsTheStandards gives both rows of records that are good, replayed, old,
// changed and truncated, and compares the verdicts.
func TestOpenIsTheStandards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secrets := drawSecrets(t)
		peer, in := slowKeys(secrets)
		if secrets.Client {
			peer, in = in, peer
		}
		*in = *peer
		_, o, err := record.New(secrets, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		var r record.Reader
		at := uint64(5000)
		for range rapid.IntRange(1, 60).Draw(t, "records") {
			seq := at - rapid.Uint64Range(0, 2100).Draw(t, "back")
			if rapid.Bool().Draw(t, "ahead") {
				at += rapid.Uint64Range(1, 3000).Draw(t, "step")
				seq = at
			}
			b := peer.seal(record.ApplicationData, seq, []byte("0123456789"))
			if rapid.IntRange(0, 3).Draw(t, "harm") == 0 {
				b[rapid.IntRange(0, len(b)-1).Draw(t, "octet")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			}
			b = b[:rapid.IntRange(len(b)-1, len(b)).Draw(t, "length")]
			want, wantVerdict := in.open(bytes.Clone(b))
			h, ok := record.Parse(b)
			var got []byte
			v := record.Bad
			if ok && h.Length >= record.NonceLen+record.TagLen {
				got, _, v = r.Open([]*record.Opener{o}, h, b)
			}
			if v != wantVerdict || !bytes.Equal(got, want) {
				t.Fatalf("record %d: verdict %v, % x; want %v, % x", seq, v, got, wantVerdict, want)
			}
		}
	})
}

// TestKeysAreThoseOfTheHandshake compares with the PRF and cipher of the library
// that does the handshake.
func TestKeysAreThoseOfTheHandshake(t *testing.T) {
	secrets := &record.Secrets{Suite: record.ECDHEWithAES128GCM, Master: bytes.Repeat([]byte{7}, 48), Client: true, Epoch: 1}
	secrets.ClientRandom[0], secrets.ServerRandom[0] = 1, 2
	k, err := prf.GenerateEncryptionKeys(secrets.Master, secrets.ClientRandom[:], secrets.ServerRandom[:], 0, 16, 4, sha256.New)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ciphersuite.NewGCM(k.ServerWriteKey, k.ServerWriteIV, k.ClientWriteKey, k.ClientWriteIV)
	if err != nil {
		t.Fatal(err)
	}
	s, o, err := record.New(secrets, 1, 10)
	if err != nil {
		t.Fatal(err)
	}
	var w record.Writer
	w.Reserve(s, 1)
	b := make([]byte, record.Overhead+5)
	copy(b[record.Headroom:], "hello")
	w.Seal(record.ApplicationData, b)
	got, err := server.Decrypt(bytes.Clone(b))
	if err != nil || string(got[record.HeaderLen:]) != "hello" {
		t.Errorf("the library opens %q, %v; want hello", got, err)
	}

	p := &recordlayer.RecordLayer{
		Header:  recordlayer.Header{ContentType: protocol.ContentTypeApplicationData, Version: protocol.Version1_2, Epoch: 1, SequenceNumber: 9},
		Content: &protocol.ApplicationData{Data: []byte("answer")},
	}
	raw, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := server.Encrypt(p, raw)
	if err != nil {
		t.Fatal(err)
	}
	h, _ := record.Parse(sealed)
	plain, _, v := new(record.Reader).Open([]*record.Opener{o}, h, sealed)
	if v != record.Opened || string(plain) != "answer" {
		t.Errorf("opened %q, verdict %v; want answer", plain, v)
	}
}
