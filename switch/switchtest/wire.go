package switchtest

import (
	"testing"

	"github.com/tapestry-net/tapestry/switch/port/mem"
)

// Port opens a memory port for the length of the test.
func Port(t testing.TB, o mem.Options) *mem.Port {
	t.Helper()
	p, err := mem.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// Wire opens a cable for the length of the test and returns both ends, each to
// be the port of another switch. No goroutine runs between them. Switches that
// poll an end are to be stopped before the test is over.
func Wire(t testing.TB, o mem.Options) (a, b *mem.Port) {
	t.Helper()
	a, b, err := mem.Pair(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}
