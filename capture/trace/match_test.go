package trace_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/bpf"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/switch/frame"
)

var (
	macA, macB = frame.MustParseMAC("02:00:00:00:00:0a"), frame.MustParseMAC("02:00:00:00:00:0b")
	keys       = func() (all []trace.Key) {
		for _, p := range []trace.Proto{trace.ICMP, trace.UDP, trace.TCP} {
			for _, a := range [][2]string{{"10.1.0.2", "10.2.0.3"}, {"fd00:1::2", "fd00:2::3"}} {
				all = append(all, trace.Key{ID: 0x0123456789abcdef, Proto: p, Src: netip.MustParseAddr(a[0]), Dst: netip.MustParseAddr(a[1]), Port: p.DefaultPort()})
			}
		}
		return all
	}()
)

// sight matches one frame.
func sight(k *trace.Key, b []byte) (trace.Sight, bool) {
	var s trace.Sight
	ok := trace.NewMatcher(k).Frame(b, &s)
	return s, ok
}

// TestPacket: gopacket, which is not ours, finds every header and checksum good.
func TestPacket(t *testing.T) {
	for _, k := range keys {
		if err := k.Check(); err != nil {
			t.Fatal(err)
		}
		b := trace.Frame(macB, macA, frame.MakeTag(10, 0, false), k.Packet(7))
		p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
		if e := p.ErrorLayer(); e != nil {
			t.Errorf("%s %v: %v", k.Proto, k.Src, e.Error())
		}
		// Writing the layers again with checksums of their own changes nothing.
		var all []gopacket.SerializableLayer
		for _, l := range p.Layers() {
			switch l := l.(type) {
			case *layers.UDP:
				_ = l.SetNetworkLayerForChecksum(p.NetworkLayer())
				all = append(all, l)
			case *layers.TCP:
				_ = l.SetNetworkLayerForChecksum(p.NetworkLayer())
				all = append(all, l)
			case *layers.ICMPv6:
				_ = l.SetNetworkLayerForChecksum(p.NetworkLayer())
				all = append(all, l, gopacket.Payload(l.Payload)) // what it knows of echo leaves the data out
			case *layers.ICMPv6Echo:
			case gopacket.SerializableLayer:
				all = append(all, l)
			}
		}
		buf := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
			t.Fatal(err)
		}
		if got := buf.Bytes()[:len(b)]; !bytes.Equal(got, b) {
			t.Errorf("%s %v: built\n%x, gopacket builds\n%x", k.Proto, k.Src, b, got)
		}
	}
}

// TestMatchInvariant: whatever bridges, tunnels and routers change, the probe is
// known; a packet that differs in what they don't is another one.
func TestMatchInvariant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.SampledFrom(keys).Draw(t, "key")
		k.ID = trace.ID(rapid.Uint64().Draw(t, "id"))
		b := trace.Frame(macB, macA, frame.Tag{}, k.Packet(64))
		ttl, csum := 14+8, 14+10
		if k.Src.Is6() {
			ttl, csum = 14+7, 0
		}
		b[ttl] = byte(rapid.IntRange(1, 255).Draw(t, "ttl"))
		copy(b, rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "macs"))
		if csum != 0 {
			binary.BigEndian.PutUint16(b[csum:], rapid.Uint16().Draw(t, "checksum"))
		}
		for range rapid.IntRange(0, 3).Draw(t, "tags") {
			tag := []byte{0x81, 0, 0, byte(rapid.IntRange(1, 200).Draw(t, "vid"))}
			b = slices.Insert(b, 12, tag...)
		}
		s, ok := sight(&k, append(b, make([]byte, rapid.IntRange(0, 10).Draw(t, "padding"))...))
		if !ok || s.What != trace.Probe || s.From != k.Src || s.To != k.Dst {
			t.Fatalf("the probe is not known: %v %+v", ok, s)
		}
		if h, _ := frame.Parse(b); s.Src != h.Src || s.Dst != h.Dst || s.Tag != h.Tag {
			t.Fatalf("%+v is not of %x", s, b)
		}
		k.ID ^= 1 << rapid.IntRange(0, 63).Draw(t, "bit")
		if _, ok := sight(&k, b); ok && k.Proto != trace.TCP {
			t.Fatal("another trace's probe is taken for this one's")
		}
	})
}

