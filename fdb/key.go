package fdb

import (
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Key is a station in a VLAN: MAC (48 bits) above VID (12 bits). The key of a
// valid VID is never 0.
type Key uint64

// MakeKey returns the key of m in v. The caller has made sure that v is valid
// and m an individual address.
func MakeKey(v frame.VID, m frame.MAC) Key { return Key(m.Uint64()<<12 | uint64(v&0xfff)) }

// MAC returns the address.
func (k Key) MAC() frame.MAC { return frame.MACFromUint64(uint64(k >> 12)) }

// VID returns the VLAN.
func (k Key) VID() frame.VID { return frame.VID(k & 0xfff) }

// valid reports whether MakeKey can have made k of a valid VID.
func (k Key) valid() bool { return k>>60 == 0 && k.VID().Valid() }

// Tick is coarse time in eighths of a second since the machine started. An
// entry stores its low 24 bits, which come round after 24 days; Sweep holds
// back entries older than 17 days, so that they never look young again. A tick
// up to 512 s behind an entry's own counts as age 0: loops read the clock at
// different moments.
type Tick uint32

// tickLen is the length of a Tick.
const tickLen = time.Second / 8

// TickAt returns the tick of a reading of CLOCK_BOOTTIME or CLOCK_MONOTONIC,
// clocks that go on when the process is restarted. All processes that open one
// table use the same clock.
func TickAt(sinceBoot time.Duration) Tick { return Tick(sinceBoot / tickLen) }

const (
	// DefaultAgeing is the ageing time of a VLAN until SetAgeing (IEEE
	// 802.1Q-2022 table 8-6).
	DefaultAgeing = 300 * time.Second
	// MaxAgeing is the longest ageing time (IEEE 802.1Q-2022 table 8-6); SetAgeing
	// shortens anything longer to it.
	MaxAgeing = 1_000_000 * time.Second
)

// ticksOf converts an ageing time: 0 stays 0 (never), anything else is at least
// one tick.
func ticksOf(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	return uint32(max(1, min(d, MaxAgeing)/tickLen))
}
