package capture_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/capture/filter"
	"github.com/tapestry-net/tapestry/capture/record"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// eth is a frame of n octets from station src, tagged or not.
func eth(src byte, tag frame.Tag, n int) []byte {
	b := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, src}
	if tag.Present() {
		b = binary.BigEndian.AppendUint16(b, uint16(tag.TPID))
		b = binary.BigEndian.AppendUint16(b, tag.TCI)
	}
	b = append(b, 0x88, 0xb5)
	for len(b) < n {
		b = append(b, byte(len(b)))
	}
	return b
}

func observation(data []byte, v frame.Verdict, copies ...frame.Copy) *frame.Observation {
	return &frame.Observation{Time: time.Unix(1700000000, 123456789), In: 1, Frame: &frame.Frame{Data: data}, Verdict: v, Copies: copies}
}

var flood = frame.Verdict{Action: frame.Flood, Reason: frame.BroadcastAddr, VID: 10}

// expand returns the packets of everything in the ring, in words.
func expand(r *capture.Ring, segment bool) (lines []string) {
	x := capture.NewExpander(names, segment, 0)
	var rec capture.Record
	for r.Poll(&rec) {
		_ = x.Expand(&rec, func(p *capture.Packet) error {
			lines = append(lines, fmt.Sprintf("%v c%d %v %d/%d %s %s %s", p.Time.Nanosecond(), p.Port, p.Direction, len(p.Data), p.Len,
				hex.EncodeToString(p.Data[min(12, len(p.Data)):min(18, len(p.Data))]), p.Decision, p.Note))
			return nil
		})
	}
	return lines
}

func compile(t testing.TB, expr string) *filter.Program {
	t.Helper()
	p, err := filter.Compile(expr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestChoice(t *testing.T) {
	tag := frame.MakeTag(10, 3, false)
	refused := frame.Copy{Port: 4, Refused: frame.QueueFull}
	tagged := observation(eth(1, tag, 60), flood, frame.Copy{Port: 2}, frame.Copy{Port: 3, Tag: tag}, refused)
	dropped := observation(eth(1, frame.Tag{}, 60), frame.Verdict{Reason: frame.Storm})
	const why = "flood blue broadcast → c2,c3,c4(queue_full) "
	in := "123456789 c1 in 60/60 8100600a88b5 " + why
	out2 := "123456789 c2 out 56/56 88b512131415 " + why
	out3 := "123456789 c3 out 60/60 8100600a88b5 " + why
	for name, c := range map[string]struct {
		choice capture.Choice
		see    *frame.Observation
		want   []string
	}{
		"all":           {capture.Choice{}, tagged, []string{in, out2, out3}},
		"in":            {capture.Choice{Direction: capture.In}, tagged, []string{in}},
		"out":           {capture.Choice{Direction: capture.Out}, tagged, []string{out2, out3}},
		"one port":      {capture.Choice{Ports: []frame.PortID{3}}, tagged, []string{out3}},
		"another port":  {capture.Choice{Ports: []frame.PortID{9}}, tagged, nil},
		"tagged ones":   {capture.Choice{Filter: compile(t, "vlan 10")}, tagged, []string{in, out3}},
		"untagged ones": {capture.Choice{Filter: compile(t, "not vlan")}, tagged, []string{out2}},
		"refused":       {capture.Choice{Drops: true}, tagged, []string{"123456789 c4 out 56/56 88b512131415 " + why}},
		"dropped":       {capture.Choice{Drops: true}, dropped, []string{"123456789 c1 in 60/60 88b50e0f1011 drop storm "}},
		"snapped":       {capture.Choice{Snap: 1, Ports: []frame.PortID{2}}, observation(eth(1, frame.Tag{}, 200), flood, frame.Copy{Port: 2, Tag: tag}), []string{"123456789 c2 out 68/204 8100600a88b5 flood blue broadcast → c2 "}},
	} {
		r := capture.NewRing(c.choice, 0)
		r.Observe(c.see)
		if got := expand(r, false); !slices.Equal(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, c.want)
		}
	}
}

// TestGSO: a GSO frame is one packet with a note, or the segments it stands for.
func TestGSO(t *testing.T) {
	data, _ := hex.DecodeString("02000000000202000000000108004500" + "0000" + "00000000400600000a0100020a010003" + "00160016" + "00000001" + "00000000" + "5018ffff00000000")
	data = append(data, make([]byte, 2500)...)
	binary.BigEndian.PutUint16(data[16:], uint16(len(data)-14))
	o := observation(data, frame.Verdict{Action: frame.Forward, Reason: frame.KnownUnicast, VID: 10, Out: 2}, frame.Copy{Port: 2})
	o.Frame.GSO = frame.GSO{Type: frame.GSOTCPv4, NeedsCsum: true, HdrLen: 54, Size: 1000, CsumStart: 34, CsumOffset: 16}
	r := capture.NewRing(capture.Choice{Direction: capture.Out}, 0)
	r.Observe(o)
	want := "123456789 c2 out 2554/2554 0800450009ec forward blue known_unicast → c2 GSO frame of 3 segments of 1000 octets"
	if got := expand(r, false); !slices.Equal(got, []string{want}) {
		t.Errorf("got %q, want %q", got, want)
	}
	r.Observe(o)
	got := expand(r, true)
	if len(got) != 3 || !strings.Contains(got[0], "1054/1054") || !strings.Contains(got[2], "554/554") {
		t.Errorf("segments: %q", got)
	}
}

// TestRingAgainstSlice drives the ring and a bounded list with the same
// observations: what comes out is what went in, in order, or is counted.
func TestRingAgainstSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := capture.NewRing(capture.Choice{Direction: capture.In}, 1)
		var want [][]byte
		var rec capture.Record
		lost := uint64(0)
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "read") == 0 {
				if got := r.Poll(&rec); got != (len(want) > 0) {
					t.Fatalf("Poll says %v with %d records", got, len(want))
				} else if got {
					if !bytes.Equal(rec.Data, want[0]) || rec.In != 1 || rec.Verdict != flood || rec.Len != len(want[0]) {
						t.Fatalf("got %d octets, want %d", len(rec.Data), len(want[0]))
					}
					want = want[1:]
				}
				continue
			}
			data := eth(byte(rapid.IntRange(1, 250).Draw(t, "src")), frame.Tag{}, rapid.IntRange(14, 65000).Draw(t, "len"))
			before := r.LostAll()
			r.Observe(observation(data, flood))
			if r.LostAll() == before {
				want = append(want, data)
			} else {
				lost++
			}
		}
		if r.Lost(1) != lost {
			t.Fatalf("lost %d, counted %d", lost, r.Lost(1))
		}
	})
}