// answers to a probe, as other kernels and routers would send them.
func answers(k *trace.Key) map[trace.What][]byte {
	probe := k.Packet(3)
	l4 := probe[20:]
	if k.Src.Is6() {
		l4 = probe[40:]
	}
	back := trace.Key{ID: k.ID ^ 0xffffffff, Proto: k.Proto, Src: k.Dst, Dst: k.Src, Port: k.Port}
	packet := func(proto byte, l4 []byte) []byte {
		b := back.Packet(64)
		if k.Src.Is6() {
			b[6] = proto
			return append(b[:40], l4...)
		}
		b[9] = proto
		return append(b[:20], l4...)
	}
	quoting := func(t byte) []byte {
		body := append([]byte{t, 0, 0, 0, 0, 0, 0, 0}, probe[:min(len(probe), len(probe)-len(l4)+8)]...)
		if k.Src.Is6() {
			return packet(58, body)
		}
		return packet(1, body)
	}
	m := map[trace.What][]byte{}
	if k.Src.Is6() {
		m[trace.Unreachable], m[trace.TooBig], m[trace.TimeExceeded], m[trace.BadHeader] = quoting(1), quoting(2), quoting(3), quoting(4)
	} else {
		m[trace.Unreachable], m[trace.TimeExceeded], m[trace.BadHeader] = quoting(3), quoting(11), quoting(12)
	}
	swapped := func() []byte {
		b := bytes.Clone(l4)
		copy(b, l4[2:4])
		copy(b[2:], l4[:2])
		return b
	}
	switch k.Proto {
	case trace.ICMP:
		b := bytes.Clone(l4)
		if b[0] = 0; k.Src.Is6() {
			b[0] = 129
			m[trace.EchoReply] = packet(58, b)
		} else {
			m[trace.EchoReply] = packet(1, b)
		}
	case trace.UDP:
		m[trace.Datagram] = packet(17, append(swapped()[:8], "hello"...))
	case trace.TCP:
		for what, flags := range map[trace.What]byte{trace.SynAck: 0x12, trace.Reset: 0x14} {
			b := swapped()
			b[13] = flags
			binary.BigEndian.PutUint32(b[8:], k.Sequence()+1)
			m[what] = packet(6, b)
		}
	}
	return m
}

func TestMatchAnswers(t *testing.T) {
	for _, k := range keys {
		all := answers(&k)
		if len(all) < 4 {
			t.Errorf("%s %v: only %d kinds of answer", k.Proto, k.Src, len(all))
		}
		for what, b := range all {
			s, ok := sight(&k, trace.Frame(macA, macB, frame.Tag{}, b))
			if !ok || s.What != what || s.TTL != 64 || s.From != k.Dst || !s.Answer() {
				t.Errorf("%s %v: %v is taken for %v, %+v", k.Proto, k.Src, what, ok, s)
			}
			other := k
			other.ID ^= 1<<40 | 1<<20 | 1
			if s, ok := sight(&other, trace.Frame(macA, macB, frame.Tag{}, b)); ok && what != trace.Datagram {
				t.Errorf("%s %v: %v of another trace is taken for %+v", k.Proto, k.Src, what, s)
			}
		}
	}
}

// TestMatchBehindNAT: the payload tells where addresses and ports are others.
func TestMatchBehindNAT(t *testing.T) {
	for _, k := range keys {
		b := k.Packet(64)
		n := 4
		at := 12
		if k.Src.Is6() {
			n, at = 16, 8
		}
		b[at+n-1] ^= 0x55 // source NAT
		l4 := at + 2*n
		if k.Proto == trace.UDP {
			b[l4+1] ^= 0x55 // and another source port
		}
		if s, ok := sight(&k, trace.Frame(macB, macA, frame.Tag{}, b)); !ok || s.What != trace.Probe || s.From == k.Src {
			t.Errorf("%s %v: behind NAT: %v %+v", k.Proto, k.Src, ok, s)
		}
	}
}

