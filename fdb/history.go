package fdb

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// HeadLen is how many octets of the teaching frame a record keeps: Ethernet
// with a tag, IPv4 and most of TCP, or all of ARP.
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

var eventNames = [...]string{"none", "learned", "moved", "aged", "evicted", "flushed", "removed", "static"}

// String returns the name of the event.
func (e Event) String() string {
	if int(e) < len(eventNames) {
		return eventNames[e]
	}
	return fmt.Sprintf("event %d", uint8(e))
}

// change reports whether e belongs into the ring of changes.
func (e Event) change() bool {
	return e == EventMoved || e == EventRemoved || e == EventStatic
}

// taught reports whether a frame made e happen.
func (e Event) taught() bool { return e == EventLearned || e == EventMoved }

// administered reports whether a person made e happen, entry by entry.
func (e Event) administered() bool { return e == EventRemoved || e == EventStatic }

// Record is one event of the history.
type Record struct {
	Wall   int64 // nanoseconds since 1970
	Event  Event
	VID    frame.VID
	MAC    frame.MAC
	Port   frame.PortID // of the entry; the new one of a move
	Old    frame.PortID // the port before, if it was another
	Len    int          // length of the frame that taught it; 0 = none did
	Static bool         // of EventRemoved and EventStatic: the entry before was static
	Head   []byte       // its first octets, up to HeadLen; the caller's own copy
	Missed uint64       // events of Port left out since its record before this one
}

// record is a Record in the memory. It is valid when order is not 0, which is
// taken away before anything else is written and put back last.
type record struct {
	order  uint64 // 1 for the first event of the table, in both rings
	wall   uint64
	key    uint64
	what   uint64 // event 8 | frame length 20 | head length 8 | port 14 | old port 14; see wasStatic
	missed uint64
	head   [HeadLen]byte
}

// ring is a ring of records in the order they were made.
type ring struct {
	records []record
	next    int // the next to be written: the oldest one, once all are in use
	used    int // how many have been written; those behind have never been touched
}

// quota is what a port may still write into a ring.
type quota struct {
	second int64 // wall clock of the last record asked for
	left   int
	missed uint64 // records refused since the last one granted
}

// take grants a record, or counts it as missed. An eighth of the ring may be
// written at once, one record a second is given back; a wall clock that jumps
// back gives nothing.
func (q *quota) take(wall int64, burst int) bool {
	s := wall / int64(time.Second)
	switch {
	case q.second == 0:
		q.left = burst
	case s > q.second:
		q.left = int(min(int64(burst), int64(q.left)+s-q.second))
	}
	q.second = s
	if q.left == 0 {
		q.missed++
		return false
	}
	q.left--
	return true
}

// wasStatic stands in place of the frame that taught where an administrator did
// and the entry before was static: the record's frame length is then 1.
var wasStatic = &Teacher{Len: 1}

// before is what the record of an administrator's change remembers of w.
func before(w word) *Teacher {
	if w.static() {
		return wasStatic
	}
	return nil
}

// record writes one event. What an administrator does one by one is exempt from
// the quota.
func (t *Table) record(e Event, k Key, p, old frame.PortID, teach *Teacher) {
	wall := int64(0)
	if teach != nil {
		wall = teach.Wall
	}
	if wall == 0 {
		wall = time.Now().UnixNano()
	}
	ri := 0
	if e.change() {
		ri = 1
	}
	g, q := &t.rings[ri], &t.ports[p].quota[ri]
	if !e.administered() && !q.take(wall, len(g.records)/8) {
		return
	}

	r := &g.records[g.next]
	g.used = max(g.used, g.next+1)
	if g.next++; g.next == len(g.records) {
		g.next = 0
	}
	atomic.StoreUint64(&r.order, 0)
	t.didStore()
	size, head := 0, 0
	if teach != nil && (e.taught() || e.administered()) {
		size = min(teach.Len, 1<<20-1)
		head = copy(r.head[:], teach.Head)
	}
	r.wall, r.key, r.missed = uint64(wall), uint64(k), q.missed
	r.what = uint64(e) | uint64(size)<<8 | uint64(head)<<28 | uint64(p)<<36 | uint64(old)<<50
	q.missed = 0
	t.order++
	atomic.StoreUint64(&r.order, t.order)
	t.didStore()
}

func (r *record) event() Event       { return Event(r.what) }
func (r *record) headLen() int       { return int(r.what >> 28 & 0xff) }
func (r *record) port() frame.PortID { return frame.PortID(r.what >> 36 & 0x3fff) }
func (r *record) old() frame.PortID  { return frame.PortID(r.what >> 50) }
func (r *record) wasStatic() bool    { return r.what>>8&0xfffff != 0 }

