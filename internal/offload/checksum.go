package offload

import (
	"encoding/binary"
	"math/bits"
)

// Sum adds the octets of b to init as the Internet checksum does (RFC 1071), in
// words of 64 bits with end-around carry. Only the last of several pieces
// may have an odd length. The result is for Sum and Fold; its octet order is
// the little-endian one, which RFC 1071 section 2(B) allows.
//
// Hot path: no allocation.
func Sum(b []byte, init uint64) uint64 {
	s, c := init, uint64(0)
	for len(b) >= 64 {
		w := (*[64]byte)(b)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[0:8]), 0)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[8:16]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[16:24]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[24:32]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[32:40]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[40:48]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[48:56]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[56:64]), c)
		s, c = bits.Add64(s, 0, c)
		s += c
		b = b[64:]
	}
	for len(b) >= 8 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), 0)
		s += c
		b = b[8:]
	}
	if len(b) > 0 {
		var w [8]byte
		copy(w[:], b)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[:]), 0)
		s += c
	}
	return s
}

// Fold reduces a sum to the 16 bits, in host order, that stand big-endian in
// a header. A complete checksum is the complement of this, a partial one
// is the folded pseudo-header itself.
func Fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return bits.ReverseBytes16(uint16(sum))
}

// Pseudo is the sum over the pseudo-header of RFC 9293 section 3.1 or RFC 8200
// section 8.1: addrs is source and destination address, 8 or 32 octets, n the
// length in octets of the L4 header and its payload, at most 65535.
func Pseudo(addrs []byte, proto uint8, n int) uint64 {
	return addWord(addWord(Sum(addrs, 0), uint16(proto)), uint16(n))
}

// Complete fills in the partial checksum at b[start+offset:], summing from
// start to the end of b. It panics when the field is not in b: see Check.
func Complete(b []byte, start, offset int) {
	putChecksum(b[start:], offset, Sum(b[start:], 0))
}

// addWord adds a big-endian header word to a sum.
func addWord(sum uint64, w uint16) uint64 {
	s, c := bits.Add64(sum, uint64(bits.ReverseBytes16(w)), 0)
	return s + c
}

// putChecksum stores the complement of sum at b[offset:]. UDP, told by its
// offset, writes 0 as all ones, because 0 means no checksum (RFC 768).
func putChecksum(b []byte, offset int, sum uint64) {
	c := ^Fold(sum)
	if c == 0 && offset == udpCsumOffset {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[offset:], c)
}