// TestBPF: whatever of a trace is known is passed, behind NAT too; of other
// traffic nothing is but ICMP. The VM has no offsets from the network header, so
// it is given packets without Ethernet.
func TestBPF(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.SampledFrom(keys).Draw(t, "key")
		k.ID = trace.ID(rapid.Uint64().Draw(t, "id"))
		if p, err := k.BPF(); err != nil || len(p) != len(k.Program()) {
			t.Fatalf("%d instructions, %v", len(p), err)
		}
		vm, err := bpf.NewVM(k.Program())
		if err != nil {
			t.Fatal(err)
		}
		nat := k.Packet(64)
		binary.BigEndian.PutUint16(nat[map[bool]int{false: 20, true: 40}[k.Src.Is6()]:], rapid.Uint16().Draw(t, "port"))
		packets := [][]byte{k.Packet(64), nat}
		for _, b := range answers(&k) {
			packets = append(packets, b)
		}
		b := bytes.Clone(rapid.SampledFrom(packets).Draw(t, "packet"))
		for range rapid.IntRange(0, 4).Draw(t, "changes") { // NAT's and others
			b[rapid.IntRange(0, len(b)-1).Draw(t, "octet")] ^= byte(rapid.IntRange(1, 255).Draw(t, "change"))
		}
		if rapid.IntRange(0, 4).Draw(t, "cut") == 4 {
			b = b[:rapid.IntRange(0, len(b)).Draw(t, "length")]
		}
		n, err := vm.Run(b)
		if err != nil {
			t.Fatal(err)
		}
		var s trace.Sight
		if trace.NewMatcher(&k).Packet(b, &s) && n < len(b) {
			t.Fatalf("%s %v: %x is %v of the trace, and is not passed", k.Proto, k.Src, b, s.What)
		}
		other := k
		other.ID ^= trace.ID(rapid.Uint64Range(1, 1<<64-1).Draw(t, "other"))
		other.ID ^= 1 << 20 // of the source port
		if other.SourcePort() == k.SourcePort() || other.Sequence() == k.Sequence() || k.Sequence()+1 == 0 {
			return
		}
		if n, err := vm.Run(other.Packet(64)); err != nil || n != 0 && k.Proto != trace.ICMP {
			t.Fatalf("%s %v: the probe of another trace is passed: %d, %v", k.Proto, k.Src, n, err)
		}
	})
}

// TestMatchBehindPortNAT: behind NAT that has chosen another source port the
// answers are known as what they are.
func TestMatchBehindPortNAT(t *testing.T) {
	for _, k := range keys {
		if k.Proto == trace.ICMP {
			continue
		}
		all := answers(&k)
		for what, b := range all {
			b = bytes.Clone(b)
			at, n, l4 := 12, 4, 20
			if k.Src.Is6() {
				at, n, l4 = 8, 16, 40
			}
			b[at+2*n-1] ^= 0x55 // to the router that translates
			switch what {
			case trace.SynAck, trace.Reset, trace.Datagram:
				b[l4+3] ^= 0x55
			default: // what it quotes came from there
				q := b[l4+8:]
				q[at+n-1] ^= 0x55
				q[l4+1] ^= 0x55
			}
			if what == trace.Datagram { // that of an echo server
				b = append(b[:l4+8:l4+8], k.Packet(64)[l4+8:]...)
			}
			if s, ok := sight(&k, trace.Frame(macB, macA, frame.Tag{}, b)); !ok || s.What != what {
				t.Errorf("%s %v: %v behind NAT: %v %v", k.Proto, k.Src, what, ok, s.What)
			}
		}
	}
}

