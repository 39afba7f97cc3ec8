// Package gather lays an outgoing frame out as a vector of memory pieces, so
// that tags are inserted and left out without writing into shared octets.
//
//	Data[0:12] · pushed tag · Data[12:] or, behind a popped tag, Data[16:] · Frags…
//
// # Concurrency
//
// Pure functions; the vector is the caller's.
package gather

import (
	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Max is how many pieces a frame may have: 128 fragments, which a GSO frame of
// 64 KiB never exceeds, the two parts of Data, a tag, and the driver's header.
const Max = 132

const addrLen = 12 // destination and source address

// Fill writes the pieces of f to iov and returns how many there are, 0 when f
// is too short for its Pop or Push or has more pieces than iov holds. When Push
// is present, piece tagAt is the tag: its length is set, and its Base is left
// for the caller, whose four octets TagOctets returns can then stay on the stack.
//
// Hot path: no allocation.
func Fill(iov []unix.Iovec, f *frame.Frame) (n, tagAt int) {
	rest := f.Data
	if f.Pop || f.Push.Present() {
		skip := addrLen
		if f.Pop {
			skip += frame.TagLen
		}
		if len(rest) < skip {
			return 0, 0
		}
		set(&iov[0], rest[:addrLen])
		n = 1
		if f.Push.Present() {
			tagAt = n
			iov[n].SetLen(frame.TagLen)
			n++
		}
		rest = rest[skip:]
	}
	if len(rest) > 0 {
		set(&iov[n], rest)
		n++
	}
	for _, p := range f.Frags {
		if len(p) == 0 {
			continue
		}
		if n == len(iov) {
			return 0, 0
		}
		set(&iov[n], p)
		n++
	}
	return n, tagAt
}

// TagOctets is the tag as it stands on the wire (IEEE 802.1Q clause 9.3).
func TagOctets(t frame.Tag) [frame.TagLen]byte {
	return [frame.TagLen]byte{byte(t.TPID >> 8), byte(t.TPID), byte(t.TCI >> 8), byte(t.TCI)}
}

func set(v *unix.Iovec, b []byte) {
	v.Base = &b[0]
	v.SetLen(len(b))
}
