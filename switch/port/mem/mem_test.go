package mem_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"testing"

	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
	"golang.org/x/sys/unix"
)

var _ vswitch.Queue = (*mem.Port)(nil)

func open(t testing.TB, o mem.Options) *mem.Port {
	t.Helper()
	p, err := mem.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// numbered returns a frame of n octets whose payload begins with i.
func numbered(i, n int) []byte {
	b := make([]byte, n)
	copy(b, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5})
	if n >= 18 {
		binary.BigEndian.PutUint32(b[14:], uint32(i))
	}
	return b
}

func outgoing(frames ...frame.Frame) *frame.Batch {
	b := frame.NewBatch(0)
	b.Frames = append(b.Frames, frames...)
	return b
}

func readable(t testing.TB, fd int) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 0); err != nil {
		t.Fatalf("poll: %v", err)
	}
	return fds[0].Revents&unix.POLLIN != 0
}

func TestReceiveInOrderUntilFullThenEmpty(t *testing.T) {
	p := open(t, mem.Options{Depth: 100})
	for i := range 100 {
		if n := p.Inject(numbered(i, 60)); n != 1 {
			t.Fatalf("inject %d: got %d accepted, want 1", i, n)
		}
	}
	if n := p.Inject(numbered(100, 60)); n != 0 {
		t.Errorf("inject into a full ring: got %d accepted, want 0", n)
	}
	b := frame.NewBatch(1 << 20)
	seen := 0
	for _, want := range []int{frame.BatchLen, 100 - frame.BatchLen, 0} {
		if got := readable(t, p.FD()); got != (want > 0) {
			t.Errorf("readable with %d frames to come: got %v", want, got)
		}
		b.Reset()
		if err := p.Receive(b); err != nil {
			t.Fatalf("receive: %v", err)
		}
		if b.Len() != want {
			t.Fatalf("receive: got %d frames, want %d", b.Len(), want)
		}
		for _, f := range b.Frames {
			if got := binary.BigEndian.Uint32(f.Data[14:]); int(got) != seen {
				t.Fatalf("got frame %d, want %d", got, seen)
			}
			seen++
		}
	}
	want := mem.Stats{Injected: 100, InjectedOctets: 6000, Overrun: 1, Received: 100}
	if got := p.Stats(); got != want {
		t.Errorf("stats: got %+v, want %+v", got, want)
	}
}

func TestTransmitCarriesOutPopPushAndFrags(t *testing.T) {
	tagged := append(numbered(0, 12), 0x81, 0, 0x60, 10, 0x08, 0, 1, 2, 3)
	plain := append(numbered(0, 12), 0x08, 0, 1, 2, 3)
	push := frame.MakeTag(20, 5, false)
	gso := frame.GSO{NeedsCsum: true, CsumStart: 38, CsumOffset: 6, Type: frame.GSOUDP, HdrLen: 46, Size: 100}
	tests := []struct {
		name  string
		f     frame.Frame
		want  []byte
		shift int
	}{
		{"as it is", frame.Frame{Data: tagged}, tagged, 0},
		{"pop", frame.Frame{Data: tagged, Pop: true}, plain, -4},
		{"push", frame.Frame{Data: plain, Push: push}, append(numbered(0, 12), 0x81, 0, 0xa0, 20, 0x08, 0, 1, 2, 3), 4},
		{"retag", frame.Frame{Data: tagged, Pop: true, Push: push}, append(numbered(0, 12), 0x81, 0, 0xa0, 20, 0x08, 0, 1, 2, 3), 0},
		{"gather", frame.Frame{Data: plain, Frags: [][]byte{{4}, {5, 6}}}, append(bytes.Clone(plain), 4, 5, 6), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := open(t, mem.Options{Offloads: ^frame.Offloads(0)})
			tt.f.GSO = gso
			if sent, err := p.Transmit(outgoing(tt.f)); sent != 1 || err != nil {
				t.Fatalf("transmit: got %d, %v, want 1, nil", sent, err)
			}
			got := p.Drain()
			if len(got) != 1 || !bytes.Equal(got[0].Data, tt.want) {
				t.Fatalf("got %+v, want one frame of %x", got, tt.want)
			}
			want := gso
			want.HdrLen = uint16(int(gso.HdrLen) + tt.shift)
			want.CsumStart = uint16(int(gso.CsumStart) + tt.shift)
			if got[0].GSO != want {
				t.Errorf("offload metadata: got %+v, want %+v", got[0].GSO, want)
			}
		})
	}
}

