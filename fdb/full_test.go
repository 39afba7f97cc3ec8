//go:build !race

package fdb_test

import (
	"testing"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// TestFullSize fills the largest table of the product to its limit. All fit:
// where both buckets of a station are full, others give way.
func TestFullSize(t *testing.T) {
	const limit = 1 << 20
	if got := fdb.Size(limit); got > 32_000_000 {
		t.Errorf("%d octets, want at most 32,000,000", got)
	}
	tab := open(t, limit)
	for i := range limit {
		tab.Learn(station(i), frame.PortID(1+i%100), 0, nil)
	}
	if c := tab.Counters(); tab.Len() < limit-2 || c.Full+c.Evicted > 2 {
		t.Errorf("length %d, counters %+v", tab.Len(), c)
	}
}
