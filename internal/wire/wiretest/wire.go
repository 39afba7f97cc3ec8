package wiretest

import (
	"container/heap"
	"encoding/binary"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// Link is how bad one way of a wire is. The zero Link is perfect.
type Link struct {
	// Probabilities, 0 to 1.
	Loss      float64
	Duplicate float64 // delivered twice, one behind the other
	Corrupt   float64 // one bit flipped
	Reorder   float64 // held back by HoldBack, so that others overtake

	Delay    time.Duration
	Jitter   time.Duration // added to Delay, 0 to Jitter; keeps the order
	HoldBack time.Duration // 0 = 10 ms
	Rate     int           // octets a second; 0 = without limit
	Queue    int           // octets under way at most; 0 = 4 MiB
	Longest  int           // octets of a packet that passes; longer ones vanish without a word; 0 = any
}

// Counts is what a way has done, in packets.
type Counts struct {
	Offered    uint64 // read from the sending end
	Lost       uint64 // by Loss
	Cut        uint64 // while the wire was cut
	Full       uint64 // by Queue
	TooLong    uint64 // by Longest
	Duplicated uint64 // additional copies
	Corrupted  uint64 // delivered, but not as they were
	Reordered  uint64 // held back
	Refused    uint64 // by the receiving end
	Delivered  uint64
	Held       uint64 // under way
	Missed     uint64 // never offered: the sending end had no room for them
}

// Plus is the sum of both.
func (c Counts) Plus(d Counts) Counts {
	return Counts{
		c.Offered + d.Offered, c.Lost + d.Lost, c.Cut + d.Cut, c.Full + d.Full, c.TooLong + d.TooLong, c.Duplicated + d.Duplicated,
		c.Corrupted + d.Corrupted, c.Reordered + d.Reordered, c.Refused + d.Refused, c.Delivered + d.Delivered, c.Held + d.Held, c.Missed + d.Missed,
	}
}

// Missing is how many copies the law of conservation doesn't account for: 0.
func (c Counts) Missing() int {
	return int(c.Offered + c.Duplicated - c.Lost - c.Cut - c.Full - c.TooLong - c.Refused - c.Delivered - c.Held)
}

// Way is a direction.
type Way int

// Ways.
const (
	AToB Way = iota
	BToA
)

// Wire joins two ends.
type Wire struct {
	ends [2]io.ReadWriteCloser
	ways [2]*way
	done chan struct{}
	once sync.Once
	run  sync.WaitGroup
}

// Join starts to carry packets between a and b, which the wire closes.
func Join(a, b io.ReadWriteCloser, seed uint64) *Wire {
	w := &Wire{ends: [2]io.ReadWriteCloser{a, b}, done: make(chan struct{})}
	for i := range w.ways {
		v := &way{wake: make(chan struct{}, 1), rnd: rand.New(rand.NewPCG(seed, uint64(i)))}
		w.ways[i] = v
		from, to := w.ends[i], w.ends[1-i]
		if e, ok := from.(interface{ Missed() uint64 }); ok {
			v.missed = e.Missed
		}
		w.run.Go(func() { v.read(from) })
		w.run.Go(func() { v.deliver(to, w.done) })
	}
	return w
}

// Set makes both ways as bad as l from now on.
func (w *Wire) Set(l Link) {
	w.SetWay(AToB, l)
	w.SetWay(BToA, l)
}

// SetWay makes one way as bad as l from now on.
func (w *Wire) SetWay(d Way, l Link) {
	v := w.ways[d]
	v.mu.Lock()
	defer v.mu.Unlock()
	v.link = l
}

// Cut parts the ends, or joins them again. What is under way arrives.
func (w *Wire) Cut(on bool) {
	w.CutWay(AToB, on)
	w.CutWay(BToA, on)
}

// CutWay is Cut for one way.
func (w *Wire) CutWay(d Way, on bool) {
	v := w.ways[d]
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cut = on
}

// Counts is what one way has done so far.
func (w *Wire) Counts(d Way) Counts {
	v := w.ways[d]
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.counts
	c.Held = uint64(len(v.queue)) + v.writing
	if v.missed != nil {
		c.Missed = v.missed()
	}
	return c
}

// Hash stands for the fates of all packets of one way so far, in order.
func (w *Wire) Hash(d Way) uint64 {
	v := w.ways[d]
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.hash
}

// Close stops the wire and closes its ends. It is idempotent.
func (w *Wire) Close() error {
	var err error
	w.once.Do(func() {
		close(w.done)
		for _, e := range w.ends {
			if e := e.Close(); err == nil {
				err = e
			}
		}
		w.run.Wait()
	})
	return err
}

const (
	maxPacket       = 1 << 17
	defaultQueue    = 4 << 20
	defaultHoldBack = 10 * time.Millisecond
)

// way is one direction.
type way struct {
	wake   chan struct{} // something earlier is due
	missed func() uint64 // of the sending end; nil = it doesn't know

	mu      sync.Mutex
	rnd     *rand.Rand
	link    Link
	cut     bool
	counts  Counts
	hash    uint64
	queue   packets
	octets  int       // in queue
	writing uint64    // 1 while a packet is with the receiving end
	serial  uint64    // of the packet offered last
	busy    time.Time // until when the wire is taken, by Rate
	last    time.Time // when the last packet in order is due
}

// read takes packets until the end is closed.
func (v *way) read(from io.Reader) {
	b := make([]byte, maxPacket)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		v.offer(b[:n])
	}
}

