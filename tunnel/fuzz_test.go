package tunnel_test

import (
	"bytes"
	"testing"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
	"github.com/tapestry-net/tapestry/tunnel"
)

// FuzzDatagrams gives the tunnel whatever a peer may send, alone and in runs.
// Every datagram is one frame or one drop or a message; a frame is part of what
// was sent, has a header and no tag, and metadata that offload accepts.
func FuzzDatagrams(f *testing.F) {
	f.Add(in(blueVNI, hello), uint8(0), 0)
	f.Add(append(in(blueVNI, hello), in(blueVNI, hello)...), uint8(3), 68)
	f.Add(in(blueVNI, switchtest.Partial(switchtest.UDPFrame(alice, bob, switchtest.Pattern(3000))).Data), uint8(0), 1000)
	f.Add(tunnel.Probe(1, 1), uint8(0), 0)
	a, b := pair(f)
	_ = a
	f.Fuzz(func(t *testing.T, data []byte, tos uint8, size int) {
		if len(data) > 1<<16-30 {
			return
		}
		if size <= 0 || size > len(data) {
			size = len(data)
		}
		batch := frame.NewBatch(0)
		orig := bytes.Clone(data)
		before := total(b.Refused())
		b.Admit(2, batch, data, tos, size)
		n := 1
		if size > 0 && size < len(data) {
			n = (len(data) + size - 1) / size
		}
		if got := batch.Len() + int(total(b.Refused())-before); got > n {
			t.Errorf("%d datagrams make %d frames and drops", n, got)
		}
		for i := range batch.Frames {
			fr := &batch.Frames[i]
			h, ok := frame.Parse(fr.Data)
			if !ok || h.Tag.Present() || fr.In != 2 || fr.VID != blue {
				t.Errorf("frame %d of port %d, VLAN %d: %+v", i, fr.In, fr.VID, h)
			}
			if err := offload.Check(fr); err != nil {
				t.Errorf("frame %d: %v", i, err)
			}
			if !bytes.Contains(orig, fr.Data[:12]) {
				t.Errorf("frame %d was not sent", i)
			}
		}
	})
}

func total(d tunnel.Drops) (n uint64) {
	for _, x := range d {
		n += x
	}
	return n
}
