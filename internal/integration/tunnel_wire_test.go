package integration_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// TestTunnelHeader reads from the wire what 64 flows with all DSCP and ECN values
// leave as: RFC 7348's header, an outer one of the tunnel's own, and one source
// port a flow.
func TestTunnelHeader(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		v6   bool
		port int
		off  bool // udp_checksum
	}{
		{"ipv4", false, 4789, false},
		{"ipv4 without checksum", false, 8472, true},
		{"ipv6", true, 4789, false},
		{"ipv6 checksum off", true, 8472, true}, // RFC 8200 clause 8.1 demands it all the same
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFabric(t, 2)
			config := f.file(c.v6, c.port, 1, 2)
			if c.off {
				config = strings.Replace(config, "tunnel:\n", "tunnel:\n  udp_checksum: off\n", 1)
			}
			f.up(1, config)
			f.up(2, config)
			f.meet(1, 2)
			wire := f.sniff(1)
			flows := f.flows(64)
			ports, settled := map[int]uint16{}, 0
			for round := 0; settled < 3; round++ {
				if round == 100 {
					t.Fatalf("flows change their ports still after %d rounds", round)
				}
				mark := fmt.Sprintf("round %d ", round)
				for i, fl := range flows {
					fl.say(f.t, fmt.Sprintf("%s flow %d.", mark, i))
				}
				var seen []*outer
				f.hosts[0].node.until("all flows are on the wire", func() bool { seen = wire.leaving(mark); return len(seen) >= len(flows) })
				settled++
				for i, fl := range flows {
					var own []*outer
					for _, o := range seen {
						if strings.Contains(string(o.inner), fmt.Sprintf("flow %d.", i)) {
							own = append(own, o)
						}
					}
					if len(own) != 1 {
						t.Fatalf("%sof flow %d is %d datagrams, want 1", mark, i, len(own))
					}
					o := own[0]
					if o.tos != fl.tos {
						t.Errorf("TOS of a packet with %#x is %#x outside", fl.tos, o.tos)
					}
					if ports[i] != o.src.Port() {
						ports[i], settled = o.src.Port(), 0 // its socket wasn't open yet
					}
				}
			}
			own := map[uint16]bool{}
			for _, p := range ports {
				own[p] = true
			}
			if len(own) < 48 {
				t.Errorf("64 flows leave by %d ports, want 48 or more", len(own))
			}
			for _, o := range wire.leaving("round") {
				if o.vxlan != [8]byte{8, 0, 0, 0, 0, 0x27, 0x1a, 0} || o.ttl != 64 || !o.df ||
					o.src.Port() < 49152 || int(o.dst.Port()) != c.port || (o.sum == 0) != (c.off && !c.v6) {
					t.Fatalf("on the wire: %+v", o)
				}
			}
		})
	}
}

// voice is one flow of station 1 to station 2, by IPv4 or IPv6.
type voice struct {
	tos  uint8
	from net.PacketConn
	to   net.Addr
}

// flows opens n flows, each with a TOS and a source port of its own.
func (f *fabric) flows(n int) []*voice {
	f.t.Helper()
	f.sink(2)
	var out []*voice
	for i := range n {
		v := &voice{tos: uint8(i * 4 & 0xff), to: &net.UDPAddr{IP: net.ParseIP(f.end(2).v4), Port: sinkPort}}
		v.tos |= uint8(i>>1) & 3
		at, level, opt := f.end(1).v4, unix.SOL_IP, unix.IP_TOS
		if i%2 == 1 {
			at, level, opt = "["+f.end(1).v6+"]", unix.SOL_IPV6, unix.IPV6_TCLASS
			v.to = &net.UDPAddr{IP: net.ParseIP(f.end(2).v6), Port: sinkPort}
		}
		f.hosts[0].container.Do(func() (err error) {
			v.from, err = listen(fmt.Sprintf("%s:%d", at, 20000+i), func(fd int) error { return unix.SetsockoptInt(fd, level, opt, int(v.tos)) })
			return err
		})
		f.t.Cleanup(func() { v.from.Close() })
		out = append(out, v)
	}
	return out
}

func (v *voice) say(t *testing.T, text string) {
	t.Helper()
	if _, err := v.from.WriteTo([]byte(text), v.to); err != nil {
		t.Fatal(err)
	}
}

// listen opens a UDP socket in the calling thread's namespace with an option
// set.
func listen(at string, set func(fd int) error) (net.PacketConn, error) {
	var lc net.ListenConfig
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) { inner = set(int(fd)) })
		return errors.Join(err, inner)
	}
	return lc.ListenPacket(context.Background(), "udp", at)
}

