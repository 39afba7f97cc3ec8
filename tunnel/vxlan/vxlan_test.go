package vxlan_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// inner is the shortest inner frame: an Ethernet header.
const inner = "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06"

func datagram(v vxlan.VNI, frame string) []byte {
	b := make([]byte, vxlan.HeaderLen, vxlan.HeaderLen+len(frame))
	vxlan.Put(b, v)
	return append(b, frame...)
}

func TestPut(t *testing.T) {
	for v, want := range map[vxlan.VNI]string{
		0:                    "\x08\x00\x00\x00\x00\x00\x00\x00",
		10010:                "\x08\x00\x00\x00\x00\x27\x1a\x00",
		vxlan.MaxVNI:         "\x08\x00\x00\x00\xff\xff\xff\x00",
		vxlan.MaxVNI + 1 + 7: "\x08\x00\x00\x00\x00\x00\x07\x00",
	} {
		b := []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xffrest")
		vxlan.Put(b, v)
		if got := string(b[:8]); got != want || string(b[8:]) != "\xffrest" {
			t.Errorf("Put(%d) = %x then %q, want %x", v, got, b[8:], want)
		}
	}
	b := make([]byte, vxlan.HeaderLen)
	if n := testing.AllocsPerRun(100, func() { vxlan.Put(b, 7) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestParse(t *testing.T) {
	good := datagram(10010, inner+"payload")
	for _, c := range []struct {
		name string
		in   []byte
		mode vxlan.Mode
		vni  vxlan.VNI
		want frame.Reason
	}{
		{name: "good", in: good, vni: 10010},
		{name: "network 0", in: datagram(0, inner), vni: 0},
		{name: "highest network", in: datagram(vxlan.MaxVNI, inner), vni: vxlan.MaxVNI},
		{name: "nothing", want: frame.InnerShort},
		{name: "seven octets", in: good[:7], want: frame.InnerShort},
		{name: "header only", in: good[:8], vni: 10010, want: frame.InnerShort},
		{name: "inner of 13 octets", in: good[:21], vni: 10010, want: frame.InnerShort},
		{name: "inner of 14 octets", in: good[:22], vni: 10010},
		{name: "no I flag", in: append(make([]byte, 8), inner...), want: frame.VXLANFlags},
		{name: "no I flag in RFC mode", in: append(make([]byte, 8), inner...), mode: vxlan.IgnoreReserved, want: frame.VXLANFlags},
		{name: "Ethernet frame instead", in: []byte(inner + "payload"), vni: 0xffff02, want: frame.VXLANReserved},
	} {
		v, in, why := vxlan.Parse(c.in, c.mode)
		if v != c.vni || why != c.want {
			t.Errorf("%s: VNI %d, %v; want %d, %v", c.name, v, why, c.vni, c.want)
		}
		if want := why == frame.ReasonNone; want != (in != nil) || (want && !bytes.Equal(in, c.in[8:])) {
			t.Errorf("%s: inner %q, reason %v", c.name, in, why)
		}
	}
	if n := testing.AllocsPerRun(100, func() { vxlan.Parse(good, vxlan.DropReserved) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// TestReservedBits sets each of the 39 reserved bits alone.
func TestReservedBits(t *testing.T) {
	count := 0
	for bit := range 64 {
		octet, mask := bit/8, byte(0x80>>(bit%8))
		if octet == 0 && mask == 0x08 || octet >= 4 && octet <= 6 {
			continue // the I flag and the VNI
		}
		count++
		b := datagram(10010, inner)
		b[octet] |= mask
		if v, in, why := vxlan.Parse(b, vxlan.DropReserved); why != frame.VXLANReserved || in != nil || v != 10010 {
			t.Errorf("bit %d: VNI %d, %v; want 10010, %v", bit, v, why, frame.VXLANReserved)
		}
		if v, in, why := vxlan.Parse(b, vxlan.IgnoreReserved); why != frame.ReasonNone || string(in) != inner || v != 10010 {
			t.Errorf("bit %d ignored: VNI %d, %v; want 10010, none", bit, v, why)
		}
		b[0] &^= 0x08
		for _, m := range []vxlan.Mode{vxlan.DropReserved, vxlan.IgnoreReserved} {
			if _, _, why := vxlan.Parse(b, m); why != frame.VXLANFlags {
				t.Errorf("bit %d without I flag: %v, want %v", bit, why, frame.VXLANFlags)
			}
		}
	}
	if count != 39 {
		t.Errorf("%d reserved bits, want 39", count)
	}
}

func TestVNI(t *testing.T) {
	for v, want := range map[vxlan.VNI]bool{0: false, 1: true, vxlan.MaxVNI: true, vxlan.MaxVNI + 1: false} {
		if v.Valid() != want {
			t.Errorf("VNI %v valid = %v", v, v.Valid())
		}
	}
	if got := vxlan.VNI(10010).String(); got != "10010" {
		t.Errorf("String = %q", got)
	}
}

func TestOverhead(t *testing.T) {
	for _, c := range []struct {
		link                      vxlan.Link
		overhead, of1500, of65535 int
	}{
		{vxlan.Link{}, 50, 1450, 65485},
		{vxlan.Link{DTLS: true}, 87, 1413, 65448},
		{vxlan.Link{IPv6: true}, 70, 1430, 65465},
		{vxlan.Link{IPv6: true, DTLS: true}, 107, 1393, 65428},
	} {
		l := c.link
		if got := l.Overhead(); got != c.overhead || l.Header() != c.overhead-14 {
			t.Errorf("%+v: overhead %d, header %d; want %d, %d", l, got, l.Header(), c.overhead, c.overhead-14)
		}
		if a, b := l.InnerMTU(1500), l.InnerMTU(65535); a != c.of1500 || b != c.of65535 {
			t.Errorf("%+v: inner MTU %d, %d; want %d, %d", l, a, b, c.of1500, c.of65535)
		}
		if got := l.UnderlayMTU(c.of1500); got != 1500 {
			t.Errorf("%+v: underlay MTU %d, want 1500", l, got)
		}
		if got := l.InnerMTU(20); got != 0 {
			t.Errorf("%+v: inner MTU of underlay 20: %d, want 0", l, got)
		}
	}
}

// slowParse is the header by RFC 7348 clause 5, field by field.
func slowParse(b []byte, m vxlan.Mode) (vxlan.VNI, []byte, frame.Reason) {
	if len(b) < 8 {
		return 0, nil, frame.InnerShort
	}
	v := vxlan.VNI(b[4])<<16 | vxlan.VNI(b[5])<<8 | vxlan.VNI(b[6])
	if b[0]&0x08 == 0 {
		return v, nil, frame.VXLANFlags
	}
	dirty := b[0] != 0x08 || b[1] != 0 || b[2] != 0 || b[3] != 0 || b[7] != 0
	if dirty && m == vxlan.DropReserved {
		return v, nil, frame.VXLANReserved
	}
	if len(b) < 22 {
		return v, nil, frame.InnerShort
	}
	return v, b[8:], frame.ReasonNone
}

// FuzzParse compares Parse with its slow twin and, for what it takes, with
// gopacket's layer; what Put writes must read back.
func FuzzParse(f *testing.F) {
	f.Add(datagram(10010, inner), false)
	f.Add(datagram(0, ""), true)
	f.Add([]byte("\x0c\x00\x00\x01\x00\x00\x07\x01"+inner), true)
	f.Fuzz(func(t *testing.T, b []byte, rfc bool) {
		mode := vxlan.DropReserved
		if rfc {
			mode = vxlan.IgnoreReserved
		}
		v, in, why := vxlan.Parse(b, mode)
		wantV, wantIn, wantWhy := slowParse(b, mode)
		if v != wantV || !bytes.Equal(in, wantIn) || why != wantWhy {
			t.Fatalf("Parse = %d, %x, %v; want %d, %x, %v", v, in, why, wantV, wantIn, wantWhy)
		}
		if why != frame.ReasonNone {
			return
		}
		var l layers.VXLAN
		if err := l.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil || !l.ValidIDFlag ||
			vxlan.VNI(l.VNI) != v || !bytes.Equal(l.Payload, in) {
			t.Fatalf("gopacket reads VNI %d, flag %v, error %v; want %d", l.VNI, l.ValidIDFlag, err, v)
		}
		if mode == vxlan.DropReserved {
			var h [8]byte
			vxlan.Put(h[:], v)
			if !bytes.Equal(h[:], b[:8]) {
				t.Fatalf("Put(%d) = %x, want %x", v, h, b[:8])
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	d := datagram(10010, inner)
	var sum uint64
	for b.Loop() {
		v, _, _ := vxlan.Parse(d, vxlan.DropReserved)
		sum += uint64(v)
		binary.BigEndian.PutUint16(d[5:], uint16(sum))
	}
}