func TestTransmitRefuses(t *testing.T) {
	gone := errors.New("gone")
	v4 := append(numbered(0, 12), 0x08, 0)
	v6 := append(numbered(0, 12), 0x81, 0, 0, 10, 0x86, 0xdd)
	udp := frame.GSO{Type: frame.GSOUDP, HdrLen: 42, Size: 10}
	tests := []struct {
		name  string
		o     mem.Options
		setup func(p *mem.Port)
		f     frame.Frame
		want  error
	}{
		{"short", mem.Options{}, nil, frame.Frame{Data: make([]byte, 13)}, unix.EINVAL},
		{"nothing to pop", mem.Options{}, nil, frame.Frame{Data: make([]byte, 17), Pop: true}, unix.EINVAL},
		{"long", mem.Options{}, nil, frame.Frame{Data: make([]byte, frame.MaxLen+1)}, unix.EMSGSIZE},
		{"partial checksum", mem.Options{}, nil, frame.Frame{Data: v4, GSO: frame.GSO{NeedsCsum: true}}, unix.EINVAL},
		{"TSO4", mem.Options{Offloads: frame.OffloadTSO6}, nil, frame.Frame{Data: v4, GSO: frame.GSO{Type: frame.GSOTCPv4}}, unix.EINVAL},
		{"TSO6", mem.Options{Offloads: frame.OffloadTSO4}, nil, frame.Frame{Data: v6, GSO: frame.GSO{Type: frame.GSOTCPv6}}, unix.EINVAL},
		{"ECN", mem.Options{Offloads: frame.OffloadTSO4}, nil, frame.Frame{Data: v4, GSO: frame.GSO{Type: frame.GSOTCPv4, ECN: true}}, unix.EINVAL},
		{"USO4", mem.Options{Offloads: frame.OffloadUSO6}, nil, frame.Frame{Data: v4, GSO: udp}, unix.EINVAL},
		{"USO6", mem.Options{Offloads: frame.OffloadUSO4}, nil, frame.Frame{Data: v6, GSO: udp}, unix.EINVAL},
		{"USO6 allowed", mem.Options{Offloads: frame.OffloadUSO6}, nil, frame.Frame{Data: v6, GSO: udp}, nil},
		{"type cut off", mem.Options{Offloads: frame.OffloadUSO4}, nil, frame.Frame{Data: append(numbered(0, 12), 0x88, 0xa8), GSO: udp}, nil},
		{"full", mem.Options{Depth: 1}, func(p *mem.Port) { p.Transmit(outgoing(frame.Frame{Data: v4})) }, frame.Frame{Data: v4}, unix.ENOBUFS},
		{"gone", mem.Options{}, func(p *mem.Port) { p.Fail(gone) }, frame.Frame{Data: v4}, gone},
		{"back", mem.Options{}, func(p *mem.Port) { p.Fail(gone); p.Fail(nil) }, frame.Frame{Data: v4}, nil},
		{"every", mem.Options{}, func(p *mem.Port) { p.RefuseEvery(1, unix.EIO) }, frame.Frame{Data: v4}, unix.EIO},
		{"discard", mem.Options{Discard: true, Depth: 1}, func(p *mem.Port) { p.Transmit(outgoing(frame.Frame{Data: v4})) }, frame.Frame{Data: v4}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := open(t, tt.o)
			if tt.setup != nil {
				tt.setup(p)
			}
			before := p.Stats()
			b := outgoing(tt.f)
			sent, err := p.Transmit(b)
			if !errors.Is(err, tt.want) {
				t.Errorf("error: got %v, want %v", err, tt.want)
			}
			if refused := tt.want != nil; b.Frames[0].Refused != refused || (sent == 0) != refused {
				t.Errorf("got sent %d and Refused %v, want refused %v", sent, b.Frames[0].Refused, refused)
			}
			after := p.Stats()
			if got := int(after.Sent - before.Sent); got != sent {
				t.Errorf("counted as sent: got %d, want %d", got, sent)
			}
			if got := int(after.Refused - before.Refused); got != 1-sent {
				t.Errorf("counted as refused: got %d, want %d", got, 1-sent)
			}
		})
	}
}

