package fdb

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/tapestry-net/tapestry/switch/frame"
)

const (
	magic   = 0x7461_7065_7374_7279 // "tapestry"
	version = 1                     // of everything the package comment draws

	// bucketLen keys fill one cache line, so that a lookup that finds nothing
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
	seed    [2]uint64
	_       [10]uint64
}

// bucket is two cache lines, of which a lookup mostly needs the first.
type bucket [bucketLen]struct{ key, val atomic.Uint64 }

const (
	headerLen = int(unsafe.Sizeof(header{}))
	bucketMem = int(unsafe.Sizeof(bucket{}))
	recordMem = int(unsafe.Sizeof(record{}))
)

// bucketCount gives each entry 1.6 places: with two buckets of eight to choose
// from, both are then full for about one newcomer in a million.
func bucketCount(limit int) int { return (limit + limit*3/5 + 3*bucketLen) / bucketLen }

// ringLens are the lengths of the rings of stations and of changes, in records.
func ringLens(limit int) [2]int {
	n := max(1024, min(limit, 32768))
	return [2]int{n - n/4, n / 4}
}

// Size returns how many octets of memory a table of limit entries needs, its
// history included: at 1,048,576 entries, 30 million.
func Size(limit int) int {
	r := ringLens(limit)
	return headerLen + bucketCount(limit)*bucketMem + (r[0]+r[1])*recordMem
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

	t := &Table{seed: h.seed, opened: limit, ports: make([]port, frame.MaxPortID+1)}
	t.limit.Store(int64(limit))
	off := headerLen
	t.buckets = unsafe.Slice((*bucket)(unsafe.Add(base, off)), bucketCount(limit))
	off += len(t.buckets) * bucketMem
	for i, n := range ringLens(limit) {
		t.rings[i].records = unsafe.Slice((*record)(unsafe.Add(base, off)), n)
		off += n * recordMem
	}
	for v := range t.ageing {
		t.SetAgeing(frame.VID(v), DefaultAgeing)
	}
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
		var seed [16]byte
		rand.Read(seed[:]) // never fails
		h.version, h.limit = version, uint64(limit)
		h.seed[0] = binary.LittleEndian.Uint64(seed[:8]) | 1
		h.seed[1] = binary.LittleEndian.Uint64(seed[8:]) | 1
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

// recount checks every place and counts the live ones, by table, VLAN and port.
func (t *Table) recount() error {
	n := 0
	for bi := range t.buckets {
		b := &t.buckets[bi]
		for i := range b {
			v := value(b[i].val.Load())
			if !v.live() {
				continue
			}
			k := Key(b[i].key.Load())
			if err := t.check(bi, i, k, v); err != nil {
				return fmt.Errorf("bucket %d place %d: %w; the memory is damaged", bi, i, err)
			}
			if n++; n > t.opened {
				return fmt.Errorf("more entries than the limit %d; the memory is damaged", t.opened)
			}
			t.count(k, v, 1)
		}
	}
	return nil
}

// check says what is wrong with a live entry, if anything.
func (t *Table) check(bi, i int, k Key, v value) error {
	if !k.valid() {
		return fmt.Errorf("key %#x: no address of a VLAN", uint64(k))
	}
	if v.port() == 0 {
		return fmt.Errorf("%v in VLAN %v: port 0", k.MAC(), k.VID())
	}
	x, y := t.hash(k)
	if bi != x && bi != y {
		return fmt.Errorf("%v in VLAN %v: belongs into bucket %d or %d", k.MAC(), k.VID(), x, y)
	}
	if b, j, _ := t.find(k); b != &t.buckets[bi] || j != i {
		return fmt.Errorf("%v in VLAN %v: is there twice", k.MAC(), k.VID())
	}
	return nil
}

// hash returns the two different buckets of k: two rounds of multiplying and
// folding, as wyhash does, with a secret seed. Not knowing it, nobody can choose
// keys that meet.
func (t *Table) hash(k Key) (a, b int) {
	hi, lo := bits.Mul64(uint64(k)^t.seed[0], t.seed[1])
	hi, lo = bits.Mul64(hi^lo^t.seed[1], t.seed[0])
	n := uint64(len(t.buckets))
	x := hi ^ lo
	a = int((x >> 32) * n >> 32)
	b = int((x & 0xffff_ffff) * (n - 1) >> 32)
	if b >= a {
		b++
	}
	return a, b
}
