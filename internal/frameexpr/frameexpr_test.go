package frameexpr_test

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapestry-net/tapestry/internal/frameexpr"
	"github.com/tapestry-net/tapestry/switch/frame"
)

var env = frameexpr.Env{
	From: frame.MustParseMAC("02:00:00:00:00:01"),
	Own:  []netip.Addr{netip.MustParseAddr("fd00::2"), netip.MustParseAddr("10.1.0.2")},
	MAC: func(a netip.Addr) (frame.MAC, bool) {
		return frame.MustParseMAC("02:00:00:00:00:02"), a == netip.MustParseAddr("10.1.0.3") || a == netip.MustParseAddr("fd00::3")
	},
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		expr, prefix string
		length       int
	}{
		{"ff:ff:ff:ff:ff:ff 020000000001 0806", "ffffffffffff0200000000010806", 14},
		{"arp who-has 10.1.0.3 tell 10.1.0.2", "ffffffffffff020000000001080600010800060400010200000000010a0100020000000000000a010003", 42},
		{"icmp 10.1.0.2 > 10.1.0.3", "02000000000202000000000108004500001c", 42},
		{"icmp fd00::2 > fd00::3", "02000000000202000000000186dd6000000000083a40", 62},
		{"udp 10.1.0.2.5000 > 10.1.0.3.53", "02000000000202000000000108004500001c00004000401126cb0a0100020a010003138800350008", 42},
		{"tcp fd00::2.5000 > fd00::3.80 len 100", "02000000000202000000000186dd60000000002e0640", 100},
		{"ip6 fe80::1 > ff02::1", "33330000000102000000000186dd60", 54},
		{"icmp 10.1.0.2 > 224.0.0.251", "01005e0000fb", 42},
		{"icmp 10.1.0.2 > 255.255.255.255", "ffffffffffff", 42},
		{"broadcast from 02:00:00:00:00:09 vlan 20 pcp 5", "ffffffffffff0200000000098100a01488b5", 18},
		{"arp who-has 10.1.0.3", "ffffffffffff020000000001080600010800060400010200000000010a0100020000000000000a010003", 42},
		{"arp 10.1.0.9 is-at 02:00:00:00:00:09", "ffffffffffff020000000009080600010800060400020200000000090a0100090000000000000a010009", 42},
		{"icmp 10.1.0.2 > 10.1.0.3 ttl 3 tos 0xb9 nodf", "02000000000202000000000108004" + "5b9001c000000000301", 42},
		{"icmp fd00::2 > fd00::3 ttl 3 tos 0xb9", "02000000000202000000000186dd6b90000000083a03", 62},
		{"udp 10.1.0.2.1 > 10.1.0.3.2 packet 4000 vlan 20", "0200000000020200000000018100001408004500" + "0fa0", 4018},
		{"udp 10.1.0.2.1 > 10.1.0.3.2 len 60", "0200000000020200000000010800" + "4500002e", 60},
		{"tcp 10.1.0.2.1 > 10.1.0.3.2 flags FP.", "02000000000202000000000108004500002800004000400626ca0a0100020a0100030001000200000000000000005019", 54},
		{"broadcast vlan 30 vlan 20 pcp 1", "ffffffffffff0200000000018100001e8100201488b5", 22},
		{"broadcast to 01:80:c2:00:00:00 vlan 0 len 64", "0180c2000000020000000001" + "8100000088b5", 64},
	} {
		f, err := frameexpr.Parse(c.expr, env)
		b := f.Data
		if got := hex.EncodeToString(b); err != nil || len(b) != c.length || !strings.HasPrefix(got, c.prefix) {
			t.Errorf("%s: got %s (%d octets), %v, want %s… (%d octets)", c.expr, got, len(b), err, c.prefix, c.length)
		}
	}
}

