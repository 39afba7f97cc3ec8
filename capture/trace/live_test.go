package trace_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// FuzzFingerprint: whatever a frame holds, reading it ends well, leaves it as it
// is, and knows it again behind a tag and with another TTL.
func FuzzFingerprint(f *testing.F) {
	for _, k := range keys {
		b := trace.Frame(macB, macA, frame.Tag{}, k.Packet(7))
		f.Add(b)
		f.Add(b[:40])
		f.Add(trace.Frame(macB, macA, frame.MakeTag(10, 0, false), k.Packet(7)))
	}
	f.Add(append(make([]byte, 12), 0x81, 0, 0, 10, 0x81, 0, 0, 20, 8, 0, 0x4f))
	f.Add(append(make([]byte, 12), 8, 0, 0x45))
	f.Add(append(make([]byte, 12), 0x88, 0xcc, 2, 7))
	f.Add([]byte{0x60})
	f.Fuzz(func(t *testing.T, b []byte) {
		was := bytes.Clone(b)
		print, s, ok := trace.Fingerprint(b)
		if h, whole := frame.Parse(b); ok != whole || ok && (s.Src != h.Src || s.Dst != h.Dst) {
			t.Errorf("got %+v, %v of a frame from %v to %v", s, ok, h.Src, h.Dst)
		}
		if s.From.IsValid() != s.To.IsValid() || s.From.Is4() != s.To.Is4() || !s.From.IsValid() && s.TTL != 0 {
			t.Errorf("TTL %d from %v to %v", s.TTL, s.From, s.To)
		}
		ip, sIP, _ := trace.FingerprintIP(b)
		if again, _, _ := trace.FingerprintIP(b); again != ip || sIP.Src != (frame.MAC{}) {
			t.Errorf("as an IP packet: %x and %x, from %v", ip, again, sIP.Src)
		}
		if !bytes.Equal(b, was) {
			t.Error("the frame was changed")
		}
		if ok {
			elsewhere(t, b, print, &s)
		}
	})
}

// elsewhere has the frame seen where it has another tag and another TTL.
func elsewhere(t *testing.T, b []byte, want trace.Print, s *trace.Sight) {
	const addrs = 12
	h, _ := frame.Parse(b)
	if h.EtherType == frame.EtherTypeCTag {
		return // without its outer tag it would have the inner one's
	}
	ip := bytes.Clone(b[h.Len:])
	switch {
	case s.From.Is4():
		ip[8]--
		ip[10], ip[11] = ^ip[10], ^ip[11] // the checksum, which a router makes anew
	case s.From.Is6():
		ip[7]--
	}
	other := bytes.Clone(b[:addrs])
	if !h.Tag.Present() {
		other = append(other, 0x81, 0, 0, 10)
	}
	other = append(binary.BigEndian.AppendUint16(other, uint16(h.EtherType)), ip...)
	got, seen, ok := trace.Fingerprint(other)
	if !ok || got != want || seen.From != s.From || seen.To != s.To {
		t.Errorf("%x is %x, and elsewhere, as %x, %x", b, want, other, got)
	}
}
