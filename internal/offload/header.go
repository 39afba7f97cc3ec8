package offload

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Lengths of a virtio_net_hdr in octets, without and with num_buffers.
const (
	HeaderLen       = 10
	HeaderLenMerged = 12
)

const (
	flagNeedsCsum = 1    // VIRTIO_NET_HDR_F_NEEDS_CSUM
	flagDataValid = 2    // VIRTIO_NET_HDR_F_DATA_VALID
	gsoECN        = 0x80 // VIRTIO_NET_HDR_GSO_ECN
)

var (
	errHeaderShort = errors.New("parse vnet header: fewer octets than its length")
	errHeaderLen   = errors.New("parse vnet header: length is neither 10 nor 12")
)

// PutHeader writes the virtio_net_hdr of a frame with metadata g to the first
// hdrLen octets of b, 10 or 12; it panics when b is shorter. Shift is what
// frame.Frame.Shift says: by how many octets Pop and Push move the offsets.
//
// Hot path: no allocation.
func PutHeader(b []byte, hdrLen int, g frame.GSO, shift int) {
	b = b[:hdrLen]
	clear(b)
	if g.Type != frame.GSONone {
		b[1] = uint8(g.Type)
		if g.ECN {
			b[1] |= gsoECN
		}
		binary.LittleEndian.PutUint16(b[2:], uint16(int(g.HdrLen)+shift))
		binary.LittleEndian.PutUint16(b[4:], g.Size)
	}
	switch {
	case g.NeedsCsum:
		b[0] = flagNeedsCsum
		binary.LittleEndian.PutUint16(b[6:], uint16(int(g.CsumStart)+shift))
		binary.LittleEndian.PutUint16(b[8:], g.CsumOffset)
	case g.Valid:
		b[0] = flagDataValid
	}
}

// ParseHeader reads the virtio_net_hdr of hdrLen octets, 10 or 12, at the
// start of b. Fields that have no meaning for the frame come out zero. It fails
// when b is short or asks for a GSO type that this package does not know. What
// the offsets point at is for Check to judge.
//
// Hot path: no allocation for a header that is good.
func ParseHeader(b []byte, hdrLen int) (frame.GSO, error) {
	var g frame.GSO
	if hdrLen != HeaderLen && hdrLen != HeaderLenMerged {
		return g, errHeaderLen
	}
	if len(b) < hdrLen {
		return g, errHeaderShort
	}
	t := frame.GSOType(b[1] &^ gsoECN)
	switch t {
	case frame.GSONone:
	case frame.GSOTCPv4, frame.GSOTCPv6, frame.GSOUDP:
		g.Type = t
		g.ECN = b[1]&gsoECN != 0
		g.HdrLen = binary.LittleEndian.Uint16(b[2:])
		g.Size = binary.LittleEndian.Uint16(b[4:])
	default:
		return g, fmt.Errorf("parse vnet header: unknown GSO type %#x", b[1])
	}
	if b[0]&flagNeedsCsum != 0 {
		g.NeedsCsum = true
		g.CsumStart = binary.LittleEndian.Uint16(b[6:])
		g.CsumOffset = binary.LittleEndian.Uint16(b[8:])
	} else {
		g.Valid = b[0]&flagDataValid != 0
	}
	return g, nil
}
