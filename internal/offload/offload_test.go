package offload_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/switch/frame"
)

const all = frame.OffloadChecksum | frame.OffloadTSO4 | frame.OffloadTSO6 | frame.OffloadUSO4 | frame.OffloadUSO6 | frame.OffloadECN

// run plans in to the end and returns copies of all that came out.
func run(t testing.TB, e *offload.Egress, in []frame.Frame, can frame.Offloads, coalesce bool) []frame.Frame {
	t.Helper()
	out := frame.NewBatch(0)
	var res []frame.Frame
	for idle := 0; len(in) > 0; {
		n := e.Plan(in, can, coalesce, out)
		for i := range out.Frames {
			f := out.Frames[i]
			hdr := len(f.Data)
			b := flat(&f)
			f.Data, f.Frags = b[:hdr:hdr], nil
			if len(b) > hdr {
				f.Frags = [][]byte{b[hdr:]}
			}
			res = append(res, f)
		}
		if idle++; n > 0 || out.Len() > 0 {
			idle = 0
		}
		if idle > 1 {
			t.Fatal("Plan makes no progress")
		}
		out.Reset()
		in = in[n:]
	}
	return res
}

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestSumMatchesRFC1071(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "octets")
		cut := rapid.IntRange(0, len(b)/2).Draw(t, "cut") * 2
		got := offload.Fold(offload.Sum(b[cut:], offload.Sum(b[:cut], 0)))
		if want := uint16(slowSum(b, 0)); got != want {
			t.Fatalf("sum of %x = %#04x, want %#04x", b, got, want)
		}
	})
	if got := offload.Fold(offload.Sum(bytes.Repeat([]byte{0xff}, 70000), 1<<63)); got == 0 {
		t.Error("all ones fold to nothing")
	}
}

func TestComplete(t *testing.T) {
	f := build(t, spec{udp: true, partial: true, payload: []byte("odd")})
	want := bytes.Clone(f.Data)
	finish(want, 34, 6)
	offload.Complete(f.Data, 34, 6)
	if !bytes.Equal(f.Data, want) {
		t.Errorf("completed %x, want %x", f.Data, want)
	}
}

// gsoSpec draws a GSO frame.
func gsoFrame(t *rapid.T, tb testing.TB) frame.Frame {
	s := spec{
		v6: rapid.Bool().Draw(t, "v6"), udp: rapid.Bool().Draw(t, "udp"), options: rapid.Bool().Draw(t, "options"),
		tags: rapid.IntRange(0, 2).Draw(t, "tags"), id: rapid.Uint16().Draw(t, "id"), seq: rapid.Uint32().Draw(t, "seq"),
		flow: 1000, flags: 0x10 | rapid.Uint8().Draw(t, "flags")&^0x06, partial: true,
	}
	size := rapid.IntRange(1, 2000).Draw(t, "size")
	n := rapid.IntRange(1, min(60000, 128*size)).Draw(t, "octets")
	s.payload = random(n, uint64(n))
	f := build(tb, s)
	f.GSO.Type, f.GSO.Size = frame.GSOTCPv4, uint16(size)
	if s.v6 {
		f.GSO.Type = frame.GSOTCPv6
	}
	if s.udp {
		f.GSO.Type = frame.GSOUDP
	}
	return f
}

func TestSegmentMatchesSlow(t *testing.T) { rapid.Check(t, segmentMatchesSlow(t)) }

func FuzzSegment(f *testing.F) {
	f.Add(random(16<<10, 1)) // draws enough for many frames
	f.Fuzz(func(t *testing.T, b []byte) { rapid.MakeFuzz(segmentMatchesSlow(t))(t, b) })
}

