package vswitch

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
)

// still is a loop that no goroutine runs, with ports in memory that discard.
func still(t testing.TB, ports int, edit func(*Port)) (*loop, *view) {
	t.Helper()
	const limit = 1 << 16
	words := make([]uint64, fdb.Size(limit)/8+1)
	table, err := fdb.Open(unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), fdb.Size(limit)), limit)
	if err != nil {
		t.Fatal(err)
	}
	clk, err := newClock(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &Switch{fdb: table, clock: clk, events: make(chan Event, 1), guard: newGuard()}
	l, err := newLoop(s, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.release)
	spec := Spec{Networks: []Network{{Name: "blue", VID: 10, MTU: 1500}}}
	for i := range ports {
		q, err := mem.New(mem.Options{Discard: true, Offloads: ^frame.Offloads(0)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { q.Close() })
		p := Port{ID: frame.PortID(i + 1), Name: string(rune('a' + i)), Queue: q, Native: 10}
		if edit != nil {
			edit(&p)
		}
		spec.Ports = append(spec.Ports, p)
	}
	v, err := compile(spec, &view{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return l, v
}

// fill makes b hold 64 frames of 60 octets.
func fill(b *frame.Batch, dst, src func(i int) frame.MAC) {
	b.Reset()
	for i := range frame.BatchLen {
		room := b.Room()[frame.Headroom:]
		d, s := dst(i), src(i)
		copy(room, d[:])
		copy(room[6:], s[:])
		copy(room[12:], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1})
		copy(room[22:], s[:])
		b.Commit(frame.Headroom, frame.Headroom+60)
	}
}

func one(m frame.MAC) func(int) frame.MAC { return func(int) frame.MAC { return m } }

var alice, bob = frame.MAC{2, 0, 0, 0, 0, 1}, frame.MAC{2, 0, 0, 0, 0, 2}

// TestForward asserts that no stage of the forward path allocates, and with it
// classify, filter, honest, take, admit, hears, learn, decide, relay, carry,
// send, flush, transmit, transmitFan, interleave, fail, transmitted and dispatch,
// which it calls.
func TestForward(t *testing.T) {
	guards := func(p *Port) {
		p.LoopGuard = true
		p.Storm = Storm{Broadcast: 1000, Unknown: 1000, Multicast: 1000}
		if p.ID == 1 {
			p.MACPin = alice
		}
	}
	refusing := func(p *Port) { p.Queue.(*mem.Port).RefuseEvery(1+int(p.ID)%2, unix.ENOBUFS) }
	fan := func(p *Port) { p.Queue = blade{p.Queue} }
	move := 0
	for name, tt := range map[string]struct {
		ports int
		edit  func(*Port)
		dst   func(int) frame.MAC
		src   func(int) frame.MAC
		learn bool
	}{
		"unicast":        {2, nil, one(bob), one(alice), true},
		"flood":          {3, nil, one(frame.Broadcast), one(alice), false},
		"flood to many":  {maxOut + 20, nil, one(frame.Broadcast), one(alice), false},
		"guards":         {3, guards, one(frame.Broadcast), one(alice), false},
		"many stations":  {2, nil, one(bob), func(int) frame.MAC { move++; return frame.MACFromUint64(0x020000010000 + uint64(move)) }, true},
		"refused frames": {2, nil, one(bob), one(frame.Broadcast), true},
		"refused copies": {2, refusing, one(bob), one(alice), true},
		"fan":            {5, fan, one(frame.Broadcast), one(alice), false},
	} {
		t.Run(name, func(t *testing.T) {
			l, v := still(t, tt.ports, tt.edit)
			if tt.learn {
				l.sw.fdb.Learn(fdb.MakeKey(10, bob), 2, 0, nil)
			}
			if n := testing.AllocsPerRun(100, func() {
				fill(l.batch, tt.dst, tt.src)
				l.now += 1e6
				l.forwardFrom(v, v.ports[1])
			}); n != 0 {
				t.Errorf("forwarding a batch allocates %v times, want 0", n)
			}
		})
	}
}

// blade is a queue of the one fan there is, which refuses every fourth frame.
type blade struct{ Queue }

func (blade) Fan() frame.Fan { return quarters{} }

type quarters struct{}

func (quarters) TransmitTo(_ []frame.PortID, b *frame.Batch) (sent int, err error) {
	for i := range b.Frames {
		if b.Frames[i].Refused = i%4 == 3; b.Frames[i].Refused {
			err = unix.ENOBUFS
			continue
		}
		sent++
	}
	return sent, err
}

func TestReceive(t *testing.T) {
	l, v := still(t, 2, nil)
	q := v.ports[1].queue.(*mem.Port)
	f := make([]byte, 60)
	copy(f[6:], alice[:])
	copy(f, bob[:])
	if err := q.Replay([]frame.Frame{{Data: f}}, 1<<30); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { l.receive(v, v.ports[1], 1) }); n != 0 {
		t.Errorf("receiving allocates %v times, want 0", n)
	}
}

func BenchmarkForward(b *testing.B) {
	bench := func(name string, ports int, dst, src func(int) frame.MAC) {
		b.Run(name, func(b *testing.B) {
			l, v := still(b, ports, nil)
			l.sw.fdb.Learn(fdb.MakeKey(10, bob), 2, 0, nil)
			fill(l.batch, dst, src)
			b.SetBytes(60)
			b.ReportAllocs()
			for i := 0; i < b.N; i += frame.BatchLen {
				l.forwardFrom(v, v.ports[1])
			}
			copies := l.cells.sent.load()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(copies), "ns/copy")
		})
	}
	bench("unicast/60B/batch64", 2, one(bob), one(alice))
	bench("unicast/60B/batch64/64sources", 2, one(bob), func(i int) frame.MAC { return frame.MACFromUint64(0x020000000100 + uint64(i)) })
	bench("flood100/60B/batch64", 101, one(frame.Broadcast), one(alice))
	bench("flood1000/60B/batch64", 1001, one(frame.Broadcast), one(alice))
}

