package record

import "encoding/binary"

// Sizes in octets.
const (
	HeaderLen = 13 // type, version, epoch, sequence, length
	NonceLen  = 8  // the explicit part
	TagLen    = 16
	// Headroom is what stands before the plaintext.
	Headroom = HeaderLen + NonceLen
	// Overhead is by how much a record is longer than its plaintext.
	Overhead = Headroom + TagLen
	// MaxPlaintext is the longest fragment (RFC 5246 clause 6.2.1).
	MaxPlaintext = 1 << 14
	// MaxRecord is the longest record.
	MaxRecord = Overhead + MaxPlaintext
)

// MaxSequence is the last sequence number of an epoch (RFC 6347 clause 4.1).
const MaxSequence = 1<<48 - 1

// Version is DTLS 1.2 on the wire.
const Version = 0xfefd

// Type is what a record carries.
type Type uint8

// Types (RFC 5246 clause 6.2.1).
const (
	ChangeCipherSpec Type = 20
	Alert            Type = 21
	Handshake        Type = 22
	ApplicationData  Type = 23
)

// Header is the clear beginning of a record.
type Header struct {
	Type     Type
	Version  uint16
	Epoch    uint16
	Sequence uint64 // 48 bits
	Length   int    // of what follows the header
}

// Parse reads the header of the record at the beginning of b. It reports false
// when b doesn't hold the whole of a record with a known type.
//
// Hot path: no allocation. Everything read is behind one check of b's length.
func Parse(b []byte) (h Header, ok bool) {
	if len(b) < HeaderLen {
		return h, false
	}
	number := binary.BigEndian.Uint64(b[3:])
	h = Header{
		Type: Type(b[0]), Version: binary.BigEndian.Uint16(b[1:]),
		Epoch: uint16(number >> 48), Sequence: number & MaxSequence,
		Length: int(binary.BigEndian.Uint16(b[11:])),
	}
	return h, h.Type >= ChangeCipherSpec && h.Type <= ApplicationData && h.Length <= len(b)-HeaderLen
}

// number is epoch and sequence as they stand in a header, a nonce and the
// authenticated data.
func number(epoch uint16, sequence uint64) uint64 { return uint64(epoch)<<48 | sequence }

// putAuthenticated fills the authenticated data of a record with n octets of
// plaintext (RFC 5246 clause 6.2.3.3).
//
// Hot path: no allocation.
func putAuthenticated(b *[HeaderLen]byte, number uint64, t Type, n int) {
	binary.BigEndian.PutUint64(b[:], number)
	b[8] = byte(t)
	binary.BigEndian.PutUint16(b[9:], Version)
	binary.BigEndian.PutUint16(b[11:], uint16(n))
}
