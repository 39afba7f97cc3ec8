package filter

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// The traffic of the tests draws from few addresses and ports, so that
// expressions match now and then.
var (
	macs  = [][]byte{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {1, 0, 0x5e, 0, 0, 1}, {0x33, 0x33, 0, 0, 0, 1}}
	addr4 = []string{"10.1.0.2", "10.1.0.3", "10.2.0.9", "192.168.7.1", "224.0.0.251", "255.255.255.255", "0.0.0.0"}
	addr6 = []string{"2001:db8::1", "2001:db8::2", "2001:db8:8000::1", "fe80::1", "ff02::1", "::1"}
	ports = []uint16{22, 53, 67, 80, 90, 443, 4789, 8080, 65535}
)

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// traffic makes n frames of all kinds, some of them cut short.
func traffic(r *rand.Rand, n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		f := ethernet(r, 0)
		switch r.IntN(12) {
		case 0:
			f = f[:r.IntN(len(f)+1)]
		case 1:
			f[r.IntN(len(f))] ^= 1 << r.IntN(8)
		}
		if len(f) == 0 {
			f = []byte{0}
		}
		out[i] = f
	}
	return out
}

func ethernet(r *rand.Rand, depth int) []byte {
	f := append(append([]byte(nil), pick(r, macs...)...), pick(r, macs...)...)
	for r.IntN(3) == 0 {
		f = append(f, be16(pick[uint16](r, 0x8100, 0x8100, 0x88a8, 0x9100))...)
		f = append(f, be16(uint16(r.IntN(8))<<13|pick[uint16](r, 5, 10, 20, 4095, 0))...)
	}
	switch r.IntN(10) {
	case 0:
		return append(append(f, 0x08, 0x06), arp(r)...)
	case 1:
		return append(append(f, 0x80, 0x35), arp(r)...)
	case 2:
		llc := append([]byte{pick[byte](r, 0x42, 0xfe, 0xaa, 1), 0x42, 3}, noise(r, 35)...)
		return append(append(f, be16(uint16(len(llc)))...), llc...)
	case 3:
		return append(append(f, be16(pick[uint16](r, 0x88cc, 0x88b5, 0x0600, 0x05dc))...), noise(r, r.IntN(60))...)
	case 4, 5, 6:
		return append(append(f, 0x86, 0xdd), ipv6(r, depth)...)
	}
	return append(append(f, 0x08, 0x00), ipv4(r, depth)...)
}

func arp(r *rand.Rand) []byte {
	b := append([]byte{0, 1, 8, 0, 6, 4, 0, byte(1 + r.IntN(2))}, pick(r, macs...)...)
	b = append(b, netip.MustParseAddr(pick(r, addr4...)).AsSlice()...)
	b = append(b, pick(r, macs...)...)
	return append(b, netip.MustParseAddr(pick(r, addr4...)).AsSlice()...)
}

func ipv4(r *rand.Rand, depth int) []byte {
	words := 5
	if r.IntN(4) == 0 {
		words += r.IntN(11)
	}
	next, body := transport(r, depth, false)
	b := make([]byte, 4*words)
	b[0] = 0x40 | byte(words)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(body)))
	if r.IntN(5) == 0 {
		binary.BigEndian.PutUint16(b[6:], pick[uint16](r, 0x2000, 0x0010, 0x4000, 0x8000))
	}
	b[8], b[9] = pick[byte](r, 1, 2, 64, 255), next
	copy(b[12:], netip.MustParseAddr(pick(r, addr4...)).AsSlice())
	copy(b[16:], netip.MustParseAddr(pick(r, addr4...)).AsSlice())
	return append(b, body...)
}

func ipv6(r *rand.Rand, depth int) []byte {
	next, body := transport(r, depth, true)
	switch r.IntN(8) {
	case 0: // fragment header
		body = append([]byte{next, 0, 0, byte(r.IntN(2)), 0, 0, 0, 7}, body...)
		next = 44
	case 1: // hop-by-hop options
		body = append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, body...)
		next = 0
	}
	b := make([]byte, 40)
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	b[6], b[7] = next, pick[byte](r, 1, 64, 255)
	copy(b[8:], netip.MustParseAddr(pick(r, addr6...)).AsSlice())
	copy(b[24:], netip.MustParseAddr(pick(r, addr6...)).AsSlice())
	return append(b, body...)
}

func transport(r *rand.Rand, depth int, v6 bool) (next byte, body []byte) {
	pair := append(be16(pick(r, ports...)), be16(pick(r, ports...))...)
	switch r.IntN(10) {
	case 0, 1, 2:
		b := append(pair, noise(r, 16)...)
		b[12] = 0x50
		b[13] = pick[byte](r, 2, 0x12, 0x10, 0x11, 0x18, 4, 0xc2, byte(r.Uint32()))
		return 6, append(b, noise(r, r.IntN(40))...)
	case 3, 4:
		data := noise(r, r.IntN(60))
		return 17, append(append(append(pair, be16(uint16(8+len(data)))...), 0, 0), data...)
	case 5:
		if depth > 1 {
			return 17, append(pair, 0, 8, 0, 0)
		}
		inner := ethernet(r, depth+1)
		b := append(append(be16(pick(r, ports...)), be16(4789)...), be16(uint16(16+len(inner)))...)
		b = append(b, 0, 0, pick[byte](r, 8, 8, 8, 0), 0, 0, 0, 0, 0x27, pick[byte](r, 0x1a, 0x1b), 0)
		return 17, append(b, inner...)
	case 6:
		return 132, append(pair, noise(r, 12)...)
	case 7:
		return pick[byte](r, 2, 50, 51, 103, 112, 99), noise(r, 24)
	}
	if v6 {
		return 58, append([]byte{pick[byte](r, 128, 129, 133, 134, 135, 136, 1, 2, 143), byte(r.IntN(3))}, noise(r, 30)...)
	}
	return 1, append([]byte{pick[byte](r, 0, 8, 3, 11, 5), byte(r.IntN(5))}, noise(r, 30)...)
}
