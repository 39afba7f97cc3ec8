package vswitch

import (
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Storm classes, indices of a port's limits and buckets.
const (
	classBroadcast = iota
	classUnknown
	classMulticast
	numClasses
)

// stormTellEvery is the shortest time between two told storms of one port.
const stormTellEvery = 10 * time.Second

// bucket is a token bucket that holds an eighth of a second's tokens, at least
// one. It may go into debt by one frame, so that a GSO frame of many segments
// passes when nothing else does, and is paid for afterwards.
type bucket struct {
	tokens float64
	filled time.Duration
	used   bool
}

// take pays n tokens of rate a second, or reports false.
//
// Hot path: no allocation.
func (b *bucket) take(now time.Duration, rate uint32, n int) bool {
	full := max(float64(rate)/8, 1)
	if !b.used {
		b.used, b.tokens, b.filled = true, full, now
	}
	b.tokens = min(full, b.tokens+(now-b.filled).Seconds()*float64(rate))
	b.filled = now
	if b.tokens < 0.5 {
		return false
	}
	b.tokens -= float64(n)
	return true
}

// frames is how many frames f puts on the wire.
func frames(f *frame.Frame) int {
	if f.GSO.Type == frame.GSONone || f.GSO.Size == 0 {
		return 1
	}
	n := len(f.Data) - int(f.GSO.HdrLen)
	return max(1, (n+int(f.GSO.Size)-1)/int(f.GSO.Size))
}

// admit says why a frame that is to be flooded must not be, or ReasonNone. It
// is where storm control and loop guard keep their state, apart from decide.
//
// Hot path: no allocation.
func (l *loop) admit(in *port, f *frame.Frame, h *frame.Header, d *frame.Verdict, from *port) frame.Reason {
	if in.state.fence.cut.Load() {
		return frame.Loop // since an earlier frame of this batch
	}
	if in.guarded && from == nil && l.sw.guard.hears(l, in, f, h, d.VID) {
		return frame.Loop
	}
	class := classOf(d.Reason)
	rate := in.storm[class]
	if rate == 0 || in.state.buckets[class].take(l.now, rate, frames(f)) {
		return frame.ReasonNone
	}
	if s := in.state; s.stormTold == 0 || l.now-s.stormTold >= stormTellEvery {
		s.stormTold = l.now
		l.sw.emit(Event{Time: l.wall, Kind: EventStorm, Port: in.id, VID: d.VID, MAC: h.Src, Class: d.Reason})
	}
	return frame.Storm
}

// foresee says what admit would, and changes nothing. Left is how many frames of
// the class storm control would let pass at this instant; it has no meaning
// where the port has no limit.
func (l *loop) foresee(in *port, f *frame.Frame, h *frame.Header, d *frame.Verdict, from *port) (why frame.Reason, left int) {
	if in.state.fence.cut.Load() || in.guarded && from == nil && l.sw.guard.foresees(l, in, f, h, d.VID) {
		return frame.Loop, 0
	}
	class := classOf(d.Reason)
	b := in.state.buckets[class]
	if rate := in.storm[class]; rate != 0 && !b.take(l.now, rate, 0) {
		return frame.Storm, 0
	}
	return frame.ReasonNone, max(1, int(b.tokens))
}

// classOf is the storm class of a frame that is to be flooded.
func classOf(r frame.Reason) int {
	switch r {
	case frame.BroadcastAddr:
		return classBroadcast
	case frame.MulticastAddr:
		return classMulticast
	}
	return classUnknown
}

// guard finds loops without sending a frame of its own.
//
// A flooded frame is remembered by a hash of its addresses, its network, its
// first octets and its length, together with the port it came in by. The same
// frame heard within echoWindow on another port is an echo: either our own copy
// has come back, or the station has moved and says the same again. One echo is
// no proof, but a loop brings them without end, and a station that moves brings
// one a move. A port that collects its threshold of echoes, one of which is
// forgiven each second, is cut in both directions.
//
// What is repeated on the same port is no echo: ARP retries of a station, a
// hairpin neighbour. Nor is what decide takes for a sibling's frame that an
// uplink reflects.
//
// Two switches with guards see one loop at the same instant. Each draws its
// delay and its waiting times at random, so that one cuts first; that breaks
// the loop, and the other hears no more. Right after a cut nothing is
// counted for guardQuiet, while frames that are still under way die out, so
// that the next port is not cut for them.
//
// A cut lasts about cutFirst. Then the port is tried again; a further cut
// soon after lasts twice as long, up to cutLongest.
//
// Limits: a loop is found only when frames are flooded into it; a device in the
// loop that rewrites frames (a router, a bridge between two networks) hides
// it, and is no layer-2 loop; a port that echoes fewer than one flooded frame a
// second is not cut; when two switches draw delays within a few milliseconds of
// each other, both may cut, each another wire, and are apart until the first
// of them tries again.
type guard struct {
	seed  maphash.Seed
	seen  [echoSlots]atomic.Uint64 // hash 32 | port 14 | milliseconds 18, high to low
	quiet atomic.Int64             // nanoseconds: earlier floods are forgotten

	mu   sync.Mutex
	cuts []*fence
}

const (
	echoSlots     = 4096
	echoWindow    = 500 * time.Millisecond
	echoHead      = 64 // octets behind the Ethernet header that are hashed
	echoThreshold = 4
	echoDelay     = 400 * time.Millisecond // at most, chosen at random for each cut
	guardQuiet    = 200 * time.Millisecond
	cutFirst      = 10 * time.Second
	cutLongest    = 10 * time.Minute

	msMask = 1<<18 - 1
)

func newGuard() *guard { return &guard{seed: maphash.MakeSeed()} }

// echoScore is how near a port is to being cut. Its receiving loop owns it.
type echoScore struct {
	n        int
	forgiven time.Duration
	due      time.Duration // when an echo cuts the port, once there are enough; 0 = not enough
}

// fence is what cuts a port. The loop that cuts sets it, the ageing goroutine
// takes it down.
type fence struct {
	cut atomic.Bool
	// Below: guard.mu.
	port   frame.PortID
	hold   time.Duration
	until  time.Duration
	opened time.Duration
}

// hears notes a frame that is about to be flooded and reports whether in must
// not hear it, because it has just been cut.
//
// Hot path: no allocation.
func (g *guard) hears(l *loop, in *port, f *frame.Frame, h *frame.Header, vid frame.VID) bool {
	slot, mark, echo := g.look(l.now, in, f, h, vid)
	if slot == nil {
		return false
	}
	slot.Store(mark)
	if !echo || !in.state.echo.add(l.now) {
		return false
	}
	g.cutOff(l, in, vid, h.Src)
	return true
}

// foresees reports what hears would, and notes nothing.
func (g *guard) foresees(l *loop, in *port, f *frame.Frame, h *frame.Header, vid frame.VID) bool {
	_, _, echo := g.look(l.now, in, f, h, vid)
	score := in.state.echo
	return echo && score.add(l.now)
}

// look finds where a frame is remembered and the mark that is to stand there,
// and reports whether it is an echo. There is no slot while nothing is counted.
//
// Hot path: no allocation.
func (g *guard) look(now time.Duration, in *port, f *frame.Frame, h *frame.Header, vid frame.VID) (slot *atomic.Uint64, mark uint64, echo bool) {
	quiet := time.Duration(g.quiet.Load())
	if now < quiet {
		return nil, 0, false
	}
	b := f.Data[h.Len:]
	b = b[:min(len(b), echoHead)]
	sum := maphash.Bytes(g.seed, f.Data[:12]) ^ maphash.Bytes(g.seed, b)*3 ^
		(uint64(len(f.Data)-h.Len)<<28|uint64(vid)<<16|uint64(h.EtherType))*0x9e3779b97f4a7c15
	slot = &g.seen[sum%echoSlots]
	ms := uint64(now/time.Millisecond) & msMask
	mark = sum&^(1<<32-1) | uint64(in.id)<<18 | ms
	was := slot.Load()
	if was == 0 || (was^sum)>>32 != 0 || frame.PortID(was>>18&0x3fff) == in.id {
		return slot, mark, false
	}
	age := time.Duration((ms-was)&msMask) * time.Millisecond
	return slot, mark, age <= echoWindow && age <= now-quiet
}

// add counts one echo and reports whether the port is to be cut for it.
func (e *echoScore) add(now time.Duration) bool {
	if forgive := int((now - e.forgiven) / time.Second); forgive > 0 {
		e.n = max(0, e.n-forgive)
		e.forgiven = now
	}
	if e.n = min(e.n+1, echoThreshold+1); e.n < echoThreshold {
		e.due = 0
		return false
	}
	if e.due == 0 {
		e.due = now + rand.N(echoDelay)
	}
	if now < e.due {
		return false
	}
	*e = echoScore{forgiven: now}
	return true
}

// cutOff cuts p and says so.
func (g *guard) cutOff(l *loop, p *port, vid frame.VID, src frame.MAC) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &p.state.fence
	if c.hold == 0 || l.now-c.opened > 4*c.hold {
		c.hold = cutFirst
	} else {
		c.hold = min(2*c.hold, cutLongest)
	}
	c.port = p.id
	wait := c.hold + rand.N(c.hold/4)
	c.until = l.now + wait
	c.cut.Store(true)
	g.quiet.Store(int64(l.now + guardQuiet))
	g.cuts = append(g.cuts, c)
	l.sw.emit(Event{Time: l.wall, Kind: EventLoopCut, Port: p.id, VID: vid, MAC: src, For: wait})
}

// open takes down the fences whose time is over and returns their ports.
func (g *guard) open(now time.Duration) []frame.PortID {
	g.mu.Lock()
	defer g.mu.Unlock()
	var ids []frame.PortID
	left := g.cuts[:0]
	for _, c := range g.cuts {
		if now < c.until {
			left = append(left, c)
			continue
		}
		c.opened = now
		c.cut.Store(false)
		ids = append(ids, c.port)
	}
	clear(g.cuts[len(left):])
	g.cuts = left
	return ids
}