// TestRingConcurrently: several loops write, one reader reads slowly at times;
// each record is whole, and read plus lost is what was observed.
func TestRingConcurrently(t *testing.T) {
	const writers, each = 4, 5000
	r := capture.NewRing(capture.Choice{Direction: capture.In}, 1)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				o := observation(eth(byte(w), frame.Tag{}, 60+i%1400), flood, frame.Copy{Port: 7})
				o.In = frame.PortID(w + 1)
				r.Observe(o)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	read := uint64(0)
	var rec capture.Record
	for {
		if r.Poll(&rec) {
			if want := eth(byte(rec.In-1), frame.Tag{}, rec.Len); !bytes.Equal(rec.Data, want) {
				t.Fatalf("a record of c%d is not what was written", rec.In)
			}
			read++
			continue
		}
		select {
		case <-r.Ready():
			continue
		case <-done:
		}
		if !r.Poll(&rec) {
			break
		}
		read++
	}
	if got := read + r.LostAll(); got != writers*each {
		t.Errorf("read and lost are %d, want %d", got, writers*each)
	}
}

func TestObserve(t *testing.T) {
	r := capture.NewRing(capture.Choice{Filter: compile(t, "vlan 10 or udp")}, 0)
	tag := frame.MakeTag(10, 0, false)
	o := observation(eth(1, tag, 1500), flood, frame.Copy{Port: 2}, frame.Copy{Port: 3, Tag: tag})
	var rec capture.Record
	r.Observe(o)
	r.Poll(&rec) // its list of copies now has room
	if n := testing.AllocsPerRun(1000, func() {
		r.Observe(o)
		r.Poll(&rec)
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
	for r.LostAll() == 0 {
		r.Observe(o)
	}
	if n := testing.AllocsPerRun(1000, func() { r.Observe(o) }); n != 0 {
		t.Errorf("full ring: got %v allocations, want 0", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	for _, bc := range []struct{ name, expr string }{{"all", ""}, {"filter", "tcp port 443 and host 10.1.0.2"}} {
		b.Run(bc.name, func(b *testing.B) {
			r := capture.NewRing(capture.Choice{Filter: compile(b, bc.expr)}, 0)
			o := observation(eth(1, frame.Tag{}, 1500), flood, frame.Copy{Port: 2})
			var rec capture.Record
			b.ReportAllocs()
			for b.Loop() {
				r.Observe(o)
				r.Poll(&rec)
			}
		})
	}
}

// record writes a capture of four observations, a port of which appears late.
func recorded(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	sink := capture.NewPcapng(&b, nil, "tapestry test", "a test", func(id frame.PortID) capture.Interface {
		return capture.Interface{Name: fmt.Sprintf("h128/c%d", id), Description: fmt.Sprintf("tap port eth%d", id), Filter: "arp"}
	})
	r := capture.NewRing(capture.Choice{}, 1)
	for _, n := range []int{60, 61, 62, 1500} {
		r.Observe(observation(eth(1, frame.Tag{}, n), flood, frame.Copy{Port: 2, Tag: frame.MakeTag(10, 0, false)}, frame.Copy{Port: 3, Refused: frame.MTUExceeded}))
	}
	for r.LostAll() == 0 {
		r.Observe(observation(eth(1, frame.Tag{}, 60000), flood))
	}
	s := &capture.Stream{Ring: r, Expander: capture.NewExpander(names, false, 0), Sink: sink, Ports: []frame.PortID{1}, Count: 9}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestInteropTshark(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.pcapng")
	if err := os.WriteFile(file, recorded(t), 0o600); err != nil {
		t.Fatal(err)
	}
	const why = "flood blue broadcast → c2,c3(mtu_exceeded)"
	got := switchtest.TShark(t, file, "frame.interface_name", "frame.interface_description", "frame.packet_flags_direction", "frame.packet_flags_reception_type",
		"frame.time_epoch", "frame.len", "vlan.id", "frame.comment")
	want := []string{
		"h128/c1|tap port eth1|0x00000001|3|1700000000.123456789|60||" + why,
		"h128/c2|tap port eth2|0x00000002|3|1700000000.123456789|64|10|" + why,
		"h128/c1|tap port eth1|0x00000001|3|1700000000.123456789|61||" + why,
		"h128/c2|tap port eth2|0x00000002|3|1700000000.123456789|65|10|" + why,
	}
	if len(got) != 9 || !slices.Equal(got[:4], want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	out, err := netnstest.Try("capinfos", file)
	if err != nil {
		t.Fatalf("capinfos: %v: %s", err, out)
	}
	for _, s := range []string{"Number of packets:   9", "Number of interfaces in file: 2", "nanoseconds (9)", "Name = h128/c1", "Capture application: tapestry test"} {
		if !strings.Contains(out, s) {
			t.Errorf("capinfos does not say %q:\n%s", s, out)
		}
	}
}

// stuck is a sink that takes nothing until it is let go.
type stuck struct {
	capture.Sink
	entered, release chan struct{}
	once             sync.Once
}

func (s *stuck) Packet(p *capture.Packet, lost uint64) error {
	s.once.Do(func() { close(s.entered); <-s.release })
	return s.Sink.Packet(p, lost)
}

// TestStalledReader: while a sink is stuck Observe goes on, and what was lost is
// in the file: before the packet behind the gap, and in the statistics.
func TestStalledReader(t *testing.T) {
	var b bytes.Buffer
	s := &stuck{entered: make(chan struct{}), release: make(chan struct{}), Sink: capture.NewPcapng(&b, nil, "", "",
		func(frame.PortID) capture.Interface { return capture.Interface{Name: "h128/c1"} })}
	r := capture.NewRing(capture.Choice{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	st := &capture.Stream{Ring: r, Expander: capture.NewExpander(names, false, 0), Sink: s, Count: 3000}
	done := make(chan error)
	go func() { done <- st.Run(ctx) }()
	r.Observe(observation(eth(1, frame.Tag{}, 60), flood))
	<-s.entered
	for range 1000 {
		r.Observe(observation(eth(1, frame.Tag{}, 1500), flood))
	}
	lost := r.LostAll()
	if lost < 200 || lost > 400 {
		t.Errorf("%d of 1000 lost in a ring for 680", lost)
	}
	close(s.release)
	for done != nil {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			done = nil
		default:
			r.Observe(observation(eth(1, frame.Tag{}, 61), flood))
		}
	}
	file := filepath.Join(t.TempDir(), "f.pcapng")
	f, err := record.Create(file, record.Rotation{}, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	if f.Packets() != 3000 || f.Lost() < lost {
		t.Errorf("the file has %d packets and says that %d were lost, want 3000 and at least %d", f.Packets(), f.Lost(), lost)
	}
	sum := 0
	for _, v := range switchtest.TShark(t, file, "frame.drop_count") {
		n := 0
		fmt.Sscan(v, &n)
		sum += n
	}
	if uint64(sum) < lost {
		t.Errorf("packets say that %d were lost, want at least %d", sum, lost)
	}
}
