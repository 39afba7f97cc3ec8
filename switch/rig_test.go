package vswitch_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"

	"github.com/tapestry-net/tapestry/fdb"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
)

// patience bounds every wait for something that the switch does by itself.
const patience = 10 * time.Second

// TestMain wants no goroutine to be left.
func TestMain(m *testing.M) {
	code := m.Run()
	err := goleak.Find()
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
		err = goleak.Find()
	}
	if code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// rig is a switch whose ports are in memory. Port IDs count from 1 in the order
// of the spec.
type rig struct {
	t     testing.TB
	sw    *vswitch.Switch
	table *fdb.Table
	spec  vswitch.Spec
	ports []*mem.Port // by ID less one
	sent  uint64

	mu     sync.Mutex
	events []vswitch.Event
}

func newTable(t testing.TB, limit int) *fdb.Table {
	t.Helper()
	words := make([]uint64, (fdb.Size(limit)+7)/8)
	table, err := fdb.Open(unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), fdb.Size(limit)), limit)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// start builds a switch of spec. Ports without a Queue get a memory port with
// every offload; edit changes the options.
func start(t testing.TB, spec vswitch.Spec, edit ...func(*vswitch.Options)) *rig {
	t.Helper()
	r := &rig{t: t, table: newTable(t, 4096)}
	o := vswitch.Options{FDB: r.table, Loops: 1, Events: func(e vswitch.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	}}
	for _, f := range edit {
		f(&o)
	}
	sw, err := vswitch.New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.sw = sw
	t.Cleanup(func() {
		if err := sw.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if p.ID == 0 {
			p.ID = frame.PortID(i + 1)
		}
		if p.Name == "" {
			p.Name = fmt.Sprintf("p%d", p.ID)
		}
		q := openPort(t, mem.Options{Offloads: ^frame.Offloads(0)})
		r.ports = append(r.ports, q)
		if p.Queue == nil {
			p.Queue = q
		}
	}
	r.spec = spec
	r.apply(spec)
	return r
}

func openPort(t testing.TB, o mem.Options) *mem.Port {
	t.Helper()
	p, err := mem.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// manualClock returns an option for a clock that only advance moves.
func manualClock() (option func(*vswitch.Options), advance func(time.Duration)) {
	var mu sync.Mutex
	now := time.Now()
	option = func(o *vswitch.Options) {
		o.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}
	}
	advance = func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	return option, advance
}

func (r *rig) apply(spec vswitch.Spec) {
	r.t.Helper()
	if err := r.sw.Apply(spec); err != nil {
		r.t.Fatal(err)
	}
}

// until yields until ok, or fails the test.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain for %s; stats %+v", what, r.sw.Stats())
		}
	}
}

// send injects frames at port id and waits until all of their copies have left.
func (r *rig) send(id int, frames ...[]byte) {
	r.t.Helper()
	for _, f := range frames {
		r.sendFrames(id, frame.Frame{Data: f})
	}
}

func (r *rig) sendFrames(id int, frames ...frame.Frame) {
	r.t.Helper()
	n := r.ports[id-1].InjectFrames(frames...)
	if n != len(frames) {
		r.t.Fatalf("inject at port %d: %d of %d frames taken", id, n, len(frames))
	}
	r.sent += uint64(n)
	r.settle()
}

func (r *rig) settle() {
	r.t.Helper()
	r.until("frames to be forwarded", func() bool { return r.sw.Stats().RxFrames >= r.sent })
}

// heard empties the ports and returns which of them had heard something.
func (r *rig) heard() []int {
	var ids []int
	for i, p := range r.ports {
		if len(p.Drain()) > 0 {
			ids = append(ids, i+1)
		}
	}
	return ids
}

// expect sends one frame and checks who hears it.
func (r *rig) expect(what string, from int, f []byte, want ...int) {
	r.t.Helper()
	r.send(from, f)
	if got := r.heard(); !slices.Equal(got, want) {
		r.t.Errorf("%s: heard by %v, want %v", what, got, want)
	}
}

// drops is how many drops of a reason port id counts.
func (r *rig) drops(id int, why frame.Reason) uint64 {
	s, ok := r.sw.PortStats(frame.PortID(id))
	if !ok {
		r.t.Fatalf("port %d has no counters", id)
	}
	return s.Drops[why]
}

// event waits for an event of kind k.
func (r *rig) event(k vswitch.EventKind) vswitch.Event {
	r.t.Helper()
	var found vswitch.Event
	r.until("event "+k.String(), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		i := slices.IndexFunc(r.events, func(e vswitch.Event) bool { return e.Kind == k })
		if i >= 0 {
			found = r.events[i]
			r.events = slices.Delete(r.events, i, i+1)
		}
		return i >= 0
	})
	return found
}

// conserve checks the law of conservation, which holds as soon as the loops have
// published what they did.
func (r *rig) conserve() {
	r.t.Helper()
	broken := r.unconserved()
	for end := time.Now().Add(patience); broken != "" && time.Now().Before(end); runtime.Gosched() {
		broken = r.unconserved()
	}
	if broken != "" {
		r.t.Error(broken)
	}
}

// unconserved says what the counters break of the law.
func (r *rig) unconserved() string {
	s := r.sw.Stats()
	var verdicts, drops, reasons uint64
	for _, n := range s.Verdicts {
		verdicts += n
	}
	for i, n := range s.Drops {
		drops += n
		reasons += s.Reasons[i]
	}
	if s.RxFrames != verdicts || s.RxFrames != reasons {
		return fmt.Sprintf("rx frames %d, verdicts %d, by reason %d: want all the same", s.RxFrames, verdicts, reasons)
	}
	if s.Decided != s.Sent+s.Refused {
		return fmt.Sprintf("copies decided %d, sent %d, refused %d: want sent + refused = decided", s.Decided, s.Sent, s.Refused)
	}
	if want := s.Verdicts[frame.Drop] + s.Refused; drops != want {
		return fmt.Sprintf("drops %d, want verdicts.drop %d + refused %d", drops, s.Verdicts[frame.Drop], s.Refused)
	}
	return ""
}

// mac is the station numbered n.
func mac(n int) frame.MAC { return frame.MACFromUint64(0x020000000000 + uint64(n)) }

// eth is a frame of 60 octets from station src to dst.
func eth(dst, src frame.MAC) []byte {
	b := slices.Concat(dst[:], src[:], []byte{0x88, 0xb5})
	return append(b, make([]byte, 46)...)
}

// tagged puts a C-tag into f.
func tagged(f []byte, t frame.Tag) []byte {
	return slices.Concat(f[:12], []byte{0x81, 0, byte(t.TCI >> 8), byte(t.TCI)}, f[12:])
}

// bridge is one network of VID 10 with n access ports.
func bridge(n int) vswitch.Spec {
	s := vswitch.Spec{Networks: []vswitch.Network{{Name: "blue", VID: 10, Ageing: 300 * time.Second}}}
	for range n {
		s.Ports = append(s.Ports, vswitch.Port{Native: 10})
	}
	return s
}

var multicast = frame.MAC{0x01, 0, 0x5e, 1, 2, 3}

func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) }
