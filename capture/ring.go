package capture

import (
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	// DefaultMemory is a ring's size: a second of 5,000 full-size frames, or
	// 120 GSO frames.
	DefaultMemory = 8 << 20
	// minMemory holds several of the longest records.
	minMemory = 1 << 20
	// maxCopies is how many copies of a flood a record names; wanted ones beyond
	// are counted as lost.
	maxCopies = 1024
	// headWords is the fixed part of a record, in words of eight octets.
	headWords = 6
)

// The first word of a record: its length in words and what it is. Zero means
// that the record is not complete.
const (
	wordComplete = 1 << 63
	wordPadding  = 1 << 62
	wordLen      = 1<<32 - 1
)

// Ring is a bounded queue of observed frames: many writers that never wait, and
// one reader.
//
// A writer reserves memory by moving head with compare-and-swap, fills it and
// completes it by its first word. The reader goes from one complete record to
// the next, zeroes what it has read and moves tail.
type Ring struct {
	choice Choice
	ports  *[(numSources + 63) / 64]uint64 // nil = all

	words []uint64
	bytes []byte // the same memory
	mask  uint64
	head  atomic.Uint64
	tail  atomic.Uint64

	idle  atomic.Bool
	ready chan struct{}

	lost []atomic.Uint64 // packets by port
	all  atomic.Uint64

	held uint64 // the record that the reader holds, in words
}

// NewRing returns a ring for what c chooses, with memory octets of records; 0
// is DefaultMemory.
func NewRing(c Choice, memory int) *Ring {
	if memory == 0 {
		memory = DefaultMemory
	}
	size := uint64(minMemory / 8)
	for size*8 < uint64(memory) {
		size *= 2
	}
	r := &Ring{
		choice: c, words: make([]uint64, size), mask: size - 1,
		ready: make(chan struct{}, 1), lost: make([]atomic.Uint64, numSources),
	}
	r.bytes = unsafe.Slice((*byte)(unsafe.Pointer(&r.words[0])), size*8)
	if len(c.Ports) > 0 {
		r.ports = new([(numSources + 63) / 64]uint64)
		for _, p := range c.Ports {
			r.ports[p/64] |= 1 << (p % 64)
		}
	}
	return r
}

// Lost is how many packets of port did not fit since the ring was made.
func (r *Ring) Lost(port frame.PortID) uint64 { return r.lost[port].Load() }

// LostAll is the sum of Lost over all ports.
func (r *Ring) LostAll() uint64 { return r.all.Load() }

func (r *Ring) lose(port frame.PortID) {
	r.lost[port].Add(1)
	r.all.Add(1)
}

// reserve returns the index of n contiguous words, or false when they are not free.
func (r *Ring) reserve(n uint64) (at uint64, ok bool) {
	for again := true; again; {
		at, ok, again = r.try(r.head.Load(), n)
	}
	return at, ok
}

// try is reserve with head as it was read. Another writer and the reader may have
// moved on since, the reader even beyond what head would leave free: whether words
// are missing is known only while head has not moved.
func (r *Ring) try(head, n uint64) (at uint64, ok, again bool) {
	size := uint64(len(r.words))
	at, pad := head&r.mask, uint64(0)
	if at+n > size {
		pad = size - at
	}
	if head+pad+n-r.tail.Load() > size {
		return 0, false, r.head.Load() != head
	}
	if !r.head.CompareAndSwap(head, head+pad+n) {
		return 0, false, true
	}
	if pad > 0 {
		atomic.StoreUint64(&r.words[at], wordComplete|wordPadding|pad)
		at = 0
	}
	return at, true, false
}

// complete hands the n words at index at to the reader.
func (r *Ring) complete(at, n uint64) {
	atomic.StoreUint64(&r.words[at], wordComplete|n)
	if r.idle.Load() && r.idle.Swap(false) {
		select {
		case r.ready <- struct{}{}:
		default:
		}
	}
}

// Ready delivers when records may have come since Poll returned false.
func (r *Ring) Ready() <-chan struct{} { return r.ready }

