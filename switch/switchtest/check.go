package switchtest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// View is a frame on its way through the checkers of one Check.
type View struct {
	Frame frame.Frame
	Rest  []byte // what no checker has taken yet
}

// Checker looks at the front of v.Rest and takes its part away. Its error says
// what is there and what should be.
type Checker func(v *View) error

// Check takes f apart from the front and fails the test, with a dump, at the
// first part that is not as wanted. What no checker takes is not looked at.
// A partial checksum is right when f's metadata announce it.
func Check(t testing.TB, f frame.Frame, checks ...Checker) {
	t.Helper()
	v := View{Frame: f, Rest: f.Data}
	for _, c := range checks {
		at := len(f.Data) - len(v.Rest)
		if err := c(&v); err != nil {
			t.Errorf("frame of %d octets, at %d: %v\n%s", len(f.Data), at, err, dump(f.Data))
			return
		}
	}
}

// Eth wants both addresses.
func Eth(dst, src frame.MAC) Checker {
	return func(v *View) error {
		b, err := v.take(12, "addresses")
		if err != nil {
			return err
		}
		if got := frame.MAC(b[:6]); got != dst {
			return fmt.Errorf("destination: got %v, want %v", got, dst)
		}
		if got := frame.MAC(b[6:]); got != src {
			return fmt.Errorf("source: got %v, want %v", got, src)
		}
		return nil
	}
}

// VLAN wants an 802.1Q tag next.
func VLAN(vid frame.VID, pcp frame.PCP) Checker { return tag(frame.EtherTypeCTag, vid, pcp) }

// SVLAN wants an 802.1ad service tag next.
func SVLAN(vid frame.VID, pcp frame.PCP) Checker { return tag(frame.EtherTypeSTag, vid, pcp) }

func tag(tpid frame.EtherType, vid frame.VID, pcp frame.PCP) Checker {
	return func(v *View) error {
		if err := Type(tpid)(v); err != nil {
			return err
		}
		b, err := v.take(2, "tag")
		if err != nil {
			return err
		}
		got := frame.Tag{TPID: tpid, TCI: binary.BigEndian.Uint16(b)}
		if got.VID() != vid || got.PCP() != pcp {
			return fmt.Errorf("tag: got VID %d PCP %d, want VID %d PCP %d", got.VID(), got.PCP(), vid, pcp)
		}
		return nil
	}
}

// Type wants an EtherType next; behind Eth it says that there is no tag.
func Type(want frame.EtherType) Checker {
	return func(v *View) error {
		b, err := v.take(2, "EtherType")
		if err != nil {
			return err
		}
		if got := frame.EtherType(binary.BigEndian.Uint16(b)); got != want {
			return fmt.Errorf("EtherType: got 0x%04x, want 0x%04x", uint16(got), uint16(want))
		}
		return nil
	}
}

// IP wants an IPv4 or IPv6 packet of these addresses next, EtherType included,
// with the right lengths and checksums, those of its TCP, UDP or ICMP too.
// Padding behind the packet is taken away.
func IP(src, dst netip.Addr) Checker {
	return func(v *View) error {
		want := frame.EtherTypeIPv4
		if src.Is6() {
			want = frame.EtherTypeIPv6
		}
		if err := Type(want)(v); err != nil {
			return err
		}
		l, err := parse(v.Frame.Data)
		if err != nil {
			return err
		}
		if err := l.verify(v.Frame.Data, v.Frame.GSO); err != nil {
			return err
		}
		at, n := l.l3+12, 4
		if l.v6 {
			at, n = l.l3+8, 16
		}
		gotSrc, _ := netip.AddrFromSlice(v.Frame.Data[at : at+n])
		gotDst, _ := netip.AddrFromSlice(v.Frame.Data[at+n : at+2*n])
		if gotSrc != src || gotDst != dst {
			return fmt.Errorf("addresses: got %v to %v, want %v to %v", gotSrc, gotDst, src, dst)
		}
		v.Rest = v.Frame.Data[l.l4:l.end]
		return nil
	}
}

// UDP wants a UDP header of these ports next. IP has verified its checksum.
func UDP(src, dst uint16) Checker { return ports("UDP", 8, src, dst) }

// TCP wants a TCP header of these ports next and takes its options too. IP has
// verified its checksum.
func TCP(src, dst uint16) Checker {
	return func(v *View) error {
		if len(v.Rest) < 20 {
			return fmt.Errorf("TCP header: got %d octets, want 20 or more", len(v.Rest))
		}
		return ports("TCP", int(v.Rest[12]>>4)*4, src, dst)(v)
	}
}

func ports(name string, n int, src, dst uint16) Checker {
	return func(v *View) error {
		b, err := v.take(n, name+" header")
		if err != nil {
			return err
		}
		gotSrc, gotDst := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		if gotSrc != src || gotDst != dst {
			return fmt.Errorf("%s ports: got %d to %d, want %d to %d", name, gotSrc, gotDst, src, dst)
		}
		return nil
	}
}

// Payload wants the rest to be exactly this.
func Payload(want []byte) Checker {
	return func(v *View) error {
		if bytes.Equal(v.Rest, want) {
			v.Rest = nil
			return nil
		}
		i := 0
		for i < len(want) && i < len(v.Rest) && want[i] == v.Rest[i] {
			i++
		}
		return fmt.Errorf("payload: got %d octets, want %d; they differ from octet %d on", len(v.Rest), len(want), i)
	}
}

func (v *View) take(n int, what string) ([]byte, error) {
	if len(v.Rest) < n {
		return nil, fmt.Errorf("%s: got %d octets, want %d", what, len(v.Rest), n)
	}
	b := v.Rest[:n]
	v.Rest = v.Rest[n:]
	return b, nil
}

// dump shows the start of a frame; the rest of a long one helps nobody.
func dump(b []byte) string {
	const most = 128
	if len(b) <= most {
		return hex.Dump(b)
	}
	return fmt.Sprintf("%s… and %d octets more", hex.Dump(b[:most]), len(b)-most)
}
