package integration_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// becomes sends a frame and demands what becomes of it and who hears it.
func (b *bench) becomes(t *testing.T, in string, data []byte, decision string, heard ...string) {
	t.Helper()
	b.t = t
	before := b.drops(in)
	o := b.send(in, data)
	if o.decision != decision {
		t.Errorf("%s, want %s", o.decision, decision)
	}
	want := map[string][]byte{}
	for _, name := range heard {
		want[name] = data
	}
	heardAs(t, o, want)
	if reason, dropped := strings.CutPrefix(decision, "drop "); dropped {
		if got := b.drops(in)[reason] - before[reason]; got != 1 {
			t.Errorf("%s counted %d times, want 1", reason, got)
		}
	}
}

// TestPolicyIsolatedAndHairpin: isolated ports talk to the others only; a
// hairpin port hears what it says to its own side.
func TestPolicyIsolatedAndHairpin(t *testing.T) {
	b := newBench(t, "", map[string]string{
		"i1": "access: blue, isolated: true", "i2": "access: blue, isolated: true",
		"open": "access: blue", "hair": "access: blue, hairpin: true",
	})
	b.becomes(t, "i1", hello(1), "flood broadcast", "hair", "open")
	b.becomes(t, "i2", hello(2), "flood broadcast", "hair", "open")
	b.becomes(t, "open", hello(3), "flood broadcast", "hair", "i1", "i2")
	b.becomes(t, "hair", hello(4), "flood broadcast", "hair", "i1", "i2", "open")
	udp := func(from, to byte) []byte {
		return switchtest.UDPFrame(station(from), station(to), switchtest.Pattern(200))
	}
	b.becomes(t, "i1", udp(1, 2), "drop isolated")
	b.becomes(t, "i1", udp(1, 3), "forward known_unicast", "open")
	b.becomes(t, "open", udp(3, 2), "forward known_unicast", "i2")
	b.becomes(t, "open", udp(5, 3), "drop same_port")
	b.becomes(t, "hair", udp(6, 4), "forward known_unicast", "hair")
	conserved(t, b.n)
}

// TestPolicySources: a port with pinned addresses can't claim others, whatever
// protocol it claims them in and behind whatever tags.
func TestPolicySources(t *testing.T) {
	b := newBench(t, "", map[string]string{
		"pinned": `access: blue, mac_pin: "02:00:00:00:00:01", sources: [10.1.0.1, "fd00::1"]`,
		"victim": "access: blue",
	})
	good, evil := station(1), station(1)
	evil.Addr = netip.MustParseAddr("10.1.0.66")
	good6, evil6 := switchtest.Station6(1), switchtest.Station6(1)
	evil6.Addr = netip.MustParseAddr("fd00::66")
	otherMAC := station(66)
	otherMAC.Addr = good.Addr
	victim, victim6 := station(2), switchtest.Station6(2)
	data := switchtest.Pattern(100)
	const ok, spoof = "flood unknown_unicast", "drop spoofed_source"
	for _, c := range []struct {
		name     string
		frame    []byte
		decision string
	}{
		{"own IPv4", switchtest.UDPFrame(good, victim, data), ok},
		{"own IPv6", switchtest.UDPFrame(good6, victim6, data), ok},
		{"own ARP", switchtest.ARPFrame(good, victim.Addr), "flood broadcast"},
		{"own ARP reply", switchtest.ARPReply(good, victim), ok},
		{"own advertisement", switchtest.NeighbourAdvertisement(good6, victim6), ok},
		{"own solicitation", switchtest.NeighbourSolicitation(good6, victim6.Addr), "flood multicast"},
		{"another's MAC", switchtest.UDPFrame(otherMAC, victim, data), spoof},
		{"another's IPv4", switchtest.UDPFrame(evil, victim, data), spoof},
		{"another's IPv6", switchtest.UDPFrame(evil6, victim6, data), spoof},
		{"another's ARP", switchtest.ARPFrame(evil, victim.Addr), spoof},
		{"another's ARP reply", switchtest.ARPReply(evil, victim), spoof},
		{"another's advertisement", switchtest.NeighbourAdvertisement(evil6, victim6), spoof},
		{"another's solicitation", switchtest.NeighbourSolicitation(evil6, victim6.Addr), spoof},
		{"another's IPv4 behind a priority tag", switchtest.Tagged(0, 3, switchtest.UDPFrame(evil, victim, data)), spoof},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.decision == spoof {
				b.becomes(t, "pinned", c.frame, c.decision)
				return
			}
			b.becomes(t, "pinned", c.frame, c.decision, "victim")
		})
	}
}

