package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// ours is a capture of two ports, with three packets.
func ours(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := capture.NewWriter(&b, "test", "")
	for _, name := range []string{"h1/c1", "h1/c2"} {
		if _, err := w.Interface(capture.Interface{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range []capture.Packet{
		{Data: []byte("first packet of all"), Len: 19, Direction: capture.In, Decision: "flood"},
		{Data: []byte("second, of which more was heard"), Len: 100, Direction: capture.Out},
		{Data: []byte("third"), Len: 5, Direction: capture.In},
	} {
		if err := w.Packet(i%2, &p, uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// theirs is a classic pcap of that link type, in that order of octets.
func theirs(order binary.AppendByteOrder, magic, link uint32, packets ...string) []byte {
	b := order.AppendUint32(nil, magic)
	b = append(b, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0)
	b = order.AppendUint32(b, 65535)
	b = order.AppendUint32(b, link)
	for _, p := range packets {
		b = append(b, make([]byte, 8)...)
		b = order.AppendUint32(b, uint32(len(p)))
		b = append(order.AppendUint32(b, uint32(len(p))), p...)
	}
	return b
}

func TestReadPacket(t *testing.T) {
	for n, want := range []capture.Recorded{
		{Interface: "h1/c1", Data: []byte("first packet of all"), Len: 19},
		{Interface: "h1/c2", Data: []byte("second, of which more was heard"), Len: 100, Outbound: true},
		{Interface: "h1/c1", Data: []byte("third"), Len: 5},
	} {
		got, err := capture.ReadPacket(bytes.NewReader(ours(t)), n+1)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("packet %d: %v; want (-), got (+):\n%s", n+1, err, d)
		}
	}
	for name, order := range map[string]binary.AppendByteOrder{"little": binary.LittleEndian, "big": binary.BigEndian} {
		for _, magic := range []uint32{0xa1b2c3d4, 0xa1b23c4d} {
			got, err := capture.ReadPacket(bytes.NewReader(theirs(order, magic, 1, "one", "two")), 2)
			if err != nil || string(got.Data) != "two" || got.Len != 3 {
				t.Errorf("%s-endian pcap %x: got %+v, %v", name, magic, got, err)
			}
		}
	}
}

// TestReadPacketSays: an error tells what is wrong, and of which packet.
func TestReadPacketSays(t *testing.T) {
	file := ours(t)
	huge := theirs(binary.LittleEndian, 0xa1b2c3d4, 1, "one")
	binary.LittleEndian.PutUint32(huge[32:], 1<<31)
	block := bytes.Clone(file)
	binary.LittleEndian.PutUint32(block[4:], 1<<30)
	for _, c := range []struct {
		name string
		b    []byte
		n    int
		want string
	}{
		{"number", file, 0, "counted from 1"},
		{"beyond", file, 4, "the capture has 3"},
		{"empty", nil, 1, "neither pcap nor pcapng"},
		{"text", []byte("hello, world"), 1, "neither pcap nor pcapng"},
		{"any", theirs(binary.BigEndian, 0xa1b2c3d4, 113, "one"), 1, "link type is 113"},
		{"cut", file[:len(file)-10], 3, "packet 3: the file ends"},
		{"cut head", theirs(binary.BigEndian, 0xa1b2c3d4, 1)[:20], 1, "the file ends"},
		{"huge packet", huge, 1, "262144 are the most"},
		{"huge block", block, 1, "1073741824 octets"},
		{"long", theirs(binary.BigEndian, 0xa1b2c3d4, 1, strings.Repeat("x", 70000)), 1, "at most"},
	} {
		if _, err := capture.ReadPacket(bytes.NewReader(c.b), c.n); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", c.name, err, c.want)
		}
	}
	if _, err := capture.ReadPacket(bytes.NewReader(file), 9); !errors.Is(err, capture.ErrNoPacket) {
		t.Errorf("beyond the end: got %v, want ErrNoPacket", err)
	}
	if _, err := capture.ReadPacket(bytes.NewReader(theirs(binary.BigEndian, 0xa1b2c3d4, 113, "one")), 2); !errors.Is(err, capture.ErrNoPacket) {
		t.Errorf("another link type that was not asked for: got %v, want ErrNoPacket", err)
	}
}

// FuzzReadPacket compares with gopacket's readers: what they read, we read.
func FuzzReadPacket(f *testing.F) {
	f.Add(ours(f), uint8(1))
	f.Add(theirs(binary.LittleEndian, 0xa1b2c3d4, 1, "one", "two"), uint8(2))
	var b bytes.Buffer
	if w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet); err == nil {
		_ = w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 2), CaptureLength: 4, Length: 9}, []byte("four"))
		_ = w.Flush()
	}
	f.Add(b.Bytes(), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, n uint8) {
		got, err := capture.ReadPacket(bytes.NewReader(b), int(n))
		if len(got.Data) > len(b) {
			t.Fatalf("%d octets out of a file of %d", len(got.Data), len(b))
		}
		if err != nil {
			return
		}
		want, length, ok := reference(b, int(n))
		if ok && (!bytes.Equal(got.Data, want) || got.Len != length) {
			t.Errorf("packet %d: got %d octets of %d, gopacket has %d of %d", n, len(got.Data), got.Len, len(want), length)
		}
	})
}