func segmentMatchesSlow(t testing.TB) func(*rapid.T) {
	e := offload.NewEgress()
	return func(rt *rapid.T) {
		f := gsoFrame(rt, t)
		if err := offload.Check(&f); err != nil {
			rt.Fatal(err)
		}
		want := slowSegment(&f)
		can := frame.Offloads(0)
		if rapid.Bool().Draw(rt, "checksum") {
			can = frame.OffloadChecksum
		}
		before := bytes.Clone(f.Data)
		got := run(t, e, []frame.Frame{f}, can, rapid.Bool().Draw(rt, "coalesce"))
		if !bytes.Equal(before, f.Data) {
			rt.Fatal("the frame that entered was written")
		}
		if len(got) != len(want) {
			rt.Fatalf("%d segments, want %d", len(got), len(want))
		}
		for i := range got {
			if got[i].GSO.NeedsCsum != (can != 0) || (got[i].Copies == 1) != (i == 0) {
				rt.Fatalf("segment %d: %+v, copies %d", i, got[i].GSO, got[i].Copies)
			}
			if b := slowSegment(&got[i])[0]; !bytes.Equal(b, want[i]) {
				rt.Fatalf("segment %d of %d\n got %x\nwant %x", i, len(want), b, want[i])
			}
		}
	}
}

// traffic draws frames of a few flows with all that coalescing must notice.
func traffic(t *rapid.T, tb testing.TB) []frame.Frame {
	type state struct {
		seq uint32
		id  uint16
	}
	var st [12]state
	var in []frame.Frame
	for range rapid.IntRange(1, 150).Draw(t, "frames") {
		k := rapid.IntRange(0, 11).Draw(t, "flow")
		odd := rapid.IntRange(0, 40).Draw(t, "odd")
		n := []int{1, 18, 18, 100, 1000}[k%5]
		s := spec{
			v6: k&1 != 0, udp: k&2 != 0, df: k&4 != 0, tags: k % 3 % 2, flow: uint16(k), flags: 0x10, options: k > 8,
			id: st[k].id, seq: st[k].seq, partial: rapid.Bool().Draw(t, "partial"),
		}
		if k%4 != 0 || k == 0 {
			st[k].id++
		}
		bad := false
		switch odd {
		case 0:
			n = 0
		case 1:
			n--
		case 2:
			n++
		case 3:
			s.flags |= 0x08
		case 4:
			s.flags |= 0x01
		case 5:
			s.tos = 3
		case 6:
			st[k].id += 7
		case 7:
			st[k].seq += 9
		case 8:
			bad = true
		}
		s.payload = random(n, uint64(len(in)))
		st[k].seq += uint32(n)
		f := build(tb, s)
		if bad {
			f.Data[len(f.Data)-1]++
		}
		for len(f.Data) < 60 {
			f.Data = append(f.Data, 0)
		}
		in = append(in, f)
	}
	return in
}

// trim takes the padding off, and off atomic datagrams the identification.
func trim(b []byte) []byte {
	b = bytes.Clone(b)
	l3 := 14
	for b[l3-2] == 0x81 {
		l3 += 4
	}
	if b[l3-2] == 0x86 {
		return b[:l3+40+int(binary.BigEndian.Uint16(b[l3+4:]))]
	}
	if b[l3+6]&0x40 != 0 {
		clear(b[l3+4 : l3+6])
		clear(b[l3+10 : l3+12])
	}
	return b[:l3+int(binary.BigEndian.Uint16(b[l3+2:]))]
}

// byFlow sorts the frames that leave into flows, each in order.
func byFlow(frames []frame.Frame) map[uint32][][]byte {
	m := map[uint32][][]byte{}
	for i := range frames {
		for _, b := range slowSegment(&frames[i]) {
			l4 := 34
			if b[12] == 0x81 {
				l4 += 4
			}
			if b[l4-22] == 0x86 {
				l4 += 20
			}
			k := binary.BigEndian.Uint32(b[l4:])
			m[k] = append(m[k], trim(b))
		}
	}
	return m
}

func TestCoalesceRoundTrip(t *testing.T) { rapid.Check(t, coalesceRoundTrip(t)) }

func FuzzCoalesce(f *testing.F) {
	f.Add(random(16<<10, 1)) // draws enough for many frames
	f.Fuzz(func(t *testing.T, b []byte) { rapid.MakeFuzz(coalesceRoundTrip(t))(t, b) })
}