func TestRefuseEveryThird(t *testing.T) {
	p := open(t, mem.Options{})
	p.RefuseEvery(3, unix.EIO)
	b := frame.NewBatch(0)
	for i := range 7 {
		b.Frames = append(b.Frames, frame.Frame{Data: numbered(i, 60)})
	}
	if sent, err := p.Transmit(b); sent != 5 || !errors.Is(err, unix.EIO) {
		t.Errorf("transmit: got %d, %v, want 5, EIO", sent, err)
	}
	for i, f := range b.Frames {
		if want := i == 2 || i == 5; f.Refused != want {
			t.Errorf("frame %d: got Refused %v, want %v", i, f.Refused, want)
		}
	}
	if got := len(p.Drain()); got != 5 {
		t.Errorf("outside: got %d frames, want 5", got)
	}
}

func TestFailIsSeenAfterTheWaitingFrames(t *testing.T) {
	p := open(t, mem.Options{})
	gone := errors.New("device deleted")
	p.Inject(numbered(0, 60))
	p.Fail(gone)
	b := frame.NewBatch(1 << 20)
	if err := p.Receive(b); !errors.Is(err, gone) || b.Len() != 1 {
		t.Errorf("receive: got %d frames, %v, want 1, %v", b.Len(), err, gone)
	}
	if !readable(t, p.FD()) {
		t.Error("a failed port does not poll readable")
	}
	p.Fail(nil)
	if readable(t, p.FD()) {
		t.Error("a mended, empty port polls readable")
	}
}

func TestReplay(t *testing.T) {
	p := open(t, mem.Options{})
	frames := []frame.Frame{{Data: numbered(0, 60)}, {Data: numbered(1, 70)}}
	if err := p.Replay(frames, 101); err != nil {
		t.Fatal(err)
	}
	b := frame.NewBatch(1 << 20)
	seen := 0
	for readable(t, p.FD()) {
		b.Reset()
		if err := p.Receive(b); err != nil {
			t.Fatal(err)
		}
		for _, f := range b.Frames {
			if got := int(binary.BigEndian.Uint32(f.Data[14:])); got != seen%2 {
				t.Fatalf("frame %d: got %d, want %d", seen, got, seen%2)
			}
			seen++
		}
	}
	if seen != 101 {
		t.Errorf("got %d frames, want 101", seen)
	}
	if err := p.Replay(nil, 1); err == nil {
		t.Error("replay of no frames: got nil error")
	}
	if err := p.Replay([]frame.Frame{{Data: []byte{1}}}, 1); !errors.Is(err, unix.EINVAL) {
		t.Errorf("replay of a short frame: got %v, want EINVAL", err)
	}
	if err := p.Replay(frames, 9); err != nil {
		t.Fatal(err)
	}
	if err := p.Replay(nil, 0); err != nil || readable(t, p.FD()) {
		t.Errorf("ended replay: got %v, readable %v", err, readable(t, p.FD()))
	}
}

