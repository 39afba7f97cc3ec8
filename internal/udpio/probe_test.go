package udpio_test

import (
	"testing"

	"github.com/tapestry-net/tapestry/internal/udpio"
)

func TestProbe(t *testing.T) {
	f, err := udpio.Probe()
	t.Log(f, err)
}