// BenchmarkUnwatched is forwarding while nobody looks, and beside it the questions
// whether somebody does, alone: as many for each batch, frame, copy and list of
// copies as forward asks.
func BenchmarkUnwatched(b *testing.B) {
	b.Run("forward", func(b *testing.B) {
		l, v := still(b, 2, nil)
		l.sw.fdb.Learn(fdb.MakeKey(10, bob), 2, 0, nil)
		fill(l.batch, one(bob), one(alice))
		for i := 0; i < b.N; i += frame.BatchLen {
			l.forwardFrom(v, v.ports[1])
		}
		if got, least := l.cells.sent.load(), uint64(b.N); got < least {
			b.Fatalf("%d frames forwarded, want %d or more", got, least)
		}
	})
	b.Run("questions", func(b *testing.B) {
		l, _ := still(b, 2, nil)
		shown := 0
		ask := func() {
			if l.observed != nil {
				shown++
			}
		}
		for i := 0; i < b.N; i += frame.BatchLen {
			l.observed = l.sw.watcher.Load()
			ask()
			for range frame.BatchLen {
				ask() // its copy is decided about,
				ask() // and waits,
				ask() // and there are no more
			}
			ask()
			ask()
		}
		if shown != 0 {
			b.Fatal("somebody looks")
		}
	})
}

// BenchmarkLearn is the rate of new addresses through port/mem: each frame
// comes from a station never seen, and the table forgets what came before.
func BenchmarkLearn(b *testing.B) {
	l, v := still(b, 2, nil)
	l.sw.fdb.Learn(fdb.MakeKey(10, bob), 2, 0, nil)
	next := uint64(0x020000010000)
	b.ReportAllocs()
	for i := 0; i < b.N; i += frame.BatchLen {
		if next%(1<<15) == 0 {
			b.StopTimer()
			l.sw.fdb.Flush(fdb.Filter{Port: 1})
			b.StartTimer()
		}
		fill(l.batch, one(bob), func(int) frame.MAC { next++; return frame.MACFromUint64(next) })
		l.forwardFrom(v, v.ports[1])
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "MAC/s")
}

// forwardFrom forwards the loop's batch as if it had come in by p.
func (l *loop) forwardFrom(v *view, p *port) {
	for i := range l.batch.Frames {
		l.ins[i] = p
	}
	l.forward(v)
}

// rotating is a Receiver whose batches hold 64 frames of ports 1 to ports in turn.
type rotating struct {
	ports int
	left  int
}

func (r *rotating) FD() int       { return 1 }
func (r *rotating) Waiting() bool { return r.left > 0 }

func (r *rotating) Receive(b *frame.Batch) error {
	r.left--
	fill(b, one(bob), func(i int) frame.MAC { return frame.MACFromUint64(0x020000000100 + uint64(i%r.ports)) })
	for i := range b.Frames {
		b.Frames[i].In, b.Frames[i].VID = frame.PortID(1+i%r.ports), 10
	}
	return nil
}

func TestReceiveAny(t *testing.T) {
	l, v := still(t, 5, func(p *Port) {
		if p.ID < 5 {
			p.Native, p.Tagged = 0, []frame.VID{10}
		}
	})
	l.sw.fdb.Learn(fdb.MakeKey(10, bob), 5, 0, nil)
	r := &rotating{ports: 4}
	h := &hearer{from: r, line: new(line)}
	if n := testing.AllocsPerRun(100, func() {
		r.left = 3
		l.receiveAny(v, h)
	}); n != 0 {
		t.Errorf("receiving for several ports allocates %v times, want 0", n)
	}
	if got, want := v.ports[1].count.sum().RX.Frames, uint64(101*3*16); got != want {
		t.Errorf("port 1 counts %d frames, want %d", got, want)
	}
}
