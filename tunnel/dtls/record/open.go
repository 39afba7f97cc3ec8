package record

import "encoding/binary"

// Verdict is what became of a record.
type Verdict uint8

// Verdicts.
const (
	// Bad is a record that wasn't sealed with this key, or was changed.
	Bad Verdict = iota
	// Replayed is one that was opened before, or is older than the window.
	Replayed
	// Opened is an authentic record seen for the first time.
	Opened
)

// Opener is the key of what is received, and the memory of what was.
type Opener struct {
	direction
	epoch  uint16
	window Window
}

// Reader opens records. The zero Reader is ready for use.
type Reader struct {
	nonce [saltLen + NonceLen]byte
	data  [HeaderLen]byte
	saved [MaxRecord]byte
}

// Open opens the record with header h, which is what Parse found at the beginning
// of b, with the first of the openers that can. The plaintext shares b's octets;
// which tells the opener. What isn't authentic changes no state, and leaves b
// undefined.
//
// Hot path: no allocation.
func (r *Reader) Open(openers []*Opener, h Header, b []byte) (plain []byte, which int, v Verdict) {
	n := h.Length - NonceLen - TagLen
	if h.Version != Version || n < 0 || n > MaxPlaintext {
		return nil, 0, Bad
	}
	sealed := b[Headroom : HeaderLen+h.Length]
	copy(r.nonce[saltLen:], b[HeaderLen:])
	putAuthenticated(&r.data, number(h.Epoch, h.Sequence), h.Type, n)
	for i, o := range openers {
		if h.Epoch != o.epoch {
			continue
		}
		if o.window.Seen(h.Sequence) {
			v = Replayed // unless it is another's
			continue
		}
		// A failed attempt overwrites what it couldn't open.
		last := i == len(openers)-1
		if !last {
			copy(r.saved[:], sealed)
		}
		copy(r.nonce[:], o.salt[:])
		plain, err := o.aead.Open(sealed[:0], r.nonce[:], sealed, r.data[:])
		if err == nil {
			if !o.window.Mark(h.Sequence) {
				return nil, i, Replayed
			}
			return plain, i, Opened
		}
		if !last {
			copy(sealed, r.saved[:])
		}
	}
	return nil, 0, v
}

// Number is the explicit nonce of the record at the beginning of b, which Parse
// found whole. It reports false when the record has none.
func Number(h Header, b []byte) (uint64, bool) {
	if h.Epoch == 0 || h.Length < NonceLen {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[HeaderLen:]), true
}