// TestPolicyReserved: bridges don't relay the reserved group addresses, unless
// they are told to.
func TestPolicyReserved(t *testing.T) {
	ports := map[string]string{"a": "access: blue", "b": "access: blue", "c": "access: red", "d": "access: red"}
	group := func(n byte) []byte {
		return switchtest.Padded(switchtest.EthFrame(frame.MAC{1, 0x80, 0xc2, 0, 0, n}, station(1).MAC, 0x88b5, switchtest.Pattern(int(n)+46)))
	}
	t.Run("strict", func(t *testing.T) {
		b := newBenchOf(t, "", "blue: {vlan: 10}, red: {vlan: 20, forward_reserved: [lldp, lacp]}", ports)
		for n := range byte(16) {
			b.becomes(t, "a", group(n), "drop reserved_group")
		}
		b.becomes(t, "a", group(16), "flood multicast", "b")
		b.becomes(t, "c", switchtest.Padded(switchtest.LLDP(station(3).MAC)), "flood multicast", "d")
		b.becomes(t, "c", group(2), "flood multicast", "d")
		b.becomes(t, "c", group(0), "drop reserved_group")
	})
	t.Run("lab", func(t *testing.T) {
		b := newBench(t, "profile: lab", ports)
		for n := range byte(16) {
			b.becomes(t, "a", group(n), "flood multicast", "b")
		}
	})
}

// came is how many frames a port has received.
func (b *bench) came(port string) uint64 {
	b.t.Helper()
	var ports []api.Port
	b.n.json(&ports, "port", "ls")
	for _, p := range ports {
		if p.Name == port {
			return p.RX.Frames
		}
	}
	b.t.Fatalf("no port %s", port)
	return 0
}

// TestPolicyLimits: what exceeds a limit is dropped under its own reason and
// nothing else is.
func TestPolicyLimits(t *testing.T) {
	b := newBench(t, "", map[string]string{
		"noisy": "access: blue, storm: {broadcast: 8/s}, fdb_limit: 4",
		"wide":  "access: blue", "narrow": "access: blue, mtu: 1000",
	})
	t.Run("mtu", func(t *testing.T) {
		b.t = t
		b.becomes(t, "narrow", hello(1), "flood broadcast", "noisy", "wide")
		b.becomes(t, "wide", hello(2), "flood broadcast", "noisy", "narrow")
		big := switchtest.UDPFrame(station(2), station(1), switchtest.Pattern(1000))
		before := b.drops("narrow")["mtu_exceeded"]
		if o := b.send("wide", big); o.decision != "forward known_unicast" || len(o.heard) > 0 {
			t.Errorf("%s, heard %d", o.decision, len(o.heard))
		}
		if got := b.drops("narrow")["mtu_exceeded"] - before; got != 1 {
			t.Errorf("mtu_exceeded counted %d times, want 1", got)
		}
		b.becomes(t, "wide", switchtest.UDPFrame(station(2), station(1), switchtest.Pattern(972)), "forward known_unicast", "narrow")
	})
	t.Run("fdb limit", func(t *testing.T) {
		b.t = t
		for i := range byte(20) {
			f := switchtest.UDPFrame(station(100+i), station(1), switchtest.Pattern(64))
			b.becomes(t, "noisy", f, "forward known_unicast", "narrow")
		}
		var ports []api.Port
		b.n.json(&ports, "port", "ls")
		for _, p := range ports {
			if p.Name == "noisy" && p.Entries > 4 {
				t.Errorf("noisy owns %d entries, its limit is 4", p.Entries)
			}
		}
		// Others keep theirs.
		b.becomes(t, "wide", switchtest.UDPFrame(station(2), station(1), switchtest.Pattern(70)), "forward known_unicast", "narrow")
	})
	t.Run("storm", func(t *testing.T) {
		b.t = t
		before, came, begin := b.drops("noisy")["storm"], b.came("noisy"), time.Now()
		for range 40 {
			if err := b.wires["noisy"].Send(frame.Frame{Data: hello(100)}); err != nil {
				t.Fatal(err)
			}
		}
		b.n.until("the storm is counted", func() bool { return b.came("noisy")-came >= 40 })
		most := 8 + int(8*time.Since(begin).Seconds()) + 1 // a second's worth at once, and more as time passes
		heard := len(b.hear(b.sound())["wide"])
		if got := int(b.drops("noisy")["storm"] - before); heard > most || got+heard != 40 {
			t.Errorf("of 40 broadcasts %d passed and %d were dropped as storm, want %d at most to pass", heard, got, most)
		}
	})
	conserved(t, b.n)
}

