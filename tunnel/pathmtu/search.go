package pathmtu

const (
	// maxSizes bounds a round: a ladder and three copies of the present size.
	maxSizes = maxRungs + copies
	// copies of the present size go with each ladder below it.
	copies = 3
	// enough rounds that lost the present size lower the MTU: 1 + 3 + 3 probes.
	enough = 3
	// maxTries is how often a bound that was found by loss is tried again.
	maxTries = 2
	// maxPacket is the longest packet that there is.
	maxPacket = 65535
)

// Search is the state of one path. Sizes are of IP packets, in octets. The zero
// Search has nothing to probe; Start begins.
type Search struct {
	floor int32 // taken to pass
	mtu   int32 // the result so far
	low   int32 // longest shown to pass in this search
	soft  int32 // shortest beyond low that was lost in it
	high  int32 // shortest that does not pass
	limit int32 // never more than this

	missed  uint8 // rounds in a row that lost mtu
	tries   uint8 // of soft
	raising bool  // looks for more than mtu
	device  bool  // high is what the device refused
	n       uint8
	round   [maxSizes]uint16 // on the way
}

// Start begins a search from size, which is the MTU until probes show another;
// no IP packet is longer than 65,535 octets, though an interface may be. No path
// is taken to be narrower than floor, and none is found wider than limit; 0 =
// any.
func (s *Search) Start(floor, size, limit int) {
	size = min(size, maxPacket)
	if limit <= 0 || limit > maxPacket {
		limit = maxPacket
	}
	*s = Search{floor: int32(min(floor, size)), mtu: int32(size), limit: int32(max(limit, size))}
	s.Raise()
}

// MTU is the longest packet that is to be sent.
func (s *Search) MTU() int { return int(s.mtu) }

// Resting reports whether no round is under way.
func (s *Search) Resting() bool { return s.n == 0 }

// Sizes are those of the round that is under way, the shortest first. They are
// valid until the next call of another method.
func (s *Search) Sizes() []uint16 { return s.round[:s.n] }

// Ask begins a round that shows whether the MTU still passes. When only the
// device stood in the way of more, one octet more is tried too, which costs
// nothing as long as it still does.
func (s *Search) Ask() {
	s.low, s.missed, s.n = s.floor, 0, 0
	s.add(s.mtu)
	if s.device && s.mtu < s.limit {
		s.device = false
		s.add(s.mtu + 1)
	}
}

// Raise begins a round that looks for a larger MTU too.
func (s *Search) Raise() {
	s.low, s.missed, s.tries, s.n = s.floor, 0, 0, 0
	s.raising, s.device = true, false
	s.high = s.limit + 1
	s.soft = s.high
	s.add(s.mtu)
	s.ladder(s.mtu, s.high, maxRungs)
}

// Passed notes that a packet of size octets has been answered, of whichever
// round.
func (s *Search) Passed(size int) {
	n := int32(size)
	if n <= s.low || n > s.limit {
		return
	}
	s.low, s.tries = n, 0
	if n >= s.high {
		s.high, s.raising, s.device = s.limit+1, true, false
	}
}

// Refused notes that the device does not take a packet of size octets, and takes
// the size out of the round.
func (s *Search) Refused(size int) {
	n := int32(size)
	if n <= s.high {
		s.high, s.device = n, true
	}
	s.soft = min(s.soft, s.high)
	if n <= s.mtu {
		s.missed = enough
	}
	if s.low >= n {
		s.low = s.floor
	}
	kept := uint8(0)
	for _, r := range s.round[:s.n] {
		if int32(r) != n {
			s.round[kept] = r
			kept++
		}
	}
	s.n = kept
}

// Next draws the conclusions of the round: what was not answered by now is lost.
// It begins the next round, unless the Search rests. Heard says whether anything
// was answered, the short packet included.
func (s *Search) Next(heard bool) {
	if !heard {
		s.n = 0
		s.add(s.mtu)
		return
	}
	if s.low >= s.soft {
		s.soft = s.high
	}
	lost := false
	for _, r := range s.round[:s.n] {
		if n := int32(r); n > s.low {
			s.soft = min(s.soft, n)
			lost = lost || n == s.mtu
		}
	}
	s.n = 0
	if s.low >= s.mtu {
		s.missed, s.mtu = 0, s.low
		s.refine()
		return
	}
	if lost {
		s.missed = min(s.missed+1, enough)
	}
	// A size that nobody has shown to pass isn't taken while others are left: a
	// station that is told too small a size keeps to it for minutes.
	if s.missed < enough || s.low == s.floor && s.soft-s.floor > 1 {
		s.doubt()
		return
	}
	// Should it have been chance after all, the search finds its way up again:
	// soft is no more than the former size, and high is beyond it.
	s.mtu, s.missed, s.raising = s.low, 0, true
	s.refine()
}

// doubt makes a round of sizes below the present one, and of that one.
func (s *Search) doubt() {
	s.ladder(s.low, min(s.soft, s.mtu), maxRungs)
	for range copies {
		if s.mtu < s.high {
			s.add(s.mtu)
		}
	}
}

// refine makes a round between what passes and what was lost, and one about
// that bound when they have met. Then the search is over.
func (s *Search) refine() {
	switch {
	case s.raising && s.soft-s.low > 1:
		s.ladder(s.low, s.soft, maxRungs)
	case s.raising && s.soft < s.high && s.tries < maxTries:
		s.tries++
		s.add(s.soft)
		s.add(s.soft)
		s.ladder(s.soft, s.high, maxRungs-2)
	default:
		s.raising = false
		s.device = s.device && s.high == s.mtu+1
		s.high = s.mtu + 1
		s.soft = s.high
	}
}

// add puts a size into the round.
func (s *Search) add(n int32) {
	s.round[s.n] = uint16(n)
	s.n++
}
