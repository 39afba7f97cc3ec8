package switchtest

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// plain returns a frame of n octets from src to dst whose bytes tell i.
func plain(dst, src Station, i, n int) frame.Frame {
	payload := Pattern(n - frame.HeaderLen)
	if len(payload) >= 4 {
		binary.BigEndian.PutUint32(payload, uint32(i))
	}
	return frame.Frame{Data: EthFrame(dst.MAC, src.MAC, etherTypeTest, payload)}
}

func sameBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %d octets, want %d\ngot\n%swant\n%s", what, len(got), len(want), dump(got), dump(want))
	}
}

func receiveAll(t *testing.T, o *bench) {
	const n = 2*frame.BatchLen + 10
	for i := range n {
		o.send(t, plain(near, away, i, 60))
	}
	b := frame.NewBatch(1 << 20)
	seen := 0
	for end := time.Now().Add(patience); seen < n; {
		if !poll(t, o.Queue.FD(), time.Until(end)) {
			t.Fatalf("got %d frames, want %d", seen, n)
		}
		b.Reset()
		if err := o.Queue.Receive(b); err != nil {
			t.Fatalf("receive: %v", err)
		}
		if !b.Full() && poll(t, o.Queue.FD(), 0) && b.Len() == 0 {
			t.Fatal("receive stopped at an empty batch while the queue is readable")
		}
		for _, f := range b.Frames {
			if ours(f) {
				sameBytes(t, "frame", f.Data, plain(near, away, seen, 60).Data)
				seen++
			}
		}
	}
}

func readableWhile(t *testing.T, o *bench) {
	b := frame.NewBatch(1 << 20)
	empty := func() bool {
		for range 1000 { // a kernel's own frames may come in between
			b.Reset()
			if err := o.Queue.Receive(b); err != nil {
				t.Fatalf("receive: %v", err)
			}
			if !poll(t, o.Queue.FD(), 0) {
				return true
			}
		}
		return false
	}
	for range 3 {
		if !empty() {
			t.Fatal("the descriptor stays readable after everything was received")
		}
		o.send(t, plain(near, away, 0, 60))
		if !poll(t, o.Queue.FD(), patience) {
			t.Fatal("the descriptor is not readable while a frame waits")
		}
	}
}

// lengths are those where drivers err: the least, those around the least of a
// wire, odd ones and the greatest.
func (o *bench) lengths() []int {
	return []int{14, 15, 17, 18, 59, 60, 61, 64, 127, 128, 513, 1000, o.MTU + frame.HeaderLen - 1, o.MTU + frame.HeaderLen}
}

func lengthsIn(t *testing.T, o *bench) {
	for i, n := range o.lengths() {
		f := plain(near, away, i, n)
		o.send(t, f)
		sameBytes(t, "frame in", o.next(t).Data, f.Data)
	}
}

func lengthsOut(t *testing.T, o *bench) {
	for i, n := range o.lengths() {
		f := plain(away, near, i, n)
		o.transmit(t, f)
		sameBytes(t, "frame out", o.arrive(t).Data, f.Data)
	}
}

// tagForms are the tags in front of a frame that have to survive.
var tagForms = []struct {
	name string
	with func(f []byte) []byte
	need Capability
}{
	{"VID 10 PCP 5", func(f []byte) []byte { return Tagged(10, 5, f) }, CapTags},
	{"VID 4094 PCP 7", func(f []byte) []byte { return Tagged(4094, 7, f) }, CapTags},
	{"priority tag", func(f []byte) []byte { return Tagged(frame.VIDPriority, 3, f) }, CapTags},
	{"two C-tags", func(f []byte) []byte { return Tagged(10, 1, Tagged(20, 2, f)) }, CapTags},
	{"S-tag", func(f []byte) []byte { return STagged(100, 4, f) }, CapSTags},
	{"S-tag and C-tag", func(f []byte) []byte { return STagged(100, 4, Tagged(10, 5, f)) }, CapSTags},
}

func tagsIn(t *testing.T, o *bench) {
	for _, form := range tagForms {
		t.Run(form.name, func(t *testing.T) {
			if !o.has(t, form.need) {
				return
			}
			f := frame.Frame{Data: form.with(plain(near, away, 1, 100).Data)}
			o.send(t, f)
			sameBytes(t, form.name, o.next(t).Data, f.Data)
		})
	}
}

func tagsOut(t *testing.T, o *bench) {
	for _, form := range tagForms {
		t.Run(form.name, func(t *testing.T) {
			if !o.has(t, form.need) {
				return
			}
			f := frame.Frame{Data: form.with(plain(away, near, 1, 100).Data)}
			o.transmit(t, f)
			sameBytes(t, form.name, o.arrive(t).Data, f.Data)
		})
	}
}

