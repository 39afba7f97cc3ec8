package config_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/switch/frame"
)

func mustParse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("t.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// FuzzParse: nothing panics, and what is accepted is valid, resolves, and is
// read back equal from its canonical text.
func FuzzParse(f *testing.F) {
	for _, s := range []string{full, "networks: {a: {}}", "- a", "a: &a [*a]", "host: !!binary aGk=", "networks:\n  b:\n", "routers: {r: {interfaces: {}}}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := config.Parse("f", text)
		if err != nil {
			for _, r := range err.Error() {
				if r < ' ' && r != '\n' || r == 0x7f {
					t.Fatalf("error %q is not safe to print", err)
				}
			}
			return
		}
		readBack(t, c)
		readBack(t, c.Resolved("h", nil))
	})
}

type fataler interface {
	Fatalf(format string, args ...any)
}

func readBack(t fataler, c *config.Config) {
	if err := config.Validate(c); err != nil {
		t.Fatalf("validate what is valid: %v", err)
	}
	text := c.Marshal()
	got, err := config.Parse("again", text)
	if err != nil {
		t.Fatalf("parse what was marshalled: %v\n%s", err, text)
	}
	if !reflect.DeepEqual(got, c) {
		t.Fatalf("read back differently:\n%s\n%s", text, got.Marshal())
	}
	if ch := config.Diff(c, got); len(ch) > 0 {
		t.Fatalf("equal configurations differ: %v", ch)
	}
}

const full = `
host: h1
networks: {blue: {vlan: 10, vni: 7, storm: {broadcast: 10/s}}, red: {forward_reserved: [lldp, "04"]}}
ports:
  c1: {tap: {netns: c1, address: [10.0.0.2/24], gateway: 10.0.0.1, mac: "02:00:00:00:00:01"}, access: blue, sources: [10.0.0.2]}
  c2: {device: {name: eth1}, trunk: [blue, red], native: red, mac_pin: "02:00:00:00:00:02", offload: {gso: off}}
fdb: [{network: blue, mac: "02:00:00:00:00:09", port: c1}]
tunnel: {peers: {h2: {address: 192.0.2.1}}, dtls: {psk_file: k}}
routers: {r1: {interfaces: {blue: {address: [10.0.0.254/24]}}, routes: [{to: 0.0.0.0/0, via: 10.0.0.1}]}}
`

// TestReadEndless: a file without an end is refused as one that is too large.
func TestReadEndless(t *testing.T) {
	text, err := config.ReadFile("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	_, err = config.Parse("zero", text)
	wantError(t, err, "zero: file is larger than 4 MiB")
	if _, err := config.ReadFile(t.TempDir()); err == nil {
		t.Error("a folder has been read")
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawConfig(t)
		readBack(t, c)
		readBack(t, c.Resolved("h", nil))
		if !reflect.DeepEqual(c.Clone(), c) {
			t.Fatalf("clone differs")
		}
	})
}

func drawConfig(t *rapid.T) *config.Config {
	c := &config.Config{
		Profile:  rapid.SampledFrom([]config.Profile{"", config.Strict, config.Lab}).Draw(t, "profile"),
		FDBLimit: rapid.IntRange(0, 1<<24).Draw(t, "limit"),
		Networks: map[string]*config.Network{"blue": {VNI: 1}},
		Ports:    map[string]*config.Port{},
	}
	flag := func() *bool {
		return rapid.SampledFrom([]*bool{nil, new(true), new(false)}).Draw(t, "flag")
	}
	duration := func() *config.Duration {
		return new(config.Duration(rapid.Int64Range(0, int64(1000*time.Hour)).Draw(t, "duration")))
	}
	storm := func() *config.Storm {
		return &config.Storm{Unknown: new(config.Rate(rapid.Uint32().Draw(t, "rate")))}
	}
	name := rapid.StringMatching(`[a-z0-9][a-z0-9_-]{0,20}`)
	modes := rapid.SampledFrom([]config.Mode{"", config.Bridge, config.VEPA, config.Private})
	for i, n := range rapid.SliceOfDistinct(name, rapid.ID).Draw(t, "networks") {
		c.Networks[n] = &config.Network{
			VLAN: frame.VID(i + 1), Ageing: duration(), MTU: rapid.IntRange(68, 65535).Draw(t, "mtu"), Mode: modes.Draw(t, "mode"),
			LoopGuard: flag(), Storm: storm(), ForwardReserved: config.GroupMask(rapid.Uint16().Draw(t, "mask")),
		}
	}
	for i, n := range rapid.SliceOfDistinct(name, rapid.ID).Draw(t, "ports") {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).Next()
		p := &config.Port{Access: "blue", Isolated: rapid.Bool().Draw(t, "isolated"), Storm: storm(), Offload: config.Offload{GSO: flag()}}
		p.Tap = &config.Interface{
			Netns: fmt.Sprintf("pid:%d", i+1), Address: []netip.Prefix{netip.PrefixFrom(a, 8)},
			MAC: frame.MACFromUint64(0x020000000000 + uint64(i)),
		}
		p.MACPin = rapid.SampledFrom([]config.MACPin{{}, {On: true}, {On: true, MAC: p.Tap.MAC}}).Draw(t, "pin")
		c.Ports[n] = p
	}
	if len(c.Ports) == 0 {
		c.Ports = nil // as Parse leaves it
	}
	return c
}

func TestAssignVLANsIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfDistinct(rapid.StringMatching(`[a-z]{1,3}`), rapid.ID)
		vlan := rapid.Uint16Range(0, 4094)
		build := func(label string) *config.Config {
			c := &config.Config{Networks: map[string]*config.Network{}}
			used := map[uint16]bool{0: true}
			for _, n := range names.Draw(t, label) {
				v := vlan.Draw(t, "vlan")
				if used[v] {
					v = 0
				}
				used[v] = true
				c.Networks[n] = &config.Network{VLAN: frame.VID(v)}
			}
			return c
		}
		a, b := build("before"), build("after")
		before := config.AssignVLANs(a, nil)
		after := config.AssignVLANs(b, before)
		written, seen := map[frame.VID]bool{}, map[frame.VID]bool{}
		for _, n := range b.Networks {
			written[n.VLAN] = true
		}
		for n, v := range after {
			if seen[v] || !v.Valid() {
				t.Fatalf("network %s has VLAN %d, which is taken or invalid", n, v)
			}
			seen[v] = true
			if want := b.Networks[n].VLAN; want != 0 && v != want {
				t.Fatalf("network %s has VLAN %d, want the written %d", n, v, want)
			}
			if was, ok := before[n]; ok && b.Networks[n].VLAN == 0 && !written[was] && v != was {
				t.Fatalf("network %s moved from VLAN %d to %d", n, was, v)
			}
		}
		if len(after) != len(b.Networks) {
			t.Fatalf("%d of %d networks have a VLAN", len(after), len(b.Networks))
		}
	})
}

func TestTooManyNetworks(t *testing.T) {
	c := &config.Config{Networks: map[string]*config.Network{}}
	for i := range 4095 {
		c.Networks[fmt.Sprint("n", i)] = &config.Network{}
	}
	if got := len(config.AssignVLANs(c, nil)); got != 4094 {
		t.Errorf("%d networks have a VLAN, want 4094", got)
	}
	wantError(t, config.Validate(c), "networks: 4095 networks; want 4094 or fewer, one for each VLAN")
}

