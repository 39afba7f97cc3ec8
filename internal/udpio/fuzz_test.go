package udpio_test

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/udpio"
)

// slowSegments cuts data as the kernel has put it together: pieces of size, the
// last perhaps shorter; something of nothing is one empty datagram.
func slowSegments(data []byte, size int) [][]byte {
	if len(data) == 0 || size <= 0 {
		return [][]byte{data}
	}
	var out [][]byte
	for len(data) > size {
		out = append(out, data[:size])
		data = data[size:]
	}
	return append(out, data)
}

// FuzzSegment compares the splitter with its twin.
func FuzzSegment(f *testing.F) {
	f.Add([]byte("one two three"), 4)
	f.Add([]byte{}, 0)
	f.Add([]byte("x"), -1)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		d := udpio.Datagram{Data: data, Size: size}
		want := slowSegments(data, size)
		if d.Segments() != len(want) {
			t.Fatalf("%d octets by %d: %d segments, want %d", len(data), size, d.Segments(), len(want))
		}
		for i, w := range want {
			got := d.Segment(i)
			if !bytes.Equal(got, w) || cap(got) != len(got) {
				t.Fatalf("segment %d is %q of capacity %d, want %q", i, got, cap(got), w)
			}
		}
	})
}

// FuzzControl compares the parser of control messages with the system package's.
func FuzzControl(f *testing.F) {
	var b [udpio.SendControl]byte
	n := udpio.PutControl(b[:], unix.SOL_UDP, unix.UDP_GRO, 1400, 4)
	n += udpio.PutControl(b[n:], unix.SOL_IP, unix.IP_TTL, 64, 4)
	f.Add(b[:n], 4000)
	n = udpio.PutControl(b[:], unix.SOL_IPV6, unix.IPV6_TCLASS, 0xb8, 4)
	n += udpio.PutControl(b[n:], unix.SOL_IPV6, unix.IPV6_HOPLIMIT, 1, 4)
	f.Add(b[:n], 10)
	f.Fuzz(func(t *testing.T, ctl []byte, size int) {
		if size < 0 || size > 65535 || len(ctl) > 200 {
			return
		}
		d := udpio.Datagram{Data: make([]byte, size)}
		udpio.ParseControl(ctl, &d)
		if d.Size != size && (d.Size <= 0 || d.Size >= size) {
			t.Fatalf("%d octets cut at %d", size, d.Size)
		}
		for i := range d.Segments() {
			_ = d.Segment(i)
		}
		msgs, err := unix.ParseSocketControlMessage(ctl)
		if err != nil {
			return
		}
		want := slowControl(msgs, size)
		if d.Size != want.Size || d.TOS != want.TOS || d.TTL != want.TTL {
			t.Fatalf("size %d, TOS %#x, TTL %d; want %d, %#x, %d", d.Size, d.TOS, d.TTL, want.Size, want.TOS, want.TTL)
		}
	})
}

func slowControl(msgs []unix.SocketControlMessage, size int) udpio.Datagram {
	d := udpio.Datagram{Size: size}
	for _, m := range msgs {
		var v uint32
		if len(m.Data) >= 4 {
			v = uint32(m.Data[0]) | uint32(m.Data[1])<<8 | uint32(m.Data[2])<<16 | uint32(m.Data[3])<<24
		} else if len(m.Data) == 1 {
			v = uint32(m.Data[0])
		} else {
			continue
		}
		switch [2]int32{m.Header.Level, m.Header.Type} {
		case [2]int32{unix.SOL_UDP, unix.UDP_GRO}:
			if v > 0 && v < uint32(size) {
				d.Size = int(v)
			}
		case [2]int32{unix.SOL_IP, unix.IP_TOS}, [2]int32{unix.SOL_IPV6, unix.IPV6_TCLASS}:
			d.TOS = uint8(v)
		case [2]int32{unix.SOL_IP, unix.IP_TTL}, [2]int32{unix.SOL_IPV6, unix.IPV6_HOPLIMIT}:
			d.TTL = uint8(v)
		}
	}
	return d
}