// public is r as the caller sees it.
func (r *record) public() Record {
	k := Key(r.key)
	out := Record{
		Wall:   int64(r.wall),
		Event:  r.event(),
		VID:    k.VID(),
		MAC:    k.MAC(),
		Port:   r.port(),
		Old:    r.old(),
		Head:   slices.Clone(r.head[:r.headLen()]),
		Missed: r.missed,
	}
	if n := int(r.what >> 8 & 0xfffff); out.Event.administered() {
		out.Static = n != 0
	} else {
		out.Len = n
	}
	return out
}

// History returns the latest limit records, newest last.
func (t *Table) History(limit int) []Record {
	all := t.snapshot()
	return public(all[max(0, len(all)-max(0, limit)):])
}

// HistoryOf returns all records of one address in any VLAN, newest last.
func (t *Table) HistoryOf(m frame.MAC) []Record {
	return public(slices.DeleteFunc(t.snapshot(), func(r record) bool {
		return Key(r.key).MAC() != m
	}))
}

// latestStep is how many records Latest looks at before it lets others have the
// lock: some microseconds.
const latestStep = 1024

// Latest returns the newest record of k. It copies nothing else, and holds up
// those who learn for a step at a time.
func (t *Table) Latest(k Key) (Record, bool) {
	var found record
	for i := range t.rings {
		if r := t.latest(&t.rings[i], k); r.order > found.order {
			found = r
		}
	}
	if found.order == 0 {
		return Record{}, false
	}
	return found.public(), true
}

// latest looks through g from its newest record on. What is written meanwhile
// takes the place of the oldest ones.
func (t *Table) latest(g *ring, k Key) record {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := len(g.records)
	for n, at := 0, g.next; n < g.used; n++ {
		if at--; at < 0 {
			at = size - 1
		}
		if r := &g.records[at]; r.key == uint64(k) && r.order != 0 {
			return *r
		}
		if n%latestStep == latestStep-1 {
			t.mu.Unlock()
			t.mu.Lock()
		}
	}
	return record{}
}

func public(rs []record) []Record {
	out := make([]Record, len(rs))
	for i := range rs {
		out[i] = rs[i].public()
	}
	return out
}

// snapshot copies both rings, at most 3 MB, and brings them in order. Only the
// copying needs the lock.
func (t *Table) snapshot() []record {
	all := make([]record, 0, len(t.rings[0].records)+len(t.rings[1].records))
	t.mu.Lock()
	for i := range t.rings {
		g := &t.rings[i]
		all = append(all, g.records[:g.used]...)
	}
	t.mu.Unlock()
	all = slices.DeleteFunc(all, func(r record) bool { return r.order == 0 })
	slices.SortFunc(all, func(a, b record) int { return cmp.Compare(a.order, b.order) })
	return all
}

// resume finds where the rings of an earlier process end.
func (t *Table) resume() error {
	for i, name := range [...]string{"stations", "changes"} {
		g := &t.rings[i]
		g.used = g.measure()
		last := uint64(0)
		for j := range g.used {
			if o := g.records[j].order; o > last {
				last, g.next = o, (j+1)%len(g.records)
			}
		}
		if err := g.check(); err != nil {
			return fmt.Errorf("history of %s: %w; the memory is damaged", name, err)
		}
		t.order = max(t.order, last)
	}
	return nil
}

// measure returns how many records have ever been written, without reading far
// into those that have not. A single one of order 0 is one that a process was
// killed at.
func (g *ring) measure() int {
	n := len(g.records)
	if g.records[n-1].order != 0 {
		return n
	}
	for i := range n - 1 {
		if g.records[i].order == 0 && g.records[i+1].order == 0 {
			return i
		}
	}
	return n
}

// check reads the ring from its oldest record on.
func (g *ring) check() error {
	last := uint64(0)
	for i := range g.used {
		j := i
		if g.used == len(g.records) {
			j = (g.next + i) % g.used
		}
		r := &g.records[j]
		if r.order == 0 {
			continue
		}
		if r.order <= last {
			return fmt.Errorf("record %d: order %d behind %d", j, r.order, last)
		}
		last = r.order
		if e := r.event(); e == 0 || int(e) >= len(eventNames) || r.headLen() > HeadLen || !Key(r.key).valid() {
			return fmt.Errorf("record %d: no event", j)
		}
	}
	return nil
}
