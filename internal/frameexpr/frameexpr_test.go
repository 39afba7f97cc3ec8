package frameexpr_test

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/frameexpr"
	"github.com/tapestry-net/tapestry/switch/frame"
)

var env = frameexpr.Env{
	From: frame.MustParseMAC("02:00:00:00:00:01"),
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
		{"tcp fd00::2.5000 > fd00::3.80 len 100", "02000000000202000000000186dd6000000000140640", 100},
		{"ip6 fe80::1 > ff02::1", "33330000000102000000000186dd60", 54},
		{"icmp 10.1.0.2 > 224.0.0.251", "01005e0000fb", 42},
		{"icmp 10.1.0.2 > 255.255.255.255", "ffffffffffff", 42},
		{"broadcast from 02:00:00:00:00:09 vlan 20 pcp 5", "ffffffffffff0200000000098100a01488b5", 18},
		{"broadcast to 01:80:c2:00:00:00 vlan 0 len 64", "0180c2000000020000000001" + "8100000088b5", 64},
	} {
		b, err := frameexpr.Parse(c.expr, env)
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
		{"arp who-has 10.1.0.1", "", "want `tell`"},
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
		{"broadcast len 10", "", "headers"},
		{"broadcast colour red", "colour", "want from"},
	} {
		_, err := frameexpr.Parse(c.expr, env)
		e, ok := errors.AsType[*frameexpr.Error](err)
		if !ok || !strings.Contains(e.What, c.want) || !strings.HasPrefix(c.expr[e.Pos:], c.at) {
			t.Errorf("%q: got %v, want %q at %q", c.expr, err, c.want, c.at)
		}
	}
	if _, err := frameexpr.Parse("broadcast", frameexpr.Env{}); err == nil || !strings.Contains(err.Error(), "from MAC") {
		t.Errorf("no source: got %v, want a request for `from MAC`", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("tcp 10.1.0.2.1 > 10.1.0.3.2 from 02:00:00:00:00:01 vlan 1 pcp 2 len 90")
	f.Add("ff ff 0")
	f.Add("icmp fd00::2 > fd00::3")
	f.Fuzz(func(t *testing.T, expr string) {
		b, err := frameexpr.Parse(expr, env)
		if err == nil && len(b) > frame.MaxLen {
			t.Errorf("%q: %d octets", expr, len(b))
		}
		if e, ok := errors.AsType[*frameexpr.Error](err); err != nil && (!ok || e.Pos < 0 || e.Pos > len(expr)) {
			t.Errorf("%q: error %v points nowhere", expr, err)
		}
	})
}
