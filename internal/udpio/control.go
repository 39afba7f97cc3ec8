package udpio

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Control messages (cmsg(3)) are laid out in native words:
//
//	len (word) | level (4) | type (4) | value … | padding to a word
const (
	word      = int(unsafe.Sizeof(uintptr(0)))
	cmsgHdr   = unix.SizeofCmsghdr
	cmsgSpace = (cmsgHdr + 4 + word - 1) &^ (word - 1) // of a value of 1 to 4 octets

	// sendControl is room for UDP_SEGMENT and the TOS.
	sendControl = 2 * cmsgSpace
	// recvControl is room for UDP_GRO, TOS and TTL, and one more that somebody
	// may have switched on.
	recvControl = 4 * cmsgSpace
)

// putControl writes one control message with the value val, size octets long,
// to the start of b and returns what it takes.
func putControl(b []byte, level, typ int, val uint32, size int) int {
	if word == 8 {
		binary.NativeEndian.PutUint64(b, uint64(cmsgHdr+size))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(cmsgHdr+size))
	}
	binary.NativeEndian.PutUint32(b[word:], uint32(level))
	binary.NativeEndian.PutUint32(b[word+4:], uint32(typ))
	if size == 2 {
		binary.NativeEndian.PutUint16(b[cmsgHdr:], uint16(val))
	} else {
		binary.NativeEndian.PutUint32(b[cmsgHdr:], val)
	}
	return cmsgSpace
}

// parseControl fills Size, TOS and TTL of d, whose Data is set, from received
// control messages. What is unknown, cut off or out of range is passed over: d
// is then one datagram with TOS 0.
//
// Every step forward is at least one header, so the walk ends; no access leaves b.
func parseControl(b []byte, d *Datagram) {
	d.Size = len(d.Data)
	for len(b) >= cmsgHdr {
		var n int
		if word == 8 {
			n = int(min(binary.NativeEndian.Uint64(b), uint64(len(b)+1)))
		} else {
			n = int(min(binary.NativeEndian.Uint32(b), uint32(len(b)+1)))
		}
		if n < cmsgHdr || n > len(b) {
			return
		}
		level := int(binary.NativeEndian.Uint32(b[word:]))
		typ := int(binary.NativeEndian.Uint32(b[word+4:]))
		d.note(level, typ, b[cmsgHdr:n])
		b = b[min((n+word-1)&^(word-1), len(b)):]
	}
}

// note takes one control message.
func (d *Datagram) note(level, typ int, val []byte) {
	var v uint32
	switch {
	case len(val) >= 4:
		v = binary.NativeEndian.Uint32(val)
	case len(val) == 1: // IP_TOS is a single octet
		v = uint32(val[0])
	default:
		return
	}
	switch {
	case level == unix.SOL_UDP && typ == unix.UDP_GRO:
		if v > 0 && v < uint32(len(d.Data)) {
			d.Size = int(v)
		}
	case level == unix.SOL_IP && typ == unix.IP_TOS, level == unix.SOL_IPV6 && typ == unix.IPV6_TCLASS:
		d.TOS = uint8(v)
	case level == unix.SOL_IP && typ == unix.IP_TTL, level == unix.SOL_IPV6 && typ == unix.IPV6_HOPLIMIT:
		d.TTL = uint8(v)
	}
}
