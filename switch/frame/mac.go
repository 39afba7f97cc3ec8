package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MAC is a 48-bit Ethernet address, most significant octet first. It is
// comparable, fits a map key, and its zero value is the (invalid) zero address.
type MAC [6]byte

// Broadcast is the all-ones group address (IEEE 802.3 clause 3.2.3).
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

var errMAC = errors.New("want six hexadecimal octets like 02:00:00:00:00:01")

// ParseMAC reads the form 02:00:00:00:00:01, with colons or dashes and exactly
// two hexadecimal digits an octet.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	if len(s) != 17 {
		return m, fmt.Errorf("MAC address %q: %w", clip(s), errMAC)
	}
	sep := s[2]
	if sep != ':' && sep != '-' {
		return m, fmt.Errorf("MAC address %q: %w", s, errMAC)
	}
	for i := range m {
		hi, ok1 := unhex(s[i*3])
		lo, ok2 := unhex(s[i*3+1])
		if !ok1 || !ok2 || (i < 5 && s[i*3+2] != sep) {
			return MAC{}, fmt.Errorf("MAC address %q: %w", s, errMAC)
		}
		m[i] = hi<<4 | lo
	}
	return m, nil
}

// MustParseMAC is ParseMAC for addresses known to be good; it panics otherwise.
func MustParseMAC(s string) MAC {
	m, err := ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// MACFromUint64 takes the low 48 bits of u, most significant octet first.
func MACFromUint64(u uint64) MAC {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], u)
	return MAC(b[2:])
}

// Uint64 returns the address in the low 48 bits, so that sorting the numbers
// sorts the addresses.
func (m MAC) Uint64() uint64 {
	return uint64(m[0])<<40 | uint64(m[1])<<32 | uint64(m[2])<<24 |
		uint64(m[3])<<16 | uint64(m[4])<<8 | uint64(m[5])
}

// IsGroup reports whether the I/G bit is set: multicast or broadcast.
func (m MAC) IsGroup() bool { return m[0]&1 != 0 }

// IsZero reports whether m is 00:00:00:00:00:00, which is no valid station.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsReserved reports whether m is one of the sixteen addresses that a bridge
// does not relay, 01:80:C2:00:00:00 to 0F (IEEE 802.1Q clause 8.6.3, table 8-1).
func (m MAC) IsReserved() bool {
	return m[0] == 0x01 && m[1] == 0x80 && m[2] == 0xc2 && m[3] == 0 && m[4] == 0 && m[5] < 16
}

// String returns the form 02:00:00:00:00:01.
func (m MAC) String() string {
	b, _ := m.AppendText(make([]byte, 0, 17))
	return string(b)
}

// AppendText appends the form of String to b.
func (m MAC) AppendText(b []byte) ([]byte, error) {
	const digits = "0123456789abcdef"
	for i, o := range m {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, digits[o>>4], digits[o&15])
	}
	return b, nil
}

// MarshalText implements encoding.TextMarshaler with the form of String.
func (m MAC) MarshalText() ([]byte, error) { return m.AppendText(nil) }

// UnmarshalText implements encoding.TextUnmarshaler with ParseMAC.
func (m *MAC) UnmarshalText(b []byte) error {
	v, err := ParseMAC(string(b))
	if err != nil {
		return err
	}
	*m = v
	return nil
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