func TestParseErrorsPointAtTheWord(t *testing.T) {
	for _, c := range []struct {
		expr, at, want string
	}{
		{"rarp x", "rarp", "unknown frame"},
		{"", "", "frame ends here"},
		{"abc", "", "odd number"},
		{"arp whohas 10.1.0.1", "whohas", "want `who-has`"},
		{"arp who-has 10.1.0.1 tel 10.1.0.2", "tel", "want from"},
		{"arp who-has fd00::1 tell fd00::2", "fd00::1", "IPv4"},
		{"icmp 10.1.0.2 > fd00::3", "fd00::3", "one IP version"},
		{"icmp 010.1.0.2 > 10.1.0.3", "010", "IP address"},
		{"icmp ::ffff:10.0.0.1 > ::1", "::ffff", "IP address"},
		{"ip6 10.1.0.2 > 10.1.0.3", "10.1.0.3", "IPv6"},
		{"udp 10.1.0.2.5000 > 10.1.0.3.99999", "10.1.0.3.99999", ".PORT"},
		{"udp x > y", "x", ".PORT"},
		{"icmp 10.1.0.2 > 10.1.0.77", "10.1.0.77", "add `to MAC`"},
		{"broadcast vlan 4096", "4096", "VLAN"},
		{"broadcast vlan 1 pcp 8", "8", "priority"},
		{"broadcast from beef", "beef", "MAC address"},
		{"broadcast len 10", "10", "headers"},
		{"icmp 10.1.0.2 > 10.1.0.3 packet 20", "20", "14 of them"},
		{"icmp 10.1.0.2 > 10.1.0.3 packet 65536", "65536", "65535"},
		{"broadcast len 65559", "65559", "length"},
		{"broadcast vlan 1 packet 65558", "65558", "at most"},
		{"broadcast len 60 packet 46", "packet", "twice"},
		{"broadcast ttl 3", "ttl", "for IP"},
		{"arp who-has 10.1.0.3 tos 1", "tos", "for IP"},
		{"icmp 10.1.0.2 > 10.1.0.3 ttl 256", "256", "TTL"},
		{"icmp fd00::2 > fd00::3 nodf", "nodf", "IPv4"},
		{"icmp 10.1.0.2 > 10.1.0.3 flags S", "flags", "TCP"},
		{"tcp 10.1.0.2.1 > 10.1.0.3.2 flags SX", "SX", "some of"},
		{"icmp 10.1.0.2 > 10.1.0.3 gso 100", "gso", "tcp and udp"},
		{"broadcast vlan 1 vlan 2 vlan 3", "vlan 3", "more than 2"},
		{"broadcast vni 16777216", "16777216", "VNI"},
		{"ffff vlan 3", "vlan", "as they are"},
		{"datagram", "", "octets"},
		{"datagram 0800 vni 3", "vni", "header says"},
		{"arp 10.1.0.9 is 02:00:00:00:00:09", "is 02", "is-at"},
		{"arp 10.1.0.9 is-at 02:00:00:00:00:09 from 02:00:00:00:00:08", "from", "is-at"},
		{"arp", "", "who-has"},
		{"broadcast colour red", "colour", "want from"},
	} {
		_, err := frameexpr.Parse(c.expr, env)
		e, ok := errors.AsType[*frameexpr.Error](err)
		if !ok || !strings.Contains(e.What, c.want) || !strings.HasPrefix(c.expr[e.Pos:], c.at) {
			t.Errorf("%q: got %v, want %q at %q", c.expr, err, c.want, c.at)
		}
	}
	if _, err := frameexpr.Parse("arp who-has 10.1.0.1", frameexpr.Env{}); err == nil || !strings.Contains(err.Error(), "want `tell`") {
		t.Errorf("no address of its own: got %v, want a request for `tell`", err)
	}
	if _, err := frameexpr.Parse("broadcast", frameexpr.Env{}); err == nil || !strings.Contains(err.Error(), "from MAC") {
		t.Errorf("no source: got %v, want a request for `from MAC`", err)
	}
}

// TestParseWhatIsNoOctet: what an expression says of a frame besides its octets.
func TestParseWhatIsNoOctet(t *testing.T) {
	for _, c := range []struct {
		expr string
		want frameexpr.Frame
	}{
		{"ffff vni 10010 outer-tos 0x03", frameexpr.Frame{Data: []byte{0xff, 0xff}, VNI: 10010, OuterTOS: 3}},
		{"datagram 08:00 00", frameexpr.Frame{Data: []byte{8, 0, 0}, Datagram: true}},
		{"ffff gso 1448", frameexpr.Frame{Data: []byte{0xff, 0xff}, Segment: 1448}},
	} {
		got, err := frameexpr.Parse(c.expr, env)
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%s: %v, want (-), got (+):\n%s", c.expr, err, d)
		}
	}
	f, err := frameexpr.Parse("tcp 10.1.0.2.1 > 10.1.0.3.2 gso 1448 len 9000", env)
	if err != nil || f.Segment != 1448 || len(f.Data) != 9000 || f.Data[47] != 0x10 {
		t.Errorf("a GSO frame: got %+v, %v; want 9000 octets with ACK set", f, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("tcp 10.1.0.2.1 > 10.1.0.3.2 from 02:00:00:00:00:01 vlan 1 pcp 2 len 90")
	f.Add("ff ff 0")
	f.Add("icmp fd00::2 > fd00::3 ttl 3 tos 0x10 packet 1500 vlan 1 vlan 2")
	f.Add("tcp 10.1.0.2.1 > 10.1.0.3.2 flags SFRPUEW. gso 1448 len 9000")
	f.Add("datagram 0800000000271a00 outer-tos 3")
	f.Add("arp 10.1.0.9 is-at 02:00:00:00:00:09 vni 10010 nodf")
	f.Fuzz(func(t *testing.T, expr string) {
		got, err := frameexpr.Parse(expr, env)
		if len(got.Data) > frame.MaxLen {
			t.Errorf("%q: %d octets", expr, len(got.Data))
		}
		if e, ok := errors.AsType[*frameexpr.Error](err); err != nil && (!ok || e.Pos < 0 || e.Pos > len(expr)) {
			t.Errorf("%q: error %v points nowhere", expr, err)
		}
	})
}
