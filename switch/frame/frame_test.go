package frame_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/tapestry-net/tapestry/switch/frame"
)

func TestParseMAC(t *testing.T) {
	for _, c := range []struct {
		in   string
		want frame.MAC
		bad  bool
	}{
		{in: "02:00:00:00:00:01", want: frame.MAC{2, 0, 0, 0, 0, 1}},
		{in: "AA-bb-CC-dd-EE-ff", want: frame.MAC{0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}},
		{in: "02:00:00:00:00:1", bad: true},
		{in: "02:00:00-00:00:01", bad: true},
		{in: "02:00:00:00:00:0g", bad: true},
		{in: "0200.0000.0001", bad: true},
		{in: "", bad: true},
		{in: strings.Repeat("02:", 100), bad: true},
	} {
		got, err := frame.ParseMAC(c.in)
		if (err != nil) != c.bad || got != c.want {
			t.Errorf("ParseMAC(%q) = %v, %v; want %v, error %v", c.in, got, err, c.want, c.bad)
		}
	}
}

func TestMACProperties(t *testing.T) {
	m := frame.MustParseMAC("01:80:c2:00:00:0e")
	if !m.IsReserved() || !m.IsGroup() || m.IsZero() {
		t.Errorf("%v: reserved %v group %v zero %v", m, m.IsReserved(), m.IsGroup(), m.IsZero())
	}
	if frame.MustParseMAC("01:80:c2:00:00:10").IsReserved() {
		t.Error("01:80:c2:00:00:10 is not reserved")
	}
	if !frame.Broadcast.IsGroup() || !(frame.MAC{}).IsZero() {
		t.Error("broadcast is a group address and the zero MAC is zero")
	}
}

func FuzzMAC(f *testing.F) {
	f.Add("02:00:00:00:00:01")
	f.Add("ff-ff-ff-ff-ff-ff")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := frame.ParseMAC(s)
		if err != nil {
			return
		}
		if back := frame.MACFromUint64(m.Uint64()); back != m {
			t.Errorf("%v through Uint64 = %v", m, back)
		}
		var again frame.MAC
		if text, _ := m.MarshalText(); again.UnmarshalText(text) != nil || again != m {
			t.Errorf("%v through text = %v", m, again)
		}
	})
}

func TestTag(t *testing.T) {
	tag := frame.MakeTag(10, 3, true)
	if tag.VID() != 10 || tag.PCP() != 3 || !tag.DEI() || !tag.Present() {
		t.Errorf("tag %+v: vid %d pcp %d dei %v", tag, tag.VID(), tag.PCP(), tag.DEI())
	}
	if got := tag.WithVID(20); got.VID() != 20 || got.PCP() != 3 || !got.DEI() {
		t.Errorf("WithVID(20) = %+v", got)
	}
	if got := (frame.Tag{}).WithVID(7); !got.Present() || got.VID() != 7 || got.PCP() != 0 {
		t.Errorf("WithVID on no tag = %+v", got)
	}
	for v, want := range map[frame.VID]bool{0: false, 1: true, 4094: true, 4095: false} {
		if v.Valid() != want {
			t.Errorf("VID %d valid = %v", v, v.Valid())
		}
	}
}

// FuzzParse compares the parser with gopacket's Ethernet and 802.1Q layers.
func FuzzParse(f *testing.F) {
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06payload"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x81\x00\x60\x0a\x08\x00payload"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xa8\x60\x0a\x81\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := frame.Parse(b)
		var eth layers.Ethernet
		if err := eth.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
			if ok && len(b) < frame.HeaderLen {
				t.Fatalf("parsed %d octets", len(b))
			}
			return
		}
		if !ok {
			if len(b) >= frame.HeaderLen+frame.TagLen {
				t.Fatalf("refused %d octets", len(b))
			}
			return
		}
		if !bytes.Equal(h.Dst[:], eth.DstMAC) || !bytes.Equal(h.Src[:], eth.SrcMAC) {
			t.Errorf("addresses %v %v, want %v %v", h.Dst, h.Src, eth.DstMAC, eth.SrcMAC)
		}
		if want := eth.EthernetType == layers.EthernetTypeDot1Q; h.Tag.Present() != want {
			t.Errorf("tag present = %v, want %v", h.Tag.Present(), want)
		}
		if h.Tag.Present() {
			var q layers.Dot1Q
			if err := q.DecodeFromBytes(b[14:], gopacket.NilDecodeFeedback); err != nil {
				t.Fatal(err)
			}
			if uint16(h.Tag.VID()) != q.VLANIdentifier || uint8(h.Tag.PCP()) != q.Priority {
				t.Errorf("tag %+v, want %+v", h.Tag, q)
			}
		}
	})
}

