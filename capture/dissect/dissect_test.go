package dissect_test

import (
	"encoding/hex"
	"strings"
	"testing"
	"unicode"

	"github.com/tapestry-net/tapestry/capture/dissect"
)

var lines = []struct{ name, hex, want string }{
	{"arp request", "ffffffffffff0200000000010806" + "0001080006040001" + "0200000000010a010002" + "0000000000000a010003",
		"02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff ARP who-has 10.1.0.3 tell 10.1.0.2"},
	{"arp announce", "ffffffffffff0200000000010806" + "0001080006040001" + "0200000000010a010002" + "0000000000000a010002",
		"02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff ARP announce 10.1.0.2"},
	{"arp reply", "0200000000010200000000020806" + "0001080006040002" + "0200000000020a010003" + "0200000000010a010002",
		"02:00:00:00:00:02 > 02:00:00:00:00:01 ARP 10.1.0.3 is-at 020000000002"},
	{"ping", "0200000000020200000000010800" + "4500001c000040004001" + "0000" + "0a0100020a010003" + "0800f7f600070002",
		"02:00:00:00:00:01 > 02:00:00:00:00:02 IPv4 10.1.0.2 > 10.1.0.3 ttl 64 ICMP echo request id 7 seq 2"},
	{"tagged udp", "020000000002020000000001" + "8100600a0800" + "4500001c000040004011" + "0000" + "0a0100020a010003" + "0035003500080000",
		"02:00:00:00:00:01 > 02:00:00:00:00:02 vlan 10 pcp 3 IPv4 10.1.0.2 > 10.1.0.3 ttl 64 UDP 53 > 53 length 0"},
	{"tcp syn", "0200000000020200000000010800" + "45000028000040004006" + "0000" + "0a0100020a010003" + "1f9000500000000100000000500200000000" + "0000",
		"02:00:00:00:00:01 > 02:00:00:00:00:02 IPv4 10.1.0.2 > 10.1.0.3 ttl 64 TCP 8080 > 80 [SYN] seq 1"},
	{"neighbour solicitation", "3333ff00000302000000000186dd" + "6000000000183aff" + "fe800000000000000000000000000001" + "ff0200000000000000000001ff000003" + "8700000000000000" + "fe800000000000000000000000000003",
		"02:00:00:00:00:01 > 33:33:ff:00:00:03 IPv6 fe80::1 > ff02::1:ff00:3 hop limit 255 ICMPv6 neighbour solicitation"},
	{"other type", "ffffffffffff02000000000188b5" + "00000000", "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff type 0x88b5"},
	{"short", "ffffffff", "4 octets, no Ethernet header"},
	{"cut in the hop-by-hop header", "33330000001602000000000186dd" + "6000000000240001" + "fe800000000000000000000000000001" + "ff020000000000000000000000000016" + "3a00", "02:00:00:00:00:01 > 33:33:00:00:00:16 IPv6 …"},
}

func TestLine(t *testing.T) {
	for _, c := range lines {
		t.Run(c.name, func(t *testing.T) {
			b, err := hex.DecodeString(c.hex)
			if err != nil {
				t.Fatal(err)
			}
			if got := dissect.Line(b); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// FuzzLine: whatever the frame, the line is printable and decoding ends.
func FuzzLine(f *testing.F) {
	for _, c := range lines {
		b, _ := hex.DecodeString(c.hex)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := dissect.Line(b)
		if i := strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("control character at %d of %q", i, got)
		}
	})
}
