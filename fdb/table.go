package fdb

import (
	"sync"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Outcome is what Learn did.
type Outcome uint8

// Outcomes of Learn.
const (
	Known     Outcome = iota // the entry stands as it was
	Refreshed                // its age was set back
	Inserted                 // a new entry, perhaps in place of an evicted one
	Moved                    // the station is behind another port now
	Static                   // not moved: the entry is static and names another port
	Full                     // not learned: no entry could be taken from a greedier port
	PortLimit                // not learned or moved: the port is at its own limit
)

// Teacher is the frame that teaches, for the history. Learn keeps no reference.
type Teacher struct {
	Wall int64  // wall clock of the batch, nanoseconds since 1970
	Len  int    // the frame's length in octets
	Head []byte // its first octets, at least HeadLen if it has as many
}

// Filter selects entries; a zero field matches all.
type Filter struct {
	VID  frame.VID
	Port frame.PortID
	MAC  frame.MAC
}

// Counters are totals since this process opened the table.
type Counters struct {
	Moves   uint64 // stations that changed their port
	Evicted uint64 // entries taken by the table limit
	Aged    uint64 // entries gone by ageing
	Full    uint64 // times that Learn returned Full or PortLimit
}

// Table is the filtering database.
type Table struct {
	mu sync.Mutex
}

// Size returns how many octets of memory a table of limit entries needs, its
// history included.
func Size(limit int) int { return limit }

// Open makes mem, which is Size(limit) octets and 8-octet aligned, a table.
// Zeroed memory becomes a new table; memory that an earlier process used
// becomes that table again. Memory that is damaged or was made for another
// limit is refused with an error that names what is wrong, and left as it is.
func Open(mem []byte, limit int) (*Table, error) { return &Table{}, nil }

// Lookup returns the port behind which k was last seen.
//
// Hot path: lock-free, at most sixteen keys are read.
func (t *Table) Lookup(k Key) (frame.PortID, bool) { return 0, false }

// Learn notes that k was seen on port p at now. It returns what it did, and the
// port that the entry named before when that is another one. teach is read only
// when the table changes and may be nil.
//
// Hot path: lock-free as long as the outcome is Known, Refreshed or Static.
func (t *Table) Learn(k Key, p frame.PortID, now Tick, teach *Teacher) (Outcome, frame.PortID) {
	return Known, 0
}

// AddStatic adds a static entry, or turns a dynamic one into it. A full table
// gives up a dynamic entry for it; the error says that there is none.
func (t *Table) AddStatic(k Key, p frame.PortID) error { return nil }

// Delete removes the entry of k, static or dynamic, and reports whether there
// was one.
func (t *Table) Delete(k Key) bool { return false }

// Flush removes the dynamic entries that f selects and returns how many.
func (t *Table) Flush(f Filter) int { return 0 }

// SetAgeing sets the ageing time of a VLAN; 0 means never.
func (t *Table) SetAgeing(v frame.VID, d time.Duration) {}

// Sweep looks at the next budget places, round and round, removes the entries
// that are too old, and returns how many it removed.
func (t *Table) Sweep(now Tick, budget int) (aged int) { return 0 }

// Places is how many places a whole round of Sweep has.
func (t *Table) Places() int { return 0 }

// Entry is one row of the table.
type Entry struct {
	VID    frame.VID
	MAC    frame.MAC
	Port   frame.PortID
	Static bool
	Moves  int // how often it changed its port; stops at 255
}

// Age is how long ago the source was last noted, 0 for a static entry.
func (e Entry) Age(now Tick) time.Duration { return 0 }

// Walk calls f for every entry, in no order, until f returns false.
func (t *Table) Walk(f func(Entry) bool) {}

// Len is the number of entries, static ones included.
func (t *Table) Len() int { return 0 }

// Limit is how many entries the table may have.
func (t *Table) Limit() int { return 0 }

// PortLen is the number of dynamic entries that p owns.
func (t *Table) PortLen(p frame.PortID) int { return 0 }

// VIDLen is the number of entries of v, static ones included.
func (t *Table) VIDLen(v frame.VID) int { return 0 }

// SetPortLimit bounds the dynamic entries of p; 0 = no bound. Entries beyond a
// new bound stay until they age.
func (t *Table) SetPortLimit(p frame.PortID, n int) {}

// SetLimit bounds the entries of the table; at most the limit it was opened
// with. Entries beyond a new bound are evicted by the following Sweeps.
func (t *Table) SetLimit(n int) {}

// Counters returns the totals.
func (t *Table) Counters() Counters { return Counters{} }

// HeadLen is how many octets of the teaching frame a record keeps.
const HeadLen = 56

// Event is what happened to an entry.
type Event uint8

// Events. The names that String returns are part of the product's contract.
const (
	EventLearned Event = iota + 1
	EventMoved
	EventAged
	EventEvicted
	EventFlushed
	EventRemoved
	EventStatic
)

// String returns the name of the event.
func (e Event) String() string { return "" }

// Record is one event of the history.
type Record struct {
	Wall   int64 // nanoseconds since 1970
	Event  Event
	VID    frame.VID
	MAC    frame.MAC
	Port   frame.PortID
	Old    frame.PortID // of a move: the port before
	Len    int          // length of the teaching frame; 0 = none
	Head   []byte       // its first octets, up to HeadLen; the caller's own copy
	Missed uint64       // events of Port left out just before this one
}

// History returns the latest limit records, newest last.
func (t *Table) History(limit int) []Record { return nil }

// HistoryOf returns all records of one address in any VLAN, newest last.
func (t *Table) HistoryOf(m frame.MAC) []Record { return nil }
