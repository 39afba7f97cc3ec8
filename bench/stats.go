package bench

import (
	"math"
	"slices"
)

// median is the middle of xs, or the mean of the middle two; NaN of none.
func median(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(xs))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// Sample is one measured figure and what it cost.
type Sample struct {
	Value       float64 `json:"value"`                  // in the row's unit
	SwitchCPU   float64 `json:"switch_cpu,omitempty"`   // seconds of the switch's processes a GB or a million datagrams
	SystemCPU   float64 `json:"system_cpu,omitempty"`   // busy seconds of the whole machine for the same
	Retransmits float64 `json:"retransmits,omitempty"`  // TCP segments
	Offered     float64 `json:"offered_mpps,omitempty"` // million datagrams a second that the sender sent
	P99         float64 `json:"p99_us,omitempty"`       // µs, where Value is the median
	Lost        float64 `json:"lost,omitempty"`         // round trips without an answer
	Keeper      float64 `json:"keeper,omitempty"`       // of Value, the keeper's part
	StartS      float64 `json:"start_s,omitempty"`      // from the start of the switch to "ready"
	FileMB      float64 `json:"file_mb,omitempty"`      // of Value, pages of the program's file, counted for each process
	SharedMB    float64 `json:"shared_mb,omitempty"`    // of Value, shared memory: the filtering database
	LearnRate   float64 `json:"learn_m_s,omitempty"`    // million stations a second learned meanwhile
	BareRead    float64 `json:"bare_read_ns,omitempty"` // a random read of as much memory
}

// Round is one round of a workload. Base is absent where nothing is compared.
type Round struct {
	Base *Sample `json:"base,omitempty"`
	Ours Sample  `json:"ours"`
}

// ours takes one figure of every round, of the switch.
func ours(rounds []Round, f func(Sample) float64) float64 {
	var xs []float64
	for _, r := range rounds {
		xs = append(xs, f(r.Ours))
	}
	return median(xs)
}

// base is ours for what the switch is compared with.
func base(rounds []Round, f func(Sample) float64) float64 {
	var xs []float64
	for _, r := range rounds {
		if r.Base != nil {
			xs = append(xs, f(*r.Base))
		}
	}
	return median(xs)
}

// ratios are those of the rounds, ascending.
func ratios(rounds []Round) []float64 {
	var xs []float64
	for _, r := range rounds {
		if r.Base != nil && r.Base.Value != 0 {
			xs = append(xs, r.Ours.Value/r.Base.Value)
		}
	}
	slices.Sort(xs)
	return xs
}