// TestTunnelFlood counts on the wire: a flood leaves once for each peer that
// carries the network, for no other, and never goes on from tunnel to tunnel.
func TestTunnelFlood(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 4)
	config := strings.Replace(f.file(false, 4789, 1, 2, 3, 4), "{blue: {vlan: 10, vni: 10010}}", "{blue: {vlan: 10, vni: 10010}, red: {vlan: 20, vni: 10020}}", 1)
	// Host 4 carries red alone, for which the others have no port.
	config = strings.Replace(config, `"192.0.2.4:4789"`, `"192.0.2.4:4789", networks: [red]`, 1)
	f.up(1, config)
	f.up(2, config)
	f.up(3, config)
	f.up(4, config)
	f.meet(1, 2)
	f.meet(1, 3)
	f.meet(2, 3)
	var wires []*sniffer
	for i := range f.hosts {
		wires = append(wires, f.sniff(i+1))
	}
	raw := f.raw(1)
	const floods = 20
	kinds := map[string]frame.MAC{
		"broadcast":       {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"multicast":       {1, 0, 0x5e, 0x7f, 1, 1},
		"unknown unicast": {2, 0, 0, 0, 0x99, 1},
	}
	for kind, to := range kinds {
		for i := range floods {
			raw(switchtest.EthFrame(to, switchtest.Station4(1).MAC, 0x88b5, fmt.Appendf(make([]byte, 50), "%s %d.", kind, i)))
		}
	}
	// What follows the floods by the same ways tells when they are through.
	f.meet(1, 2)
	f.meet(1, 3)
	f.meet(2, 3)
	for kind := range kinds {
		for i := range floods {
			mark := fmt.Sprintf("%s %d.", kind, i)
			f.hosts[0].node.until(mark+" has arrived", func() bool { return len(wires[1].arriving(mark)) > 0 && len(wires[2].arriving(mark)) > 0 })
			left := map[string]int{}
			for _, o := range wires[0].leaving(mark) {
				left[o.dst.String()]++
			}
			if len(left) != 2 || left["192.0.2.2:4789"] != 1 || left["192.0.2.3:4789"] != 1 {
				t.Errorf("%s left for %v, want once for 192.0.2.2 and 192.0.2.3", mark, left)
			}
			for j, w := range wires[1:] {
				if on := w.leaving(mark); len(on) != 0 {
					t.Errorf("host %d passed %s on to %v", j+2, mark, on[0].dst)
				}
			}
			if got := len(wires[3].arriving(mark)); got != 0 {
				t.Errorf("host 4, which does not carry the network, got %s %d times", mark, got)
			}
		}
	}
	f.conserved()
}

// raw returns what sends frames as they are from a container.
func (f *fabric) raw(i int) func([]byte) {
	f.t.Helper()
	netnstest.Require(f.t, "packet")
	e := f.end(i)
	r, err := switchtest.OpenRawEnd(e.dev, e.do)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { r.Close() })
	return func(b []byte) {
		f.t.Helper()
		if err := r.Send(frame.Frame{Data: b}); err != nil {
			f.t.Fatal(err)
		}
	}
}

// TestTunnelECN sends every pair of outer and inner ECN to a host, in the place
// of a peer: RFC 6040 figure 4 says what comes out, and that a mark on a packet
// that can't carry it is a drop.
func TestTunnelECN(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	one := f.up(1, f.file(false, 4789, 1, 2))
	heard := f.sink(1)
	const not, ect1, ect0, ce, drop = 0, 1, 2, 3, 4
	want := [4][4]uint8{ // inner, then outer
		not:  {not, not, not, drop},
		ect1: {ect1, ect1, ect1, ce},
		ect0: {ect0, ect1, ect0, ce},
		ce:   {ce, ce, ce, ce},
	}
	at := switchtest.Station4(1)
	at.Port = sinkPort
	for inner := range want {
		for outer, w := range want[inner] {
			text := fmt.Sprintf("inner %d outer %d", inner, outer)
			b := switchtest.UDPFrame(switchtest.Station4(2), at, []byte(text))
			b[15] = 0xb8 | uint8(inner)
			b[24], b[25] = 0, 0
			sum := ^onesSum(b[14:34])
			b[24], b[25] = uint8(sum>>8), uint8(sum)
			before := one.stats().Drops["bad_header"]
			f.say(2, underlayAddr(1, false)+":4789", vxlan(10010, b), uint8(outer))
			if w == drop {
				one.until(text+" is counted", func() bool { return one.stats().Drops["bad_header"] == before+1 })
				continue
			}
			one.until(text+" arrives", func() bool { return heard.count(text) == 1 })
			if got := heard.tos(text); got != 0xb8|w {
				t.Errorf("%s: TOS %#x comes out, want %#x", text, got, 0xb8|w)
			}
		}
	}
	f.conserved()
}