// coalesceRoundTrip: cutting what was coalesced restores every octet and the
// order within each flow, damage included.
func coalesceRoundTrip(t testing.TB) func(*rapid.T) {
	e := offload.NewEgress()
	return func(rt *rapid.T) {
		in := traffic(rt, t)
		got := run(t, e, in, all, true)
		copies := 0
		for i := range got {
			f := got[i]
			copies += int(f.Copies)
			if f.GSO.Type != frame.GSONone {
				f.Data, f.Frags = flat(&f), nil
				if err := offload.Check(&f); err != nil || f.GSO.HdrLen != got[i].GSO.HdrLen {
					rt.Fatalf("frame %d: %v, metadata %+v", i, err, f.GSO)
				}
			}
		}
		if copies != len(in) {
			rt.Fatalf("%d copies of %d frames", copies, len(in))
		}
		want, have := byFlow(in), byFlow(got)
		for k, w := range want {
			if len(have[k]) != len(w) {
				rt.Fatalf("flow %x: %d frames, want %d", k, len(have[k]), len(w))
			}
			for i := range w {
				if !bytes.Equal(have[k][i], w[i]) {
					rt.Fatalf("flow %x frame %d\n got %x\nwant %x", k, i, have[k][i], w[i])
				}
			}
		}
	}
}

// TestCoalesceRules names each rule by two frames that do or do not merge.
func TestCoalesceRules(t *testing.T) {
	tcp := spec{flags: 0x10, payload: make([]byte, 100), df: true}
	udp := spec{udp: true, payload: make([]byte, 100)}
	for _, c := range []struct {
		name   string
		base   spec
		change func(a, b *spec)
		bytes  func(a, b *frame.Frame)
		want   int
	}{
		{name: "in sequence", base: tcp, want: 1},
		{name: "datagrams", base: udp, want: 1},
		{name: "IPv6", base: spec{v6: true, udp: true, tags: 1, payload: []byte("x")}, want: 1},
		{name: "options equal", base: spec{flags: 0x10, options: true, payload: []byte("x")}, want: 1},
		{name: "shorter", base: udp, change: func(_, b *spec) { b.payload = b.payload[:9] }, want: 1},
		{name: "longer", base: udp, change: func(a, _ *spec) { a.payload = a.payload[:9] }, want: 2},
		{name: "empty", base: udp, change: func(_, b *spec) { b.payload = nil }, want: 2},
		{name: "other port", base: udp, change: func(_, b *spec) { b.flow = 9 }, want: 2},
		{name: "gap", base: tcp, change: func(_, b *spec) { b.seq++ }, want: 2},
		{name: "last PSH", base: tcp, change: func(_, b *spec) { b.flags |= 8 }, want: 1},
		{name: "first PSH", base: tcp, change: func(a, _ *spec) { a.flags |= 8 }, want: 2},
		{name: "FIN", base: tcp, change: func(_, b *spec) { b.flags |= 1 }, want: 2},
		{name: "RST", base: tcp, change: func(_, b *spec) { b.flags |= 4 }, want: 2},
		{name: "URG", base: tcp, change: func(_, b *spec) { b.flags |= 0x20 }, want: 2},
		{name: "CE", base: tcp, change: func(_, b *spec) { b.tos = 3 }, want: 2},
		{name: "tags", base: tcp, change: func(_, b *spec) { b.tags = 1 }, want: 2},
		{name: "same id, may be fragmented", base: udp, change: func(_, b *spec) { b.id-- }, want: 2},
		{name: "same id, DF", base: tcp, change: func(_, b *spec) { b.id-- }, want: 1},
		{name: "other id, DF", base: tcp, change: func(_, b *spec) { b.id += 5 }, want: 2},
		{name: "partial and complete", base: udp, change: func(a, _ *spec) { a.partial = true }, want: 1},
		{name: "vouched for", base: udp, change: func(a, b *spec) { a.valid, b.valid = true, true }, want: 1},
		{name: "first damaged", base: udp, bytes: func(a, _ *frame.Frame) { a.Data[60]++ }, want: 2},
		{name: "second damaged", base: udp, bytes: func(_, b *frame.Frame) { b.Data[60]++ }, want: 2},
		{name: "no UDP checksum", base: udp, bytes: func(_, b *frame.Frame) { b.Data[40], b.Data[41] = 0, 0 }, want: 2},
		{name: "IP header damaged", base: udp, bytes: func(_, b *frame.Frame) { b.Data[24]++ }, want: 2},
		{name: "TTL", base: udp, bytes: func(_, b *frame.Frame) { b.Data[22]--; b.Data[24]++ }, want: 2},
		{name: "window", base: tcp, bytes: func(_, b *frame.Frame) { b.Data[48]++; b.Data[50]-- }, want: 2},
		{name: "source address", base: udp, bytes: func(_, b *frame.Frame) { b.Data[6] ^= 4 }, want: 2},
		{name: "pop", base: spec{udp: true, tags: 1, payload: []byte("x")}, bytes: func(_, b *frame.Frame) { b.Pop = true }, want: 2},
		{name: "trailer", base: udp, bytes: func(_, b *frame.Frame) { b.Data = append(b.Data, 1) }, want: 2},
		{name: "fragment", base: udp, bytes: func(_, b *frame.Frame) { b.Data[20] |= 0x20; b.Data[24] -= 0x20 }, want: 2},
	} {
		x, y := c.base, c.base
		y.id++
		y.seq += uint32(len(x.payload))
		if c.change != nil {
			c.change(&x, &y)
		}
		in := []frame.Frame{build(t, x), build(t, y)}
		if c.bytes != nil {
			c.bytes(&in[0], &in[1])
		}
		e := offload.NewEgress()
		if got := run(t, e, in, all, true); len(got) != c.want || (e.Stats.Coalesced == 2) != (c.want == 1) {
			t.Errorf("%s: %d frames, want %d", c.name, len(got), c.want)
		}
		if got := run(t, e, in, all, false); len(got) != 2 {
			t.Errorf("%s: coalesced against orders", c.name)
		}
	}
}