func wantError(t *testing.T, err error, want ...string) {
	t.Helper()
	got := "<nil>"
	if err != nil {
		got = err.Error()
	}
	if d := cmp.Diff(strings.Join(want, "\n"), got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestParseBounds(t *testing.T) {
	_, err := config.Parse("big", make([]byte, 4<<20+1))
	wantError(t, err, "big: file is larger than 4 MiB")
	_, err = config.Parse("many", []byte("ports: ["+strings.Repeat("a,", 250_001)+"]"))
	wantError(t, err, "many: file has more than 250000 values")
	_, err = config.Parse("deep", []byte(strings.Repeat("[", 100_000)))
	if err == nil {
		t.Error("deep nesting is accepted")
	}
	_, err = config.Parse("odd\x1b", []byte("host: a\x01"))
	wantError(t, err, `"odd\x1b": is no YAML: control characters are not allowed`)
}

func TestRouterAddressesAreBounded(t *testing.T) {
	list := make([]netip.Prefix, 1025)
	a := netip.MustParseAddr("10.0.0.1")
	for i := range list {
		list[i] = netip.PrefixFrom(a, 32)
		a = a.Next()
	}
	c := &config.Config{
		Networks: map[string]*config.Network{"blue": {}},
		Routers:  map[string]*config.Router{"r": {Interfaces: map[string]*config.RouterInterface{"blue": {Address: list}}}},
	}
	wantError(t, config.Validate(c), "routers.r.interfaces.blue: more than 1024 addresses in one router")
}

func TestErrorsUnwrap(t *testing.T) {
	_, err := config.Parse("f", []byte("\n  host: A"))
	var e *config.Error
	if !errors.As(err, &e) || e.Line != 2 || e.Col != 9 || e.File != "f" || e.Field != "host" {
		t.Errorf("got %+v", e)
	}
}

// TestValidateBuilt checks what no file can say but a program can.
func TestValidateBuilt(t *testing.T) {
	mapped := netip.MustParseAddr("::ffff:10.0.0.1")
	c := &config.Config{
		Ageing: new(config.Duration(-1)), FDBLimit: -1, Profile: "lax", Offload: config.Offload{Spin: new(config.Duration(time.Second))},
		Networks: map[string]*config.Network{"blue": {VLAN: 4095, VNI: 1 << 24}, "A\n": {}},
		Ports: map[string]*config.Port{"p": {
			HostIf: &config.Interface{Netns: "x", MAC: frame.Broadcast, Address: []netip.Prefix{{}}},
			Access: "blue", Sources: []netip.Addr{mapped}, MACPin: config.MACPin{On: true, MAC: frame.Broadcast}, Offload: config.Offload{Spin: new(config.Duration(1))},
		}},
		Tunnel: &config.Tunnel{Listen: netip.AddrPortFrom(netip.IPv6Unspecified(), 0), Peers: map[string]*config.Peer{"h": {Address: config.PeerAddr(netip.AddrPortFrom(mapped, 1))}},
			DTLS: &config.DTLS{PSKFile: "k", Listen: netip.AddrPortFrom(mapped, 0)}},
	}
	wantError(t, config.Validate(c),
		`profile: "lax" is not known; want strict or lab`,
		`ageing: -1ns is negative; want 0s or more`,
		`fdb_limit: -1 is negative; want 1 to 16777216`,
		`networks."A\n": "A\n" is no name; want [a-z0-9][a-z0-9._-]{0,62} without two dots in a row`,
		`networks.blue.vlan: 4095 is out of range; want 1 to 4094`,
		`networks.blue.vni: 16777216 is out of range; want 1 to 16777215`,
		`ports.p.host.netns: does not belong here; known: ifname, address, gateway, mac`,
		`ports.p.host.mac: ff:ff:ff:ff:ff:ff is a group address; want a unicast one, whose first octet is even`,
		`ports.p.mac_pin: ff:ff:ff:ff:ff:ff is a group address; want a unicast one, whose first octet is even`,
		`ports.p.sources[0]: "::ffff:10.0.0.1" is an IPv4 address inside an IPv6 one; write 10.0.0.1`,
		`ports.p.offload.spin: does not belong here; known: gso, coalesce`,
		`tunnel.peers.h.address: "::ffff:10.0.0.1" is an IPv4 address inside an IPv6 one; write 10.0.0.1`,
		`tunnel.dtls.listen: "::ffff:10.0.0.1" is an IPv4 address inside an IPv6 one; write 10.0.0.1`,
		`offload.spin: 1s is out of range; want 0s to 1ms`,
		`ports.p.host.address[0]: is no address with prefix length`,
		`tunnel.listen: [::]:0 has no port; write it like 0.0.0.0:4789`,
		`tunnel.dtls.listen: [::ffff:10.0.0.1]:0 has no port; write it like 0.0.0.0:4788`)
	wantError(t, config.Validate(&config.Config{Ports: map[string]*config.Port{"p": nil}}), "ports.p: is nil; want a value")
}

func TestDiff(t *testing.T) {
	base := mustParse(t, full)
	for _, tt := range []struct{ from, to, want string }{
		{"", "", ""},
		{"vlan: 10, vni: 7", "vlan: 10, vni: 8, mtu: 1400", "~ network blue: mtu default → 1400, vni 7 → 8"},
		{"host: h1", "host: h3\nageing: 0s", "~ ageing: default → 0s\n~ host: h1 → h3"},
		{"dtls: {psk_file: k}", "dtls: {psk_file: j}", "~ tunnel dtls.psk_file: k → j"},
		{"peers: {h2: {address: 192.0.2.1}}, dtls", "dtls", "- peer h2"},
		{"tunnel: {peers: {h2: {address: 192.0.2.1}}, dtls: {psk_file: k}}", "", "- tunnel\n- peer h2"},
		{"fdb: [{network: blue, mac: \"02:00:00:00:00:09\", port: c1}]", "fdb: [{network: red, mac: \"02:00:00:00:00:09\", port: c2}]", "- fdb blue 02:00:00:00:00:09\n+ fdb red 02:00:00:00:00:09: port c2"},
		{"  c2:", "  c3: {tap: {netns: c3}, access: blue}\n  c2:", "+ port c3: tap netns c3, access blue"},
		{"native: red, ", "native: blue, isolated: true, ", "~ port c2: isolated default → on, native red → blue"},
	} {
		next := mustParse(t, strings.Replace(full, tt.from, tt.to, 1))
		var lines []string
		for _, c := range config.Diff(base, next) {
			lines = append(lines, c.String())
		}
		if d := cmp.Diff(tt.want, strings.Join(lines, "\n")); d != "" {
			t.Errorf("%q → %q\n-want +got:\n%s", tt.from, tt.to, d)
		}
	}
	if got := config.Diff(base, nil); len(got) != 9 {
		t.Errorf("removal of everything is %d changes, want 9: %v", len(got), got)
	}
}