// fate is what becomes of one packet.
type fate struct {
	Lost, Duplicate, Corrupt, Reorder bool
	Bit                               uint64 // to flip, modulo the packet's bits
	Jitter                            time.Duration
}

// draw takes the same amount of randomness for every packet, so that a change
// of the Link changes no later packet's luck.
func (v *way) draw() fate {
	l := &v.link
	f := fate{
		Lost:      v.rnd.Float64() < l.Loss,
		Duplicate: v.rnd.Float64() < l.Duplicate,
		Corrupt:   v.rnd.Float64() < l.Corrupt,
		Reorder:   v.rnd.Float64() < l.Reorder,
		Bit:       v.rnd.Uint64(),
		Jitter:    time.Duration(v.rnd.Float64() * float64(l.Jitter)),
	}
	h := fnv.New64a()
	// Writing fixed-size values to a hash does not fail.
	_ = binary.Write(h, binary.BigEndian, v.hash)
	_ = binary.Write(h, binary.BigEndian, &f)
	_ = binary.Write(h, binary.BigEndian, v.cut)
	v.hash = h.Sum64()
	return f
}

func (v *way) offer(b []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := &v.counts
	c.Offered++
	f := v.draw()
	switch {
	case v.cut:
		c.Cut++
		return
	case v.link.Longest > 0 && len(b) > v.link.Longest:
		c.TooLong++
		return
	case f.Lost:
		c.Lost++
		return
	}
	copies := 1
	if f.Duplicate {
		copies = 2
		c.Duplicated++
	}
	due := v.due(f, len(b)*copies)
	data := append([]byte(nil), b...)
	if f.Corrupt && len(data) > 0 {
		bit := f.Bit % uint64(len(data)*8)
		data[bit/8] ^= 0x80 >> (bit % 8)
	}
	limit := v.link.Queue
	if limit == 0 {
		limit = defaultQueue
	}
	for range copies {
		if v.octets+len(data) > limit {
			c.Full++
			continue
		}
		v.serial++
		v.octets += len(data)
		heap.Push(&v.queue, packet{due: due, serial: v.serial, data: data, corrupt: f.Corrupt, late: f.Reorder})
	}
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// due is when a packet of n octets arrives.
func (v *way) due(f fate, n int) time.Time {
	at := time.Now()
	if v.link.Rate > 0 {
		if v.busy.After(at) {
			at = v.busy
		}
		at = at.Add(time.Duration(float64(n) / float64(v.link.Rate) * float64(time.Second)))
		v.busy = at
	}
	at = at.Add(v.link.Delay + f.Jitter)
	if f.Reorder {
		back := v.link.HoldBack
		if back == 0 {
			back = defaultHoldBack
		}
		return at.Add(back)
	}
	if at.Before(v.last) {
		at = v.last
	}
	v.last = at
	return at
}

// deliver writes packets when they are due, until done.
func (v *way) deliver(to io.Writer, done <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		p, wait := v.next()
		if p == nil {
			if wait > 0 {
				timer.Reset(wait)
			}
			select {
			case <-timer.C:
			case <-v.wake:
			case <-done:
				return
			}
			continue
		}
		_, err := to.Write(p.data)
		v.delivered(p, err)
	}
}

// next takes the packet that is due; without one it tells how long to wait, 0
// when nothing is under way.
func (v *way) next() (*packet, time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.queue) == 0 {
		return nil, 0
	}
	if wait := time.Until(v.queue[0].due); wait > 0 {
		return nil, wait
	}
	p := heap.Pop(&v.queue).(packet)
	v.octets -= len(p.data)
	v.writing = 1
	return &p, 0
}

func (v *way) delivered(p *packet, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.writing = 0
	if err != nil {
		v.counts.Refused++
		return
	}
	v.counts.Delivered++
	if p.corrupt {
		v.counts.Corrupted++
	}
	if p.late {
		v.counts.Reordered++
	}
}

// packet is one copy under way.
type packet struct {
	due           time.Time
	serial        uint64
	data          []byte
	corrupt, late bool
}

// packets is a heap by the time due, then by order of arrival.
type packets []packet

func (q packets) Len() int      { return len(q) }
func (q packets) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q packets) Less(i, j int) bool {
	if q[i].due.Equal(q[j].due) {
		return q[i].serial < q[j].serial
	}
	return q[i].due.Before(q[j].due)
}
func (q *packets) Push(x any) { *q = append(*q, x.(packet)) }
func (q *packets) Pop() any {
	old := *q
	p := old[len(old)-1]
	old[len(old)-1] = packet{}
	*q = old[:len(old)-1]
	return p
}
