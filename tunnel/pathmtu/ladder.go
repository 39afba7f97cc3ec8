package pathmtu

import "slices"

// maxRungs is how many sizes a ladder has at most, and maxPlateaus how many of
// them are common ones.
const (
	maxRungs    = 8
	maxPlateaus = 6
)

// plateaus are packet sizes that real paths have: jumbo frames, cloud networks,
// Ethernet with and without tunnels in it. What they miss is found by division.
var plateaus = [...]int32{
	65535, 16110, 9216, 9001, 9000, 8951, 4352, 1500, 1492, 1480, 1476, 1460, 1450, 1442, 1430, 1420, 1400, 1380, 1280,
}

// ladder adds up to n sizes between low and high to the round, both exclusive,
// the shortest first. All of them when they are so few; else the next one to
// low, which ends the search if it is lost, some that real paths have, and
// divisions of the way for the rest.
func (s *Search) ladder(low, high int32, n int) {
	first := s.n
	room := min(n, maxSizes-int(first))
	if int(high-low-1) <= room {
		for size := low + 1; size < high; size++ {
			s.add(size)
		}
		return
	}
	if low > s.floor {
		s.add(low + 1)
	}
	s.common(low+1, high)
	left := int32(room - int(s.n-first))
	for i := int32(1); i <= left; i++ {
		if size := low + (high-low)*i/(left+1); !slices.Contains(s.round[first:s.n], uint16(size)) {
			s.add(size)
		}
	}
	slices.Sort(s.round[first:s.n])
}

// common adds plateaus between low and high, both exclusive: the longest and
// others spread evenly below it.
func (s *Search) common(low, high int32) {
	var from, to int
	for from < len(plateaus) && plateaus[from] >= high {
		from++
	}
	for to = from; to < len(plateaus) && plateaus[to] > low; {
		to++
	}
	fit := plateaus[from:to]
	n := min(len(fit), maxPlateaus)
	for i := range n {
		s.add(fit[i*len(fit)/n])
	}
}
