package capture

import (
	"container/heap"
	"time"
)

// maxHeld bounds the octets that are held back; beyond it packets come out early.
const maxHeld = 16 << 20

// order holds packets back for a while, so that those of several sources come
// out by their time: the kernel's packets are stamped when it has them, and read
// later than the switch's own are seen.
type order struct {
	window time.Duration
	queue  ordered
	taken  uint64
	octets int
}

// held is a packet that waits, with octets of its own.
type held struct {
	Packet
	number uint64 // packets of one time keep the order in which they came
}

// put takes a packet.
func (o *order) put(p *Packet) {
	h := held{Packet: *p, number: o.taken}
	h.Data = append([]byte(nil), p.Data...)
	o.taken++
	o.octets += len(h.Data)
	heap.Push(&o.queue, h)
}

// next returns the earliest packet when it is older than the window at now, or
// all is true; nil when there is none.
func (o *order) next(now time.Time, all bool) *Packet {
	if len(o.queue) == 0 || !all && o.octets <= maxHeld && now.Sub(o.queue[0].Time) < o.window {
		return nil
	}
	h := heap.Pop(&o.queue).(held)
	o.octets -= len(h.Data)
	return &h.Packet
}

// ordered implements heap.Interface.
type ordered []held

func (q ordered) Len() int      { return len(q) }
func (q ordered) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q ordered) Less(i, j int) bool {
	if q[i].Time.Equal(q[j].Time) {
		return q[i].number < q[j].number
	}
	return q[i].Time.Before(q[j].Time)
}

func (q *ordered) Push(x any) { *q = append(*q, x.(held)) }

func (q *ordered) Pop() any {
	last := len(*q) - 1
	h := (*q)[last]
	(*q)[last] = held{}
	*q = (*q)[:last]
	return h
}
