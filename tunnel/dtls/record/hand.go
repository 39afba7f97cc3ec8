package record

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// handMargin is how many numbers are left out between the last that Hand gave
// away and the first that Take does: what is thought to be impossible costs a
// thousand of 2^32 numbers instead of a nonce.
const handMargin = 1024

// handedLen is epoch, first, next and end.
const handedLen = 2 + 3*8

// Hand ends s and o for good and appends to b what Take makes them again of, in
// another process or this one. From then on s seals nothing and o opens nothing,
// whichever goroutine comes late: a number is given away, or a record accepted,
// before or after, and never by both. What is appended holds the keys.
func Hand(b []byte, s *Sealer, o *Opener) []byte {
	next := s.Retire()
	ring := o.window.retire()
	b = binary.BigEndian.AppendUint16(b, s.epoch)
	for _, n := range []uint64{s.first, next, s.end} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	for _, d := range []*direction{&s.direction, &o.direction} {
		b = append(append(b, d.key...), d.salt[:]...)
	}
	for _, word := range ring {
		b = binary.BigEndian.AppendUint64(b, word)
	}
	return b
}

var errHanded = errors.New("not what was handed over")

// Take makes an association of what Hand appended, at the beginning of b, and
// returns the rest of b. The caller takes what was handed over once only: two
// that take the same would use the same nonces. Keys are copied.
func Take(suite Suite, b []byte) (s *Sealer, o *Opener, rest []byte, err error) {
	keyLen, _, ok := suite.parameters()
	if way := keyLen + saltLen; !ok || len(b) < handedLen+2*way+8*words {
		return nil, nil, nil, fmt.Errorf("take association of %d octets, suite %v: %w", len(b), suite, errHanded)
	}
	s, o = &Sealer{}, &Opener{}
	s.epoch = binary.BigEndian.Uint16(b)
	s.first, s.end = binary.BigEndian.Uint64(b[2:]), binary.BigEndian.Uint64(b[18:])
	next := binary.BigEndian.Uint64(b[10:])
	if s.epoch == 0 || s.first > next || next > s.end || s.end > MaxSequence {
		return nil, nil, nil, fmt.Errorf("take association: epoch %d, numbers %d, %d, %d: %w", s.epoch, s.first, next, s.end, errHanded)
	}
	s.next.Store(min(next+handMargin, s.end))
	o.epoch = s.epoch
	b = b[handedLen:]
	for _, d := range []*direction{&s.direction, &o.direction} {
		if *d, err = newDirection(b[:keyLen], b[keyLen:][:saltLen]); err != nil {
			return nil, nil, nil, fmt.Errorf("take association: %w", err)
		}
		b = b[keyLen+saltLen:]
	}
	var ring [words]uint64
	for i := range ring {
		ring[i] = binary.BigEndian.Uint64(b[8*i:])
	}
	if !o.window.restore(&ring) {
		return nil, nil, nil, fmt.Errorf("take association: window: %w", errHanded)
	}
	return s, o, b[8*words:], nil
}
