package pathmtu_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/tunnel/pathmtu"
)

// path carries packets of at most size octets, of which the device lets out at
// most device, and loses some of what it carries.
type path struct {
	size, device int
	loss         float64
	rnd          *rand.Rand
	octets, sent int
}

// carry reports whether a probe of size octets is answered.
func (p *path) carry(size int) bool {
	p.sent++
	p.octets += size
	return size <= p.size && (p.loss == 0 || p.rnd.Float64() >= p.loss)
}

// round lets what is under way be answered or lost, and draws conclusions.
func (p *path) round(s *pathmtu.Search) {
	heard := p.carry(72)
	for {
		refused := false
		for _, size := range slices.Clone(s.Sizes()) {
			if int(size) > p.device {
				s.Refused(int(size))
				refused = true
			}
		}
		if !refused || !s.Resting() {
			break
		}
		s.Next(true)
	}
	for _, size := range slices.Clone(s.Sizes()) {
		if p.carry(int(size)) {
			s.Passed(int(size))
			heard = true
		}
	}
	s.Next(heard)
}

// settle runs rounds until the search rests and returns how many there were, and
// after how many the MTU was one that passes.
func (p *path) settle(t interface{ Fatalf(string, ...any) }, s *pathmtu.Search) (rounds, usable int) {
	for !s.Resting() {
		if s.MTU() > min(p.size, p.device) {
			usable = rounds + 1
		}
		p.round(s)
		if rounds++; rounds > 200 {
			t.Fatalf("no rest after %d rounds: %+v", rounds, *s)
		}
	}
	return rounds, usable
}

// TestFinds starts from any size on any path, and follows it through changes.
func TestFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(576, 65535)
		p := &path{size: size.Draw(t, "path"), device: size.Draw(t, "device")}
		var s pathmtu.Search
		start := rapid.IntRange(1, 70000).Draw(t, "start")
		s.Start(576, start, 0)
		if s.MTU() > 65535 || len(s.Sizes()) == 0 || !slices.IsSorted(s.Sizes()) {
			t.Fatalf("from %d: MTU %d, probes %v", start, s.MTU(), s.Sizes())
		}
		for range 5 {
			rounds, usable := p.settle(t, &s)
			want := min(p.size, p.device)
			if s.MTU() != want || rounds > 14 || usable > 8 {
				t.Fatalf("MTU %d after %d rounds, usable after %d; want %d", s.MTU(), rounds, usable, want)
			}
			p.size, p.device = size.Draw(t, "path"), size.Draw(t, "device")
			s.Ask()
			p.settle(t, &s)
			if s.MTU() > min(p.size, p.device) {
				t.Fatalf("MTU %d of a path of %d by a device of %d", s.MTU(), p.size, p.device)
			}
			s.Raise()
		}
	})
}

// TestBlackHole narrows an Ethernet path in silence: a size that passes is in
// force after three rounds, and the search is over a few rounds later.
func TestBlackHole(t *testing.T) {
	for _, size := range []int{1492, 1480, 1450, 1437, 1400, 1281, 1280, 1000, 700, 577, 576} {
		p := &path{size: 1500, device: 9000}
		var s pathmtu.Search
		s.Start(576, 1500, 0)
		p.settle(t, &s)
		p.size, p.octets, p.sent = size, 0, 0
		s.Ask()
		rounds, usable := p.settle(t, &s)
		t.Logf("%d: usable after %d rounds, found after %d, %d probes, %d octets", size, usable, rounds, p.sent, p.octets)
		limit := 3
		if size < 600 {
			limit = 5
		}
		if s.MTU() != size || usable > limit || rounds > 10 || p.octets > 100_000 {
			t.Errorf("path of %d: MTU %d, usable after %d rounds, over after %d, %d octets", size, s.MTU(), usable, rounds, p.octets)
		}
	}
}

// TestDevice tells the device's limit in the round that meets it, and more than
// that as soon as the device takes more.
func TestDevice(t *testing.T) {
	p := &path{size: 65535, device: 1500}
	var s pathmtu.Search
	s.Start(576, 1500, 0)
	if rounds, _ := p.settle(t, &s); rounds != 1 || s.MTU() != 1500 {
		t.Errorf("MTU %d after %d rounds, want 1500 after 1", s.MTU(), rounds)
	}
	p.device = 1400
	s.Ask()
	if rounds, usable := p.settle(t, &s); s.MTU() != 1400 || usable > 1 {
		t.Errorf("device lowered: MTU %d, usable after %d of %d rounds", s.MTU(), usable, rounds)
	}
	p.device = 9000
	s.Ask()
	if p.settle(t, &s); s.MTU() != 9000 {
		t.Errorf("device raised: MTU %d, want 9000", s.MTU())
	}
	p.size, p.device = 9000, 65535
	s.Ask()
	if rounds, _ := p.settle(t, &s); s.MTU() != 9000 || rounds > 1 {
		t.Errorf("device beyond the path: MTU %d after %d rounds, want 9000 after 1", s.MTU(), rounds)
	}
	if s.Ask(); len(s.Sizes()) != 1 {
		t.Errorf("at rest it probes %v, want the MTU alone", s.Sizes())
	}
}

// TestChanceIsNoNarrowPath loses a fifth of all round trips, as a wire that
// loses a tenth each way does, and asks as often as in an hour.
func TestChanceIsNoNarrowPath(t *testing.T) {
	for seed := range uint64(8) {
		p := &path{size: 1437, device: 1500, loss: 0.19, rnd: rand.New(rand.NewPCG(seed, 0))}
		var s pathmtu.Search
		s.Start(576, 1500, 0)
		p.settle(t, &s)
		wrong := 0
		for i := range 3600 {
			if s.Ask(); i%60 == 0 {
				s.Raise()
			}
			p.settle(t, &s)
			if s.MTU() != 1437 {
				wrong++
			}
		}
		if wrong > 4 {
			t.Errorf("seed %d: another MTU than 1437 in %d of 3600 intervals", seed, wrong)
		}
	}
}

// TestSilence concludes nothing from rounds that nothing answers.
func TestSilence(t *testing.T) {
	var s pathmtu.Search
	s.Start(576, 1500, 0)
	for range 100 {
		s.Next(false)
		if got := s.Sizes(); s.MTU() != 1500 || !slices.Equal(got, []uint16{1500}) {
			t.Fatalf("MTU %d, probes %v", s.MTU(), got)
		}
	}
}

// TestLimit never goes beyond it, whoever claims what.
func TestLimit(t *testing.T) {
	var s pathmtu.Search
	s.Start(576, 1500, 1500)
	if got := s.Sizes(); !slices.Equal(got, []uint16{1500}) {
		t.Errorf("probes %v", got)
	}
	s.Passed(9000)
	s.Passed(1500)
	if s.Next(true); s.MTU() != 1500 || !s.Resting() {
		t.Errorf("MTU %d, resting %v", s.MTU(), s.Resting())
	}
}

// TestLateAnswer raises the MTU whenever it comes.
func TestLateAnswer(t *testing.T) {
	p := &path{size: 1400, device: 1500}
	var s pathmtu.Search
	s.Start(576, 1500, 0)
	p.settle(t, &s)
	p.size = 1500
	s.Ask()
	s.Passed(1450)
	if p.settle(t, &s); s.MTU() != 1500 {
		t.Errorf("MTU %d, want 1500", s.MTU())
	}
}