// TestPolicyStations: static entries hold, dynamic ones move and age, and all
// of it is told.
func TestPolicyStations(t *testing.T) {
	b := newBenchOf(t, "fdb: [{network: red, mac: \"02:00:00:00:00:09\", port: d}]",
		"blue: {vlan: 10}, red: {vlan: 20, ageing: 1s}",
		map[string]string{"a": "access: blue", "b": "access: blue", "c": "access: red", "d": "access: red", "e": "access: red"})
	t.Run("static", func(t *testing.T) {
		b.t = t
		to := switchtest.UDPFrame(station(3), station(9), switchtest.Pattern(99))
		b.becomes(t, "c", to, "forward known_unicast", "d")
		b.becomes(t, "e", hello(9), "flood broadcast", "c", "d") // an impostor teaches nothing
		b.becomes(t, "c", to, "forward known_unicast", "d")
	})
	t.Run("move", func(t *testing.T) {
		b.t = t
		moved := make(chan api.Event, 8)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for e, err := range b.api.Events(ctx, []string{"fdb"}) {
				if err != nil || !strings.Contains(e.What, "moved") {
					continue
				}
				select {
				case moved <- e:
				case <-ctx.Done():
				}
			}
		}()
		to := switchtest.UDPFrame(station(2), station(1), switchtest.Pattern(77))
		b.becomes(t, "a", hello(1), "flood broadcast", "b")
		b.becomes(t, "b", hello(1), "flood broadcast", "a")
		b.becomes(t, "a", to, "forward known_unicast", "b")
		b.n.until("the move is told", func() bool {
			if len(moved) > 0 {
				return true
			}
			// The reader of events may have come too late for the first one.
			b.send("a", hello(1))
			b.send("b", hello(1))
			return len(moved) > 0
		})
		if e := <-moved; e.MAC != station(1).MAC.String() || e.Network != "blue" || !strings.Contains(e.What, "from port") {
			t.Errorf("event %+v", e)
		}
		var why api.Why
		b.n.json(&why, "fdb", "why", station(1).MAC.String())
		found := false
		for _, h := range why.History {
			found = found || h.Event == "moved" && h.OldPort == "a" && h.Port == "b"
		}
		if !found || len(why.Entries) != 1 || why.Entries[0].Moves == 0 {
			t.Errorf("why says %+v", why)
		}
	})
	t.Run("ageing", func(t *testing.T) {
		b.t = t
		b.becomes(t, "c", hello(5), "flood broadcast", "d", "e")
		known := func() (dynamic, static int) {
			var entries []api.Entry
			b.n.json(&entries, "fdb", "ls")
			for _, e := range entries {
				switch {
				case e.MAC == station(5).MAC:
					dynamic++
				case e.Kind == "static":
					static++
				}
			}
			return dynamic, static
		}
		b.n.until("the silent station is forgotten", func() bool { d, _ := known(); return d == 0 })
		if _, s := known(); s != 1 {
			t.Errorf("%d static entries, want 1", s)
		}
		var history []api.Taught
		b.n.json(&history, "fdb", "history")
		aged := false
		for _, h := range history {
			aged = aged || h.Event == "aged" && h.MAC == station(5).MAC
		}
		if !aged {
			t.Error("history doesn't say that the station aged")
		}
		b.becomes(t, "d", switchtest.UDPFrame(station(9), station(5), switchtest.Pattern(88)), "flood unknown_unicast", "c", "e")
	})
}