func TestCompletePlainFrame(t *testing.T) {
	for _, s := range []spec{{udp: true, payload: []byte("abc")}, {v6: true, tags: 2, flags: 2}} {
		s.partial = true
		f := build(t, s)
		want := slowSegment(&f)[0]
		got := run(t, offload.NewEgress(), []frame.Frame{f}, 0, true)
		if len(got) != 1 || got[0].GSO != (frame.GSO{}) || !bytes.Equal(flat(&got[0]), want) || got[0].Copies != 1 {
			t.Errorf("completed to %+v, want %x", got, want)
		}
		p := gopacket.NewPacket(flat(&got[0]), layers.LayerTypeEthernet, gopacket.Default)
		if p.ErrorLayer() != nil || p.TransportLayer() == nil {
			t.Errorf("not decoded: %v", p.ErrorLayer())
		}
	}
}

func TestRefused(t *testing.T) {
	good := build(t, spec{partial: true, flags: 0x10, payload: make([]byte, 5000)})
	good.GSO.Type, good.GSO.Size = frame.GSOTCPv4, 1000
	for name, spoil := range map[string]func(f *frame.Frame){
		"type":     func(f *frame.Frame) { f.GSO.Type = frame.GSOUDP },
		"size":     func(f *frame.Frame) { f.GSO.Size = 0 },
		"count":    func(f *frame.Frame) { f.GSO.Size = 1 },
		"checksum": func(f *frame.Frame) { f.GSO.NeedsCsum = false },
		"start":    func(f *frame.Frame) { f.GSO.CsumStart = 60000 },
		"SYN":      func(f *frame.Frame) { f.Data[47] |= 2 },
		"short":    func(f *frame.Frame) { f.Data = f.Data[:40] },
		"version":  func(f *frame.Frame) { f.Data[14] = 0x55 },
		"fragment": func(f *frame.Frame) { f.Data[20] = 0x20 },
		"frags":    func(f *frame.Frame) { f.Frags = [][]byte{{1}} },
		"plain":    func(f *frame.Frame) { f.GSO.Type, f.GSO.CsumStart = 0, 60000 },
	} {
		f := good
		f.Data = bytes.Clone(good.Data)
		spoil(&f)
		e := offload.NewEgress()
		in := []frame.Frame{f}
		if got := run(t, e, in, 0, false); len(got) != 0 || e.Stats.Refused != 1 || !in[0].Refused {
			t.Errorf("%s: %d frames, %+v", name, len(got), e.Stats)
		}
		if err := offload.Check(&f); err == nil {
			t.Errorf("%s: passed Check", name)
		}
	}
}