// Poll takes the next record, if there is one. It gives the memory of the last
// record back.
func (r *Ring) Poll(rec *Record) bool {
	r.release()
	for {
		at := r.tail.Load() & r.mask
		w := atomic.LoadUint64(&r.words[at])
		if w == 0 {
			if r.idle.Load() {
				return false
			}
			r.idle.Store(true) // and look again: a writer may not have seen it
			continue
		}
		r.held = w & wordLen
		if w&wordPadding != 0 {
			r.release()
			continue
		}
		r.idle.Store(false)
		r.read(rec, at)
		return true
	}
}

// Mark is where the ring ends now.
func (r *Ring) Mark() uint64 { return r.head.Load() }

// Passed reports whether the reader has come to a mark.
func (r *Ring) Passed(mark uint64) bool { return r.tail.Load()+r.held >= mark }

func (r *Ring) release() {
	if r.held == 0 {
		return
	}
	tail := r.tail.Load()
	at := tail & r.mask
	clear(r.words[at+1 : at+r.held])
	atomic.StoreUint64(&r.words[at], 0)
	r.tail.Store(tail + r.held)
	r.held = 0
}

// Record is one observed frame of which at least one packet is wanted.
type Record struct {
	Time    time.Time
	In      frame.PortID
	Wanted  bool // the frame as it was received
	Verdict frame.Verdict
	GSO     frame.GSO
	Len     int    // octets of the frame
	Data    []byte // as received, up to the snap length
	Copies  []Copy
	More    int // copies beyond Copies
}

// Copy is one copy of a recorded frame.
type Copy struct {
	frame.Copy
	Wanted bool
}

// Flags of a record's fifth word.
const (
	flagECN = 1 << iota
	flagNeedsCsum
	flagValid
	flagFresh
	flagWanted
)

func flag(on bool, bit uint64) uint64 {
	if on {
		return bit
	}
	return 0
}

// write fills the fixed part of the record at w.
//
// Hot path: no allocation.
func (r *Ring) write(w []uint64, o *frame.Observation, p *plan) {
	v, g := &o.Verdict, &o.Frame.GSO
	w[1] = uint64(o.Time.UnixNano())
	w[2] = uint64(o.In) | uint64(v.Action)<<16 | uint64(v.Reason)<<24 | uint64(v.VID)<<32 | uint64(v.Out)<<48
	w[3] = uint64(len(o.Frame.Data)) | uint64(p.snap)<<32
	w[4] = uint64(g.Type) | uint64(g.HdrLen)<<16 | uint64(g.Size)<<32 | uint64(g.CsumStart)<<48 |
		(flag(g.ECN, flagECN)|flag(g.NeedsCsum, flagNeedsCsum)|flag(g.Valid, flagValid)|flag(v.Fresh, flagFresh)|flag(p.in, flagWanted))<<8
	w[5] = uint64(g.CsumOffset) | uint64(p.copies)<<16 | uint64(p.more)<<32
}

func (r *Ring) read(rec *Record, at uint64) {
	w := r.words[at:]
	flags := w[4] >> 8
	n := int(uint16(w[5] >> 16))
	*rec = Record{
		Time: time.Unix(0, int64(w[1])), In: frame.PortID(w[2]), Wanted: flags&flagWanted != 0,
		Verdict: frame.Verdict{Action: frame.Action(w[2] >> 16), Reason: frame.Reason(w[2] >> 24), VID: frame.VID(w[2] >> 32),
			Out: frame.PortID(w[2] >> 48), Fresh: flags&flagFresh != 0},
		GSO: frame.GSO{Type: frame.GSOType(w[4]), HdrLen: uint16(w[4] >> 16), Size: uint16(w[4] >> 32), CsumStart: uint16(w[4] >> 48),
			CsumOffset: uint16(w[5]), ECN: flags&flagECN != 0, NeedsCsum: flags&flagNeedsCsum != 0, Valid: flags&flagValid != 0},
		Len: int(uint32(w[3])), Copies: rec.Copies[:0], More: int(w[5] >> 32),
	}
	for _, c := range w[headWords : headWords+n] {
		rec.Copies = append(rec.Copies, Copy{
			Copy: frame.Copy{Port: frame.PortID(c), Tag: frame.Tag{TPID: frame.EtherType(c >> 16), TCI: uint16(c >> 32)},
				Refused: frame.Reason(c >> 48)},
			Wanted: c>>56 != 0,
		})
	}
	from := 8 * (at + headWords + uint64(n))
	rec.Data = r.bytes[from : from+w[3]>>32]
}
