package record

import (
	"encoding/binary"
	"sync/atomic"
)

// Sealer is the key of what is sent, and the sequence numbers that go with it.
type Sealer struct {
	direction
	epoch      uint16
	first, end uint64 // numbers that may be used: first to end-1
	next       atomic.Uint64
}

// Epoch is that of the sealed records.
func (s *Sealer) Epoch() uint16 { return s.epoch }

// Sealed is how many sequence numbers were given away.
func (s *Sealer) Sealed() uint64 { return min(s.next.Load(), s.end) - s.first }

// Left is how many records may still be sealed.
func (s *Sealer) Left() uint64 { return s.end - min(s.next.Load(), s.end) }

// Retire makes s give away no number any more, whoever is about to ask, and
// returns the first that it hasn't given away. A second call returns the limit.
func (s *Sealer) Retire() uint64 { return min(s.next.Swap(MaxSequence+1), s.end) }

// reserve gives away n numbers from first on, or none when fewer are left.
//
// Hot path: no allocation.
func (s *Sealer) reserve(n uint64) (first uint64, ok bool) {
	// The check before the addition keeps the counter from creeping on for ever.
	if n > s.Left() {
		return 0, false
	}
	last := s.next.Add(n)
	return last - n, last <= s.end
}

// Writer seals the records of one batch. The zero Writer is ready for use.
type Writer struct {
	s         *Sealer
	next, end uint64
	nonce     [saltLen + NonceLen]byte
	data      [HeaderLen]byte // what is authenticated
}

// Reserve makes w seal the next n records under s. It reports false when s has
// fewer left: then w seals nothing.
//
// Hot path: no allocation.
func (w *Writer) Reserve(s *Sealer, n int) bool {
	first, ok := s.reserve(uint64(n))
	if !ok {
		w.s, w.next, w.end = nil, 0, 0
		return false
	}
	w.s, w.next, w.end = s, first, first+uint64(n)
	copy(w.nonce[:], s.salt[:])
	return true
}

// Seal makes b a record of type t, in place: b is Headroom octets of room, the
// plaintext, and TagLen octets of room. It reports false, and leaves b as it is,
// when the reserved numbers are used up or b isn't a record's size.
//
// Hot path: no allocation.
func (w *Writer) Seal(t Type, b []byte) bool {
	n := len(b) - Overhead
	if w.next == w.end || n < 0 || n > MaxPlaintext {
		return false
	}
	num := number(w.s.epoch, w.next)
	w.next++
	b[0] = byte(t)
	binary.BigEndian.PutUint16(b[1:], Version)
	binary.BigEndian.PutUint64(b[3:], num)
	binary.BigEndian.PutUint16(b[11:], uint16(NonceLen+n+TagLen))
	binary.BigEndian.PutUint64(b[HeaderLen:], num)
	binary.BigEndian.PutUint64(w.nonce[saltLen:], num)
	putAuthenticated(&w.data, num, t, n)
	w.s.aead.Seal(b[Headroom:Headroom], w.nonce[:], b[Headroom:Headroom+n], w.data[:])
	return true
}
