package fdb

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	magic   = 0x7461_7065_7374_7279 // "tapestry"
	version = 2                     // of everything the package comment draws

	// bucketLen words fill one cache line, so that a lookup that finds nothing
	// costs two of them.
	bucketLen = 8

	// MaxLimit is the largest limit a table can be opened with.
	MaxLimit = 1 << 24
)

// header is the start of the memory. It is written once, magic last.
type header struct {
	magic   uint64
	sum     uint64 // of the fields behind it; 0 until they are written
	version uint64
	limit   uint64
	seed    [6]uint64 // of mix
	made    uint64    // wall clock of the first Open, ns; 0 in older memory
	_       [5]uint64
}

const (
	headerLen = int(unsafe.Sizeof(header{}))
	bucketMem = int(unsafe.Sizeof(bucket{}))
	notesMem  = int(unsafe.Sizeof(notes{}))
	recordMem = int(unsafe.Sizeof(record{}))
	pageLen   = 4096
)

// bucketCount gives each entry a third of a place to spare. More room would
// spare few lookups the second bucket and take all of them more cache; with
// less of it the two buckets of a newcomer would be full too often. It is a
// multiple of regionLen.
func bucketCount(limit int) int {
	n := max(minBuckets, (limit+limit/3)/bucketLen)
	return (n + regionLen - 1) / regionLen * regionLen
}

// ringLens are the lengths of the rings of stations and of changes, in records.
func ringLens(limit int) [2]int {
	n := max(1024, min(limit, 32768))
	return [2]int{n - n/4, n / 4}
}

// frontLen is what header and usage take in front of the buckets: whole pages.
func frontLen(buckets int) int {
	return (headerLen + usageLen(buckets)*8 + pageLen - 1) / pageLen * pageLen
}

// Size returns how many octets of memory a table of limit entries needs, its
// history included: at 1,048,576 entries 20 million, at few entries a million.
func Size(limit int) int {
	n, r := bucketCount(limit), ringLens(limit)
	return frontLen(n) + n*(bucketMem+notesMem) + (r[0]+r[1])*recordMem
}

// Open makes mem, which is Size(limit) octets and 8-octet aligned, a table.
// Zeroed memory becomes a new table; memory that an earlier process used
// becomes that table again. Memory that is damaged or was made for another
// limit is refused with an error that names what is wrong.
func Open(mem []byte, limit int) (*Table, error) {
	if limit < 1 || limit > MaxLimit {
		return nil, fmt.Errorf("open fdb: limit %d: want 1 to %d", limit, MaxLimit)
	}
	if len(mem) != Size(limit) {
		return nil, fmt.Errorf("open fdb: memory of %d octets: want %d for %d entries", len(mem), Size(limit), limit)
	}
	base := unsafe.Pointer(unsafe.SliceData(mem))
	if uintptr(base)%8 != 0 {
		return nil, fmt.Errorf("open fdb: memory at %#x: want 8-octet alignment", uintptr(base))
	}
	h := (*header)(base)
	if err := h.open(mem, limit); err != nil {
		return nil, fmt.Errorf("open fdb: %w", err)
	}

	n := bucketCount(limit)
	t := &Table{
		seed:   h.seed,
		opened: limit,
		made:   int64(h.made),
		owned:  make([]atomic.Int32, frame.MaxPortID+1),
		ports:  make([]port, frame.MaxPortID+1),
	}
	t.limit.Store(int64(limit))
	t.usage = unsafe.Slice((*atomic.Uint64)(unsafe.Add(base, headerLen)), usageLen(n))
	off := frontLen(n)
	t.buckets = unsafe.Slice((*bucket)(unsafe.Add(base, off)), n)
	off += n * bucketMem
	t.notes = unsafe.Slice((*notes)(unsafe.Add(base, off)), n)
	off += n * notesMem
	for i, n := range ringLens(limit) {
		t.rings[i].records = unsafe.Slice((*record)(unsafe.Add(base, off)), n)
		off += n * recordMem
	}
	for v := range t.ageing {
		t.SetAgeing(frame.VID(v), DefaultAgeing)
	}
	t.mend()
	if err := t.recount(); err != nil {
		return nil, fmt.Errorf("open fdb: %w", err)
	}
	if err := t.resume(); err != nil {
		return nil, fmt.Errorf("open fdb: %w", err)
	}
	return t, nil
}

// open checks a header, or writes it into new memory.
func (h *header) open(mem []byte, limit int) error {
	sum := func() uint64 { return 1<<32 | uint64(crc32.ChecksumIEEE(mem[16:headerLen])) }
	if h.magic == 0 && h.sum == 0 { // new, or its maker died on the way
		var seed [8 * len(h.seed)]byte
		rand.Read(seed[:]) // never fails
		for i := range h.seed {
			h.seed[i] = binary.LittleEndian.Uint64(seed[8*i:])
		}
		h.version, h.limit, h.made = version, uint64(limit), uint64(time.Now().UnixNano())
		usage := unsafe.Slice((*uint64)(unsafe.Pointer(&mem[headerLen])), usageLen(bucketCount(limit)))
		for i := range usage {
			usage[i] = noneUsed
		}
		atomic.StoreUint64(&h.sum, sum())
		atomic.StoreUint64(&h.magic, magic)
		return nil
	}
	switch {
	case h.magic != magic && h.magic != 0:
		return fmt.Errorf("magic %#x: want %#x; this is no filtering database", h.magic, uint64(magic))
	case h.sum != sum():
		return fmt.Errorf("header checksum %#x: want %#x; the memory is damaged", h.sum, sum())
	case h.version != version:
		return fmt.Errorf("version %d: want %d; start with new memory", h.version, version)
	case h.limit != uint64(limit):
		return fmt.Errorf("limit %d: the memory was made for %d", limit, h.limit)
	}
	atomic.StoreUint64(&h.magic, magic)
	return nil
}

// recount checks every entry and counts it, by table, VLAN and port. It ends
// what an earlier process was killed in the middle of.
func (t *Table) recount() error {
	n := 0
	for p := range t.places() {
		w := word(t.word(p).Load())
		if w == 0 {
			continue
		}
		k := t.key(p.bucket, w)
		unfinished, err := t.check(p, k, w)
		switch {
		case err != nil:
			return fmt.Errorf("bucket %d place %d: %w; the memory is damaged", p.bucket, p.index, err)
		case unfinished:
			t.word(p).Store(0)
			continue
		case n == t.opened:
			return fmt.Errorf("more entries than the limit %d; the memory is damaged", t.opened)
		}
		n++
		t.count(k, w, 1)
	}
	return nil
}

// check says what is wrong with the entry of k in place p, if anything, or
// whether it was about to leave p: for good, or for its second bucket, where it
// then is already.
func (t *Table) check(p place, k Key, w word) (unfinished bool, err error) {
	if !k.valid() || k.MAC().IsGroup() {
		return false, fmt.Errorf("key %#x: no station of a VLAN", uint64(k))
	}
	bi, want := t.first(k)
	if w&secondBit != 0 {
		bi, want = t.second(bi, want)
	}
	switch {
	case bi != p.bucket || want != w&^(told-1):
		return false, fmt.Errorf("word %#x: no such word", uint64(w))
	case w.port() == 0:
		return false, fmt.Errorf("%v in VLAN %v: port 0", k.MAC(), k.VID())
	case !w.static() && note(t.note(p).Load()) == gone:
		return true, nil
	}
	first, _ := t.find(k)
	if first.bucket == p.bucket && first.index != p.index {
		return false, fmt.Errorf("%v in VLAN %v: is there twice", k.MAC(), k.VID())
	}
	return first != p, nil
}