// reference is packet n by gopacket; not ok when it doesn't read so far.
func reference(b []byte, n int) (data []byte, length int, ok bool) {
	var r interface {
		ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	}
	pcap, err := pcapgo.NewReader(bytes.NewReader(b))
	if r = pcap; err != nil {
		ng, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.NgReaderOptions{WantMixedLinkType: true})
		if r = ng; err != nil {
			return nil, 0, false
		}
	}
	for range n {
		var ci gopacket.CaptureInfo
		if data, ci, err = r.ReadPacketData(); err != nil {
			return nil, 0, false
		}
		length = ci.Length
	}
	return data, length, true
}

// TestDatagramOf takes datagrams out of frames, and nothing out of what has none.
func TestDatagramOf(t *testing.T) {
	v4 := switchtest.UDPFrame(switchtest.Station4(1), switchtest.Station4(2), []byte("hello"))
	v4[15] = 0xb9
	v6 := switchtest.UDPFrame(switchtest.Station6(1), switchtest.Station6(2), []byte("hello"))
	v6[14], v6[15] = 0x6b, 0x90
	for _, b := range [][]byte{v4, v6, switchtest.Tagged(5, 0, v4), switchtest.Padded(v4)} {
		d, ok := capture.DatagramOf(b)
		if !ok || string(d.Payload) != "hello" || d.TOS != 0xb9 || d.From != switchtest.Station4(1).Addr && d.From != switchtest.Station6(1).Addr {
			t.Errorf("%x: got %+v, %v", b, d, ok)
		}
		h, _ := frame.Parse(b)
		for n := range b {
			if d, ok := capture.DatagramOf(b[:n]); ok && string(d.Payload) != "hello" {
				t.Errorf("%x: got %+v", b[:n], d)
			}
		}
		fragment := bytes.Clone(b)
		fragment[h.Len+6] |= 0x20
		if _, ok := capture.DatagramOf(fragment); ok && h.EtherType == frame.EtherTypeIPv4 {
			t.Errorf("a fragment was taken for a datagram")
		}
	}
	if _, ok := capture.DatagramOf(switchtest.EchoFrame(switchtest.Station4(1), switchtest.Station4(2), 1, 1, nil)); ok {
		t.Error("a ping was taken for a datagram")
	}
}

// FuzzDatagramOf: what is taken out of a frame was in it.
func FuzzDatagramOf(f *testing.F) {
	f.Add(switchtest.UDPFrame(switchtest.Station4(1), switchtest.Station4(2), []byte("hello")))
	f.Add(switchtest.UDPFrame(switchtest.Station6(1), switchtest.Station6(2), []byte("hello")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, ok := capture.DatagramOf(b); ok && (!d.From.IsValid() || !bytes.Contains(b, d.Payload)) {
			t.Errorf("%x: got %+v", b, d)
		}
	})
}

// TestReadPacketEndless: a file without end is given up where it is no capture.
func TestReadPacketEndless(t *testing.T) {
	if _, err := capture.ReadPacket(zeros{}, 1); err == nil || !strings.Contains(fmt.Sprint(err), "neither") {
		t.Errorf("zeros without end: got %v", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

var _ io.Reader = zeros{}