func pushPop(t *testing.T, o *bench) {
	if !o.has(t, CapTags) {
		return
	}
	bare := plain(away, near, 1, 100).Data
	push := frame.MakeTag(20, 6, false)
	tests := []struct {
		name string
		f    frame.Frame
		want []byte
	}{
		{"push", frame.Frame{Data: bare, Push: push}, Tagged(20, 6, bare)},
		{"pop", frame.Frame{Data: Tagged(10, 3, bare), Pop: true}, bare},
		{"retag", frame.Frame{Data: Tagged(10, 3, bare), Pop: true, Push: push}, Tagged(20, 6, bare)},
		{"push on a tag", frame.Frame{Data: Tagged(10, 3, bare), Push: push}, Tagged(20, 6, Tagged(10, 3, bare))},
		{"pop of two", frame.Frame{Data: Tagged(10, 3, Tagged(11, 4, bare)), Pop: true}, Tagged(11, 4, bare)},
		{"gather", frame.Frame{Data: bare[:30], Frags: [][]byte{bare[30:31], bare[31:90], bare[90:]}}, bare},
		{"push and gather", frame.Frame{Data: bare[:40], Frags: [][]byte{bare[40:]}, Push: push}, Tagged(20, 6, bare)},
		{"pop and gather", frame.Frame{Data: Tagged(10, 3, bare[:40]), Frags: [][]byte{bare[40:]}, Pop: true}, bare},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := bytes.Clone(tt.f.Data)
			o.transmit(t, tt.f)
			sameBytes(t, tt.name, o.arrive(t).Data, tt.want)
			sameBytes(t, "transmit wrote into Data", tt.f.Data, before)
		})
	}
}

func refused(t *testing.T, o *bench) {
	if !o.has(t, CapRefuse) {
		return
	}
	b := frame.NewBatch(0)
	b.Frames = append(b.Frames, plain(away, near, 1, 60), frame.Frame{Data: near.MAC[:]}, plain(away, near, 2, 60))
	b.Frames[1].Data = plain(away, near, 0, 60).Data[:13]
	sent, err := o.Queue.Transmit(b)
	if sent != 2 || err == nil {
		t.Errorf("transmit good, short, good: got %d, %v, want 2 and an error", sent, err)
	}
	for i, want := range []bool{false, true, false} {
		if got := b.Frames[i].Refused; got != want {
			t.Errorf("frame %d: got Refused %v, want %v", i, got, want)
		}
	}
	for i := 1; i <= 2; i++ {
		sameBytes(t, "frame beside the refused one", o.arrive(t).Data, plain(away, near, i, 60).Data)
	}
}

func offloadsConstant(t *testing.T, o *bench) {
	before := o.Queue.Offloads()
	o.transmit(t, plain(away, near, 1, 60))
	o.arrive(t)
	if got := o.Queue.Offloads(); got != before {
		t.Errorf("offloads: got %b, want %b as before", got, before)
	}
}

func deviceGone(t *testing.T, o *bench) {
	if !o.has(t, CapUnplug) {
		return
	}
	if o.Unplug == nil {
		t.Fatal("Opened.Unplug is nil, and Lacks does not say why")
	}
	o.Unplug()
	b := frame.NewBatch(1 << 20)
	for end := time.Now().Add(patience); ; b.Reset() {
		if !poll(t, o.Queue.FD(), time.Until(end)) {
			t.Fatal("the descriptor of a device that has gone is not readable")
		}
		if err := o.Queue.Receive(b); err != nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("receive from a device that has gone: got no error")
		}
	}
}

func closeTwice(t *testing.T, o *bench) {
	for range 2 {
		if err := o.Queue.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

func noAllocation(t *testing.T, o *bench) {
	const runs = 20
	out := frame.NewBatch(0)
	out.Frames = append(out.Frames, plain(away, near, 1, 1000))
	if o.Lacks[CapTags] == "" {
		out.Frames = append(out.Frames, frame.Frame{Data: out.Frames[0].Data, Push: frame.MakeTag(10, 0, false)})
	}
	transmit := func() { o.Queue.Transmit(out) }
	// Memory that a port keeps for reuse is warm after some rounds.
	for range 256 {
		transmit()
		for range out.Frames {
			o.arrive(t)
		}
	}
	if got := testing.AllocsPerRun(runs, transmit); got != 0 {
		t.Errorf("transmit: got %v allocations a batch, want 0", got)
	}
	for i := range runs + 1 {
		o.send(t, plain(near, away, i, 1000))
	}
	one := frame.NewBatch(frame.MaxLen + 2*frame.Headroom)
	if got := testing.AllocsPerRun(runs, func() {
		one.Reset()
		o.Queue.Receive(one)
	}); got != 0 {
		t.Errorf("receive: got %v allocations a batch, want 0", got)
	}
}

// descriptors opens ports and counts what stays behind.
func descriptors(t *testing.T, open func(t *testing.T) Opened) {
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	// The first round leaves what the runtime keeps, such as its own epoll.
	t.Run("warm", func(t *testing.T) { open(t).Queue.Close() })
	before := count()
	for range 3 {
		t.Run("open", func(t *testing.T) { open(t).Queue.Close() })
	}
	if got := count(); got > before {
		t.Errorf("descriptors after three ports were closed: got %d, want %d", got, before)
	}
}