func TestPair(t *testing.T) {
	a, b, err := mem.Pair(mem.Options{Depth: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	out := outgoing(frame.Frame{Data: numbered(7, 60), Push: frame.MakeTag(10, 3, false)})
	if sent, err := a.Transmit(out); sent != 1 || err != nil {
		t.Fatalf("transmit: got %d, %v, want 1, nil", sent, err)
	}
	if !readable(t, b.FD()) || readable(t, a.FD()) {
		t.Fatal("the frame does not wait at the other end alone")
	}
	in := frame.NewBatch(1 << 20)
	if err := b.Receive(in); err != nil || in.Len() != 1 || len(in.Frames[0].Data) != 64 {
		t.Fatalf("receive: got %+v, %v, want one frame of 64 octets", in.Frames, err)
	}
	if _, err := a.Next(t.Context()); !errors.Is(err, mem.ErrPaired) {
		t.Errorf("next of a paired port: got %v, want %v", err, mem.ErrPaired)
	}
	if got := a.Drain(); got != nil {
		t.Errorf("drain of a paired port: got %d frames, want none", len(got))
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if sent, err := a.Transmit(out); sent != 0 || !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("transmit to a closed end: got %d, %v, want 0, ENETDOWN", sent, err)
	}
}

func TestNextWaitsForFrameContextOrClose(t *testing.T) {
	p := open(t, mem.Options{})
	const readers = 4
	var wg sync.WaitGroup
	got := make(chan []byte, readers)
	for range readers {
		wg.Go(func() {
			f, err := p.Next(context.Background())
			if err != nil {
				t.Errorf("next: %v", err)
			}
			got <- f.Data
		})
	}
	b := frame.NewBatch(0)
	for i := range readers {
		b.Frames = append(b.Frames, frame.Frame{Data: numbered(i, 60)})
	}
	p.Transmit(b)
	wg.Wait()
	if len(got) != readers {
		t.Errorf("readers served: got %d, want %d", len(got), readers)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("next with a cancelled context: got %v", err)
	}
	for range readers {
		wg.Go(func() {
			if _, err := p.Next(context.Background()); !errors.Is(err, os.ErrClosed) {
				t.Errorf("next after close: got %v, want os.ErrClosed", err)
			}
		})
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	wg.Wait()
	if n := p.Inject(numbered(0, 60)); n != 0 {
		t.Errorf("inject after close: got %d accepted, want 0", n)
	}
}

func TestOptionsDepth(t *testing.T) {
	if _, err := mem.New(mem.Options{Depth: -1}); err == nil {
		t.Error("depth -1: got nil error")
	}
	if _, _, err := mem.Pair(mem.Options{Depth: -1}); err == nil {
		t.Error("pair of depth -1: got nil error")
	}
	p := open(t, mem.Options{})
	for range mem.DefaultDepth + 5 {
		p.InjectFrames(frame.Frame{Data: numbered(0, 60)})
	}
	if got := p.Stats().Overrun; got != 5 {
		t.Errorf("overrun: got %d, want 5", got)
	}
}

func TestReceive(t *testing.T) {
	p := open(t, mem.Options{Depth: 64})
	data := numbered(0, 1514)
	b := frame.NewBatch(1 << 20)
	cycle := func() {
		p.Inject(data)
		b.Reset()
		p.Receive(b)
	}
	for range 64 {
		cycle()
	}
	if allocs := testing.AllocsPerRun(100, cycle); allocs != 0 {
		t.Errorf("allocations: got %v, want 0", allocs)
	}
}

func TestTransmit(t *testing.T) {
	a, b, err := mem.Pair(mem.Options{Depth: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	out := outgoing(frame.Frame{Data: numbered(0, 1514), Push: frame.MakeTag(10, 0, false)})
	in := frame.NewBatch(1 << 20)
	cycle := func() {
		a.Transmit(out)
		in.Reset()
		b.Receive(in)
	}
	for range 64 {
		cycle()
	}
	if allocs := testing.AllocsPerRun(100, cycle); allocs != 0 {
		t.Errorf("allocations: got %v, want 0", allocs)
	}
}

func BenchmarkReplay(b *testing.B) {
	for _, size := range []int{60, 1514} {
		b.Run(map[int]string{60: "60B", 1514: "1514B"}[size]+"/batch64", func(b *testing.B) {
			from, to := open(b, mem.Options{}), open(b, mem.Options{Discard: true})
			if err := from.Replay([]frame.Frame{{Data: numbered(0, size)}}, uint64(b.N)); err != nil {
				b.Fatal(err)
			}
			batch := frame.NewBatch(1 << 20)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			for from.Receive(batch); batch.Len() > 0; from.Receive(batch) {
				to.Transmit(batch)
				batch.Reset()
			}
			if got := to.Stats().Sent; got != uint64(b.N) {
				b.Fatalf("sent: got %d, want %d", got, b.N)
			}
		})
	}
}

func BenchmarkPair(b *testing.B) {
	x, y, err := mem.Pair(mem.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	defer y.Close()
	out, in := frame.NewBatch(0), frame.NewBatch(1<<20)
	for i := range frame.BatchLen {
		out.Frames = append(out.Frames, frame.Frame{Data: numbered(i, 60)})
	}
	b.SetBytes(60)
	b.ReportAllocs()
	for n := 0; n < b.N; n += frame.BatchLen {
		x.Transmit(out)
		in.Reset()
		y.Receive(in)
	}
}
