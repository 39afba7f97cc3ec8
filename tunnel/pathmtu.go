package tunnel

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// confirmEvery is how often the present size is shown to pass still, and
	// raiseEvery how often a larger one is tried, in intervals.
	confirmEvery = 5
	raiseEvery   = 60
	// A size has failed when so many probes of it were lost, each at least half
	// an interval ago, while smaller ones got through.
	maxTries = 3
	// Nobody's path is narrower (RFC 791 clause 3.1, RFC 8200 clause 5).
	floorIPv4 = 576
	floorIPv6 = 1280
	// maxPacket is the longest IPv4 packet that one datagram makes.
	maxPacket = 65535
)

// plateaus are packet sizes that real paths have: Ethernet with and without
// tunnels in it, jumbo frames, cloud networks. What they miss is found by halving.
var plateaus = [...]int{65535, 16110, 9216, 9001, 9000, 8951, 4352, 1500, 1492, 1480, 1476, 1460, 1450, 1442, 1430, 1420, 1400, 1380, 1280}

// search is the state of finding a path's MTU. Sizes are of the outer packet.
type search struct {
	good int // passes; what is sent at most
	low  int // lower end of the search: passes
	bad  int // does not
	size int // being probed, 0 = none
	seq  uint32
	sent time.Time
	// tries is how often size was sent and lost.
	tries   int
	stepped bool // one octet more than low has been tried: the device's own limit is told at once
	confirm time.Time
	raise   time.Time
}

// pick is the next size to try, 0 when the answer is known.
func (s *search) pick() int {
	if s.bad-s.low <= 1 {
		return 0
	}
	if !s.stepped {
		s.stepped = true
		return s.low + 1
	}
	for _, p := range plateaus {
		if p < s.bad && p > s.low {
			return p
		}
	}
	return (s.low + s.bad) / 2
}

// pass notes that s.size passes. When a step of one octet does, larger ones
// follow.
func (s *search) pass() {
	s.stepped = s.stepped && s.size == s.low+1
	s.low, s.size, s.tries = s.size, 0, 0
}

// fail notes that s.size does not. A former size that no longer passes leaves
// the search to begin from the floor, from above.
func (s *search) fail(floor int) {
	if s.bad = s.size; s.low >= s.bad {
		s.low, s.stepped = floor, true
	}
	s.size, s.tries = 0, 0
}

// passed takes the answer to the probe under way.
func (t *Tunnel) passed(p *Peer) {
	s := &p.tended.search
	s.pass()
	t.settle(p, s.low)
	t.measure(p)
}

// settle makes size the path MTU of p and tells, if that is new.
func (t *Tunnel) settle(p *Peer, size int) {
	s := &p.tended.search
	if s.good == size {
		return
	}
	s.good = size
	if inner := int32(p.link().InnerMTU(size)); p.inner.Swap(inner) != inner {
		t.pending = append(t.pending, Event{t.now, p.status()})
	}
}

// measure goes on with the search for p's path MTU as far as can be done now. A
// peer that answers no probe is taken to get whatever the kernel lets out, up
// to the underlay's MTU. While a path has become narrower the former size stays
// until a smaller one is shown to pass: a station told too small a size would
// keep to it for minutes.
func (t *Tunnel) measure(p *Peer) {
	l := &p.tended
	s := &l.search
	if l.state == Down {
		return
	}
	floor, headers := floorIPv4, 28
	if p.link().IPv6 {
		floor, headers = floorIPv6, 48
	}
	if s.good == 0 {
		s.good = t.o.UnderlayMTU
		t.begin(p, s)
	}
	if p.stuck.Swap(false) && s.size == 0 {
		t.begin(p, s)
	}
	for range 64 {
		if s.size != 0 && s.tries > 0 {
			if wait := t.o.Interval / 2; t.now.Sub(s.sent) < wait || l.answered.Before(s.sent) {
				return
			}
			if s.tries == maxTries {
				s.fail(floor)
			}
		}
		if s.size == 0 && !t.choose(p, s) {
			return
		}
		seq, errno := t.probe(p, s.size-headers)
		s.seq, s.sent = seq, t.now
		switch {
		case errno == unix.EMSGSIZE:
			s.fail(floor)
		case !l.answering && errno != 0:
			return // the next tick tries again
		case !l.answering:
			s.pass()
			t.settle(p, s.low)
		default:
			s.tries++
			_, _ = t.probe(p, messageLen) // tells loss of large ones from loss of all
			return
		}
	}
}

// begin starts the search anew from the present size.
func (t *Tunnel) begin(p *Peer, s *search) {
	s.low, s.bad, s.size, s.tries, s.stepped = s.good, maxPacket+1, s.good, 0, false
	if !p.tended.answering {
		s.size = max(s.good, t.o.UnderlayMTU)
		s.low = s.size
		s.bad = s.size + 1
	}
	s.confirm = t.now.Add(confirmEvery * t.o.Interval)
	s.raise = t.now.Add(raiseEvery * t.o.Interval)
}

// choose sets the next size to probe, or reports that none is due. When the
// search is over, low is the path MTU.
func (t *Tunnel) choose(p *Peer, s *search) bool {
	if s.size = s.pick(); s.size != 0 {
		return true
	}
	switch {
	case !t.now.Before(s.raise):
		t.begin(p, s)
	case !t.now.Before(s.confirm) && p.tended.answering:
		s.size = s.good
		s.confirm = t.now.Add(confirmEvery * t.o.Interval)
	default:
		return false
	}
	return true
}