// TestOrderAcrossKinds: a GSO frame, a pure acknowledgement and a fragment in
// the middle of a run end it, and nothing overtakes them.
func TestOrderAcrossKinds(t *testing.T) {
	s := spec{flags: 0x10, payload: make([]byte, 100)}
	part := func(i int, octets int) frame.Frame {
		p := s
		p.id, p.seq, p.payload, p.partial = uint16(i), uint32(100*i), make([]byte, octets), octets > 100
		return build(t, p)
	}
	gso := part(2, 200)
	gso.GSO.Type, gso.GSO.Size = frame.GSOTCPv4, 100
	fragment := part(2, 100)
	fragment.Data[20] = 0x20
	for name, middle := range map[string]frame.Frame{"GSO": gso, "ACK": part(2, 0), "fragment": fragment} {
		in := []frame.Frame{part(0, 100), part(1, 100), middle, part(4, 100), part(5, 100)}
		got := run(t, offload.NewEgress(), in, all, true)
		if len(got) != 3 || got[0].Copies != 2 || got[2].Copies != 2 || !bytes.Equal(flat(&got[1]), middle.Data) {
			t.Errorf("%s: %d frames", name, len(got))
		}
		// A port without segmentation gets the same octets in the same order.
		if got := run(t, offload.NewEgress(), in, frame.OffloadChecksum, true); len(got) != 5 && name != "GSO" || len(got) != 6 && name == "GSO" {
			t.Errorf("%s: %d frames without offload", name, len(got))
		}
	}
}

// TestManyFlows: more flows than slots lose coalescing, never a frame.
func TestManyFlows(t *testing.T) {
	in := stream(t, spec{udp: true, payload: []byte("x")}, 300, 20)
	got := run(t, offload.NewEgress(), in, all, true)
	want, have := byFlow(in), byFlow(got)
	for k := range want {
		if len(want[k]) != len(have[k]) {
			t.Errorf("flow %x: %d frames, want %d", k, len(have[k]), len(want[k]))
		}
	}
}

// TestIPv6Extensions: options are cut along, a routing header is refused.
func TestIPv6Extensions(t *testing.T) {
	f := build(t, spec{v6: true, udp: true, partial: true, payload: make([]byte, 2000)})
	ext := []byte{17, 0, 1, 4, 0, 0, 0, 0} // PadN
	b := append(bytes.Clone(f.Data[:54]), ext...)
	b = append(b, f.Data[54:]...)
	b[20] = 60
	binary.BigEndian.PutUint16(b[18:], uint16(len(b)-54))
	f.Data = b
	f.GSO = frame.GSO{Type: frame.GSOUDP, NeedsCsum: true, Size: 500, CsumStart: 62, CsumOffset: 6}
	got := run(t, offload.NewEgress(), []frame.Frame{f}, 0, false)
	if len(got) != 4 {
		t.Fatalf("%d segments, want 4", len(got))
	}
	for i := range got {
		p := gopacket.NewPacket(flat(&got[i]), layers.LayerTypeEthernet, gopacket.Default)
		u, ok := p.TransportLayer().(*layers.UDP)
		if !ok || len(u.Payload) != 500 {
			t.Errorf("segment %d: %v", i, p)
		}
		s := flat(&got[i])
		if sum := slowSum(s[62:], slowSum(s[22:54], 17+508)); sum != 0xffff {
			t.Errorf("segment %d sums to %#x", i, sum)
		}
	}
	f.Data[20] = 43
	if offload.Check(&f) == nil {
		t.Error("a routing header passes")
	}
	f.Data[20], f.Data[55] = 60, 255
	if offload.Check(&f) == nil {
		t.Error("options beyond the packet pass")
	}
}