func TestKeyCheck(t *testing.T) {
	a, b := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::1")
	for name, k := range map[string]trace.Key{
		"protocol":     {Proto: "sctp", Src: a, Dst: a},
		"families":     {Proto: trace.ICMP, Src: a, Dst: b},
		"no address":   {Proto: trace.ICMP, Src: a},
		"mapped":       {Proto: trace.ICMP, Src: netip.MustParseAddr("::ffff:10.0.0.1"), Dst: b},
		"zone":         {Proto: trace.ICMP, Src: netip.MustParseAddr("fe80::1%eth0"), Dst: b},
		"port":         {Proto: trace.UDP, Src: a, Dst: a},
		"port of ICMP": {Proto: trace.ICMP, Src: a, Dst: a, Port: 7},
	} {
		if k.Check() == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestID(t *testing.T) {
	id, got := trace.ID(0x0123456789abcdef), trace.ID(0)
	b, _ := id.MarshalText()
	if err := got.UnmarshalText(b); err != nil || got != id || string(b) != "0123456789abcdef" {
		t.Errorf("got %v, %v by %s", got, err, b)
	}
	for _, bad := range []string{"", "0123456789abcde", "0123456789abcdefg", "0123456789abcdeg"} {
		if got.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}

func observation(b []byte, copies ...frame.Copy) *frame.Observation {
	return &frame.Observation{Time: start, In: 1, Frame: &frame.Frame{Data: b}, Verdict: frame.Verdict{Action: frame.Flood, Reason: frame.UnknownUnicast, VID: 10}, Copies: copies}
}

func TestWatcher(t *testing.T) {
	k := keys[0]
	w := trace.NewWatcher(trace.NewMatcher(&k))
	probe := trace.Frame(macB, macA, frame.Tag{}, k.Packet(64))
	w.Observe(observation(trace.Frame(macB, macA, frame.Tag{}, keys[2].Packet(64))))
	w.Observe(observation(probe, make([]frame.Copy, trace.MaxCopies+3)...))
	<-w.Ready()
	seen, lost := w.Seen()
	if len(seen) != 1 || lost != 0 || len(seen[0].Copies()) != trace.MaxCopies || seen[0].More != 3 || seen[0].In != 1 || seen[0].Time != start {
		t.Errorf("got %+v, %d lost", seen, lost)
	}
	for range trace.MaxHops + 4 {
		w.Observe(observation(probe))
	}
	if seen, lost = w.Seen(); len(seen) != trace.MaxHops || lost != 5 {
		t.Errorf("%d seen, %d lost, want %d and 5", len(seen), lost, trace.MaxHops)
	}
}

// TestObserve: observing costs no allocation, whether the frame is the trace's or
// not.
func TestObserve(t *testing.T) {
	k := keys[0]
	m := trace.NewMatcher(&k)
	for name, b := range map[string][]byte{"probe": k.Packet(64), "other": keys[2].Packet(64)} {
		o := observation(trace.Frame(macB, macA, frame.Tag{}, b), frame.Copy{Port: 2})
		w := trace.NewWatcher(m)
		if n := testing.AllocsPerRun(1000, func() { w.Observe(o) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

// TestRefused looks into a datagram of a tunnel, of either family.
func TestRefused(t *testing.T) {
	k := keys[0]
	inner := trace.Frame(macB, macA, frame.Tag{}, k.Packet(64))
	for _, outer := range []trace.Key{keys[2], keys[3]} {
		p := outer.Packet(64)
		n := map[bool]int{false: 20, true: 40}[outer.Src.Is6()] + 8
		b := append(trace.Frame(macA, macB, frame.Tag{}, p[:n]), make([]byte, 8)...) // UDP, then VXLAN
		w := trace.NewWatcher(trace.NewMatcher(&k))
		for cut := range len(b) + 1 {
			trace.Refused{Watcher: w}.Observe(observation(b[:cut]))
		}
		trace.Refused{Watcher: w}.Observe(observation(append(b, inner...)))
		if seen, _ := w.Seen(); len(seen) != 1 || seen[0].What != trace.Probe || seen[0].Sight.Dst != macB {
			t.Errorf("%v: seen %+v", outer.Src, seen)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	k := keys[0]
	o := observation(trace.Frame(macB, macA, frame.Tag{}, keys[4].Packet(64)), frame.Copy{Port: 2})
	w := trace.NewWatcher(trace.NewMatcher(&k))
	b.ReportAllocs()
	for b.Loop() {
		w.Observe(o)
	}
}

// FuzzMatch: whatever is on the wire, matching reads nothing that isn't there,
// and what it knows as the probe has the mark.
func FuzzMatch(f *testing.F) {
	for _, k := range keys {
		f.Add(trace.Frame(macB, macA, frame.Tag{}, k.Packet(64)))
		for _, b := range answers(&k) {
			f.Add(trace.Frame(macB, macA, frame.MakeTag(5, 0, false), b))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, k := range keys {
			s, ok := sight(&k, b[:len(b):len(b)])
			if !ok {
				continue
			}
			var mark [8]byte
			binary.BigEndian.PutUint64(mark[:], uint64(k.ID))
			id, seq := k.Echo()
			var short [4]byte
			binary.BigEndian.PutUint16(short[:], id)
			binary.BigEndian.PutUint16(short[2:], seq)
			if k.Proto == trace.ICMP && !bytes.Contains(b, mark[:]) && !bytes.Contains(b, short[:]) {
				t.Errorf("%x is %+v without any mark", b, s)
			}
			if s.From.Is4() != k.Src.Is4() || s.What > trace.BadHeader {
				t.Errorf("%x is %+v", b, s)
			}
		}
	})
}
