package dissect_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/tapestry-net/tapestry/capture/dissect"
)

const (
	hexEther4 = "020000000002020000000001" + "0800"
	hexEther6 = "020000000002020000000001" + "86dd"
	hexAddrs6 = "fe800000000000000000000000000001" + "fe800000000000000000000000000002"
	textEther = "02:00:00:00:00:01 > 02:00:00:00:00:02 "
)

// udp4 is an IPv4 packet with a UDP datagram.
func udp4(src, dst int, payload string) string {
	n := len(payload) / 2
	return fmt.Sprintf("4500%04x0000400040110000"+"0a0100020a010003"+"%04x%04x%04x0000", 28+n, src, dst, 8+n) + payload
}

var wholes = []struct{ name, hex, want string }{
	{"vxlan", hexEther4 + udp4(40000, 4789, "0800000000271a00"+"ffffffffffff02000000000a0806"+"0001080006040001"+"02000000000a0a010002"+"0000000000000a010003"),
		textEther + "IPv4 10.1.0.2 > 10.1.0.3 ttl 64 UDP 40000 > 4789 length 50 VXLAN VNI 10010 | 02:00:00:00:00:0a > ff:ff:ff:ff:ff:ff ARP who-has 10.1.0.3 tell 10.1.0.2"},
	{"vxlan cut", hexEther4 + udp4(40000, 4789, "0800"), textEther + "IPv4 10.1.0.2 > 10.1.0.3 ttl 64 UDP 40000 > 4789 length 2 VXLAN …"},
	{"dns query", hexEther4 + udp4(40000, 53, "000101000001000000000000"+"03777777"+"076578616d706c65"+"00"+"001c0001"),
		textEther + "IPv4 10.1.0.2 > 10.1.0.3 ttl 64 UDP 40000 > 53 length 29 DNS query AAAA www.example"},
	{"dns answer", hexEther4 + udp4(53, 40000, "000181830001000200000000"+"021b5b"+"00"+"00010001"),
		textEther + `IPv4 10.1.0.2 > 10.1.0.3 ttl 64 UDP 53 > 40000 length 20 DNS answer no such name A \x1b[`},
	{"dhcp", hexEther4 + udp4(68, 67, "0101060000000001"+strings.Repeat("00", 228)+"63825363"+"350101"+"0c027762"+"32040a010009"+"ff"),
		textEther + "IPv4 10.1.0.2 > 10.1.0.3 ttl 64 UDP 68 > 67 length 254 DHCP discover for 10.1.0.9 host wb"},
	{"destination options", hexEther6 + "60000000001800" + "40" + hexAddrs6 + "3c00010400000000" + "1100010400000000" + "0035003500080000",
		textEther + "IPv6 fe80::1 > fe80::2 hop limit 64 destination options UDP 53 > 53 length 0 DNS …"},
	{"first fragment", hexEther6 + "60000000001c2c" + "40" + hexAddrs6 + "0600000100000007" + "1f90005000000001000000005002000000000000",
		textEther + "IPv6 fe80::1 > fe80::2 hop limit 64 fragment at 0 TCP 8080 > 80 [SYN] seq 1"},
	{"later fragment", hexEther6 + "60000000000c2c" + "40" + hexAddrs6 + "0600000900000007" + "1f900050",
		textEther + "IPv6 fe80::1 > fe80::2 hop limit 64 fragment at 8"},
	{"unknown behind", hexEther6 + "60000000000c3c" + "40" + hexAddrs6 + "5900010400000000" + "00000000",
		textEther + "IPv6 fe80::1 > fe80::2 hop limit 64 destination options protocol 89"},
}

func TestWhole(t *testing.T) {
	d := dissect.New()
	for _, c := range wholes {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := d.Whole(b); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
	for _, c := range lines {
		b, _ := hex.DecodeString(c.hex)
		if got := d.Whole(b); !strings.HasPrefix(got, strings.TrimSuffix(c.want, " …")) {
			t.Errorf("%s: got %s, want it to begin with %s", c.name, got, c.want)
		}
	}
}

// FuzzWhole: whatever the frame, the line is printable and decoding ends.
func FuzzWhole(f *testing.F) {
	for _, c := range append(wholes, lines...) {
		b, _ := hex.DecodeString(c.hex)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := dissect.New().Whole(b)
		if i := strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("control character at %d of %q", i, got)
		}
	})
}
