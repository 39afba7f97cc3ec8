package vxlan

import (
	"encoding/binary"
	"strconv"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// HeaderLen is the length of the header in octets (RFC 7348 clause 5).
const HeaderLen = 8

// Port is the UDP port that IANA assigned (RFC 7348 clause 8). Many VTEPs from
// before the assignment use 8472.
const Port = 4789

// VNI is a VXLAN network identifier, 24 bits.
type VNI uint32

// MaxVNI is the highest VNI.
const MaxVNI VNI = 1<<24 - 1

// Valid reports whether v can name a network here: 1 to 16777215. Zero is legal
// on the wire and stands for "stays on this host" in a configuration.
func (v VNI) Valid() bool { return v >= 1 && v <= MaxVNI }

// String returns the decimal number.
func (v VNI) String() string { return strconv.FormatUint(uint64(v), 10) }

// Mode says what Parse does with reserved bits that are set.
type Mode uint8

// Modes, by the words of the configuration's vxlan_reserved.
const (
	DropReserved   Mode = iota // refuse the datagram: an extension we don't know may have given it another meaning
	IgnoreReserved             // RFC 7348 clause 5: ignored on receipt
)

// The header as one big-endian number: the I flag, the VNI, and the 39 bits
// that are neither.
const (
	flagI    uint64 = 1 << 59
	vniShift        = 8
	reserved        = ^(flagI | uint64(MaxVNI)<<vniShift)
)

// Put writes the header for network v to the first HeaderLen octets of b: the I
// flag set, all reserved bits zero. Bits of v above 24 are cut off.
//
// Hot path: no allocation.
func Put(b []byte, v VNI) {
	binary.BigEndian.PutUint64(b, flagI|uint64(v&MaxVNI)<<vniShift)
}

// Parse reads the header of datagram b and returns the network and the inner
// frame, which has at least an Ethernet header and shares b's memory. The
// reason is ReasonNone for a datagram that is good, otherwise VXLANFlags,
// VXLANReserved or InnerShort, and then inner is nil; the VNI is returned
// whenever eight octets are there. An empty or truncated header is InnerShort.
//
// Hot path: no allocation.
func Parse(b []byte, m Mode) (v VNI, inner []byte, why frame.Reason) {
	if len(b) < HeaderLen {
		return 0, nil, frame.InnerShort
	}
	h := binary.BigEndian.Uint64(b)
	v = VNI(h>>vniShift) & MaxVNI
	switch {
	case h&flagI == 0:
		return v, nil, frame.VXLANFlags
	case h&reserved != 0 && m == DropReserved:
		return v, nil, frame.VXLANReserved
	case len(b) < HeaderLen+frame.HeaderLen:
		return v, nil, frame.InnerShort
	}
	return v, b[HeaderLen:], frame.ReasonNone
}
