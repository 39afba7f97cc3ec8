package offload_test

import (
	"testing"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

func TestParseHeaderErrors(t *testing.T) {
	for name, c := range map[string]struct {
		b []byte
		n int
	}{
		"length": {make([]byte, 20), 11}, "short": {make([]byte, 9), 10}, "UFO": {[]byte{1, 3, 0, 0, 0, 0, 0, 0, 0, 0}, 10},
	} {
		if _, err := offload.ParseHeader(c.b, c.n); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, long bool) {
		n := offload.HeaderLen
		if long {
			n = offload.HeaderLenMerged
		}
		g, err := offload.ParseHeader(b, n)
		if err != nil {
			return
		}
		buf := make([]byte, n)
		offload.PutHeader(buf, n, g, 0)
		if again, err := offload.ParseHeader(buf, n); err != nil || again != g {
			t.Errorf("%+v came back as %+v, %v", g, again, err)
		}
	})
}

// FuzzPlan feeds any octets and metadata to Check and Plan.
func FuzzPlan(f *testing.F) {
	for _, s := range []spec{{udp: true, partial: true, payload: []byte("abcdef")}, {v6: true, tags: 1, flags: 0x10, payload: make([]byte, 90)}} {
		x := build(f, s)
		f.Add(x.Data, []byte{1, 5, 0, 0, 2, 0, 34, 0, 6, 0}, uint8(0))
		f.Add(x.Data, make([]byte, 10), uint8(all))
	}
	e := offload.NewEgress()
	f.Fuzz(func(t *testing.T, b, hdr []byte, can uint8) {
		g, err := offload.ParseHeader(hdr, offload.HeaderLen)
		if err != nil || len(b) > frame.MaxLen {
			return
		}
		x := frame.Frame{Data: b, GSO: g, Copies: 1}
		_ = offload.Check(&x)
		in := []frame.Frame{x, x, x}
		copies := 0
		for _, o := range run(t, e, in, frame.Offloads(can), true) {
			copies += int(o.Copies)
		}
		for i := range in {
			if in[i].Refused {
				copies++
			}
		}
		if copies != 3 {
			t.Errorf("%d copies of 3", copies)
		}
	})
}
