package integration_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// TestTunnelAdmission sends a host what it must refuse, from a machine in the
// place of a peer and from one that is none: each datagram is counted under its
// reason, by its peer, and neither teaches nor delivers anything.
func TestTunnelAdmission(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprint("ipv6 ", v6), func(t *testing.T) {
			t.Parallel()
			testAdmission(t, v6)
		})
	}
}

const hostPeer, hostStranger = 2, 3

// refusal is a datagram that a host must refuse, and why.
type refusal struct {
	reason string
	host   int
	b      []byte
}

// fromStation9 is a frame of station 9 to station 1's sink.
func fromStation9(text string) []byte {
	at := switchtest.Station4(1)
	at.Port = sinkPort
	return switchtest.UDPFrame(switchtest.Station4(9), at, []byte(text))
}

// withHeader is such a frame in network blue with some bits of its header's octet
// i turned round.
func withHeader(i int, bits byte, text string) []byte {
	b := vxlan(10010, fromStation9(text))
	b[i] ^= bits
	return b
}

func refusals() []refusal {
	inner := fromStation9
	rows := []refusal{
		{"unknown_peer", hostStranger, vxlan(10010, inner("from a stranger"))},
		{"unknown_vni", hostPeer, vxlan(99, inner("of an unknown network"))},
		{"unknown_vni", hostPeer, vxlan(0, inner("of network 0"))},
		{"vni_not_allowed", hostPeer, vxlan(10020, inner("of a network that the peer may not carry"))},
		{"vxlan_flags", hostPeer, withHeader(0, 8, "no I flag")},
		{"inner_short", hostPeer, nil},
		{"inner_short", hostPeer, []byte{8, 0, 0}},
		{"inner_short", hostPeer, vxlan(10010, nil)},
		{"inner_short", hostPeer, vxlan(10010, inner("cut")[:13])},
		{"inner_tagged", hostPeer, vxlan(10010, switchtest.Tagged(10, 0, inner("tagged")))},
		{"inner_tagged", hostPeer, vxlan(10010, switchtest.Tagged(0, 5, inner("priority tag")))},
	}
	for _, i := range reservedOctets {
		for bit := range 8 {
			if i == 0 && bit == 3 {
				continue // the I flag
			}
			rows = append(rows, refusal{"vxlan_reserved", hostPeer, withHeader(i, 1<<bit, fmt.Sprintf("reserved bit %d of octet %d", bit, i))})
		}
	}
	return rows
}

// reservedOctets of the header are all but the VNI's.
var reservedOctets = []int{0, 1, 2, 3, 7}

func testAdmission(t *testing.T, v6 bool) {
	f := newFabric(t, 3)
	config := strings.Replace(f.file(v6, 4789, 1, 2), "10010}}", "10010}, red: {vlan: 20, vni: 10020}}", 1)
	config = strings.Replace(config, underlayAddr(2, v6)+`:4789"`, underlayAddr(2, v6)+`:4789", networks: [blue]`, 1)
	one := f.up(1, config)
	heard := f.sink(1)
	to := underlayAddr(1, v6) + ":4789"
	// Each alone, so that it is clear what was counted for what.
	want, before := api.Drops{}, one.stats().Refused
	for i, r := range refusals() {
		f.say(r.host, to, r.b)
		want[r.reason]++
		var s api.Stats
		one.until(fmt.Sprintf("%s: % x is counted", r.reason, r.b[:min(8, len(r.b))]), func() bool {
			s = one.stats()
			return s.Refused == before+uint64(i)+1
		})
		if s.Drops[r.reason] != want[r.reason] {
			t.Fatalf("% x: drops %v, want %d of %s", r.b[:min(8, len(r.b))], s.Drops, want[r.reason], r.reason)
		}
	}
	drops := one.peers()["h2"].Drops
	for reason, n := range want {
		if reason == "unknown_peer" {
			n = 0
		}
		if drops[reason] != n {
			t.Errorf("peer h2 has %d of %s, want %d", drops[reason], reason, n)
		}
	}
	if one.where(9) != "" {
		t.Error("a refused frame taught its source")
	}
	// A good one comes after all of them.
	f.say(hostPeer, to, vxlan(10010, fromStation9("good")))
	one.until("a good frame arrives", func() bool { return heard.count("good") == 1 })
	if all := heard.all(); len(all) != 1 {
		t.Errorf("delivered: %v", all)
	}
	one.until("its source is learned", func() bool { return one.where(9) == "h2" })
	f.conserved()

	one.write(strings.Replace(config, "tunnel:\n", "tunnel:\n  vxlan_reserved: ignore\n", 1))
	one.cli("apply", "-c", one.config)
	f.ignoresReserved(one, heard, to)
}

// ignoresReserved sends a host that is to ignore reserved bits all of them, and a
// header without the I flag, which counts still.
func (f *fabric) ignoresReserved(one *node, heard *sink, to string) {
	f.t.Helper()
	for _, i := range reservedOctets {
		text, bits := fmt.Sprintf("ignored in octet %d", i), byte(0xff)
		if i == 0 {
			bits = 0xf7 // all but the I flag
		}
		f.say(hostPeer, to, withHeader(i, bits, text))
		one.until(text+" arrives", func() bool { return heard.count(text) == 1 })
	}
	before := one.stats().Drops["vxlan_flags"]
	f.say(hostPeer, to, withHeader(0, 8, "no I flag still"))
	one.until("a clear I flag is refused still", func() bool { return one.stats().Drops["vxlan_flags"] == before+1 })
	f.conserved()
}