func TestFrameLengths(t *testing.T) {
	f := frame.Frame{Data: make([]byte, 18), Frags: [][]byte{make([]byte, 100), make([]byte, 50)}, Pop: true}
	if got := f.Len(); got != 164 {
		t.Errorf("Len with a popped tag = %d, want 164", got)
	}
	f.Push = frame.MakeTag(20, 0, false)
	if got, shift := f.Len(), f.Shift(); got != 168 || shift != 0 {
		t.Errorf("retagged: Len %d Shift %d, want 168 0", got, shift)
	}
	f.Pop = false
	if got := f.Shift(); got != 4 {
		t.Errorf("Shift of a push = %d, want 4", got)
	}
	if got := f.L3Len(18); got != 150 {
		t.Errorf("L3Len = %d, want 150", got)
	}
	g := frame.Frame{Data: make([]byte, 9000), GSO: frame.GSO{Type: frame.GSOTCPv4, HdrLen: 54, Size: 1460}}
	if got := g.L3Len(14); got != 1500 {
		t.Errorf("L3Len of a GSO frame = %d, want 1500", got)
	}
}

func TestBatchPacksFrames(t *testing.T) {
	b := frame.NewBatch(256 << 10)
	small := 0
	for !b.Full() {
		room := b.Room()
		if len(room) < frame.MaxLen+frame.Headroom {
			t.Fatalf("room of %d octets", len(room))
		}
		room[frame.Headroom] = byte(small)
		b.Commit(frame.Headroom, frame.Headroom+60)
		small++
	}
	if small != frame.BatchLen || b.Room() != nil {
		t.Errorf("%d small frames, want %d; room %v", small, frame.BatchLen, b.Room() != nil)
	}
	for i, f := range b.Frames {
		if len(f.Data) != 60 || f.Data[0] != byte(i) {
			t.Errorf("frame %d: %d octets, first %d", i, len(f.Data), f.Data[0])
		}
	}
	b.Reset()
	big := 0
	for r := b.Room(); r != nil; r = b.Room() {
		b.Commit(frame.Headroom, len(r))
		big++
	}
	if big != 3 {
		t.Errorf("%d frames of the greatest length in 256 KiB, want 3", big)
	}
	if out := frame.NewBatch(0); out.Room() != nil || out.Len() != 0 {
		t.Error("an outgoing batch has no memory of its own")
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	data := []byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x81\x00\x60\x0a\x08\x00payload")
	b := frame.NewBatch(256 << 10)
	n := testing.AllocsPerRun(100, func() {
		b.Reset()
		copy(b.Room()[frame.Headroom:], data)
		f := b.Commit(frame.Headroom, frame.Headroom+len(data))
		if _, ok := frame.Parse(f.Data); !ok || f.Len() == 0 {
			t.Error("frame not parsed")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestReasons holds the enum to the product's contract.
func TestReasons(t *testing.T) {
	const contract = `known_unicast unknown_unicast broadcast multicast
		too_short too_long bad_source vlan_not_member tag_not_accepted vid_reserved reserved_group port_down spoofed_source storm loop
		same_port no_egress split_horizon isolated mtu_exceeded transmit_refused queue_full egress_down
		unknown_peer unknown_vni vni_not_allowed vxlan_flags vxlan_reserved inner_short inner_tagged plaintext_refused not_encrypted_yet bad_record replayed
		ttl_exceeded no_route martian bad_checksum bad_header neighbour_unresolved frag_needed`
	names := strings.Fields(contract)
	if got := int(frame.NumReasons) - 1; got != len(names) {
		t.Errorf("%d reasons, the contract has %d", got, len(names))
	}
	for i, name := range names {
		var r frame.Reason
		if err := r.UnmarshalText([]byte(name)); err != nil {
			t.Error(err)
			continue
		}
		if int(r) != i+1 || r.String() != name || r.Doc() == "" || r.Stage() == frame.StageNone {
			t.Errorf("reason %d %q: number %d, doc %q, stage %v", i+1, name, r, r.Doc(), r.Stage())
		}
		if want := i >= 4; r.IsDrop() != want {
			t.Errorf("%s: drop = %v, want %v", name, r.IsDrop(), want)
		}
	}
	var r frame.Reason
	if r.UnmarshalText([]byte("nonsense\x1b[2J")) == nil {
		t.Error("an unknown reason was taken")
	}
	if frame.NumReasons.String() == "" || frame.NumReasons.Doc() != "" || frame.NumReasons.IsDrop() {
		t.Error("a number out of range has a name, no doc, and is no drop")
	}
}

func TestActionNames(t *testing.T) {
	for a, want := range map[frame.Action]string{frame.Drop: "drop", frame.Forward: "forward", frame.Flood: "flood", frame.Local: "local", 99: "invalid"} {
		if a.String() != want {
			t.Errorf("action %d = %q, want %q", a, a, want)
		}
	}
}

// TestImportsStandardLibraryOnly keeps the lowest tier low.
func TestImportsStandardLibraryOnly(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range files {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		src, err := os.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(src, []byte(`"github.com/`)) || bytes.Contains(src, []byte(`"golang.org/`)) {
			t.Errorf("%s imports more than the standard library", e.Name())
		}
	}
}
