package switchtest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// outside is the far side of a memory port.
type outside struct{ p *mem.Port }

func (o outside) Send(f frame.Frame) error {
	if o.p.InjectFrames(f) != 1 {
		return errors.New("ring is full")
	}
	return nil
}

func (o outside) Receive(ctx context.Context) (frame.Frame, error) { return o.p.Next(ctx) }

func TestMemoryPort(t *testing.T) {
	for name, offloads := range map[string]frame.Offloads{"plain": 0, "offloads": ^frame.Offloads(0)} {
		t.Run(name, func(t *testing.T) {
			switchtest.TestPort(t, func(t *testing.T) switchtest.Opened {
				p := switchtest.Port(t, mem.Options{Offloads: offloads, Depth: 256})
				return switchtest.Opened{
					Queue: p, Far: outside{p}, MTU: 9000,
					Unplug: func() { p.Fail(errors.New("unplugged")) },
				}
			})
		})
	}
}
