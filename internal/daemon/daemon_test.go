package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/switch/frame"
)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const three = `
networks: {blue: {vlan: 10}, red: {}}
ports:
  a: {tap: {netns: a}, access: blue}
  b: {tap: {netns: b}, access: blue}
  c: {tap: {netns: c}, trunk: [blue, red]}
`

// TestNumbersAreStable: a port keeps its number for as long as it is
// configured, because the FDB knows it by that, and a number that became free is
// the last to be used again.
func TestNumbersAreStable(t *testing.T) {
	st := newState()
	all := parse(t, three)
	if err := st.assign(all); err != nil {
		t.Fatal(err)
	}
	a, c := st.Ports["a"].ID, st.Ports["c"].ID
	fewer := all.Clone()
	delete(fewer.Ports, "b")
	if err := st.assign(fewer); err != nil {
		t.Fatal(err)
	}
	more := fewer.Clone()
	more.Ports["d"] = all.Ports["b"]
	if err := st.assign(more); err != nil {
		t.Fatal(err)
	}
	if st.Ports["a"].ID != a || st.Ports["c"].ID != c {
		t.Errorf("numbers changed: %+v", st.Ports)
	}
	if d := st.Ports["d"].ID; d == a || d == c || d == 2 {
		t.Errorf("port d has number %d, which was just in use", d)
	}
}

func TestNumbersRunOut(t *testing.T) {
	c := &config.Config{Ports: map[string]*config.Port{}}
	for i := range int(frame.MaxPortID) + 1 {
		c.Ports[fmt.Sprintf("p%d", i)] = &config.Port{}
	}
	st := newState()
	if err := st.assign(c); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("err = %v", err)
	}
}

// TestStateOnDisk: what was saved is read back, and nothing is there at first.
func TestStateOnDisk(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fd := int(dir.Fd())
	if _, ok, err := load(fd); ok || err != nil {
		t.Fatalf("load of nothing: %v, %v", ok, err)
	}
	st := newState()
	if err := st.assign(parse(t, three)); err != nil {
		t.Fatal(err)
	}
	st.Config = three
	if err := st.save(fd); err != nil {
		t.Fatal(err)
	}
	got, ok, err := load(fd)
	if err != nil || !ok || got.Config != three || got.Ports["c"].ID != st.Ports["c"].ID || got.Next != st.Next {
		t.Errorf("loaded %+v, %v, %v", got, ok, err)
	}
	damage(t, dir.Name()+"/state")
	var damaged *keeper.DamagedError
	if _, _, err := load(fd); !errors.As(err, &damaged) {
		t.Errorf("damaged state: %v", err)
	}
}

func damage(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSpec: every setting of the file reaches the switch.
func TestSpec(t *testing.T) {
	raw := parse(t, `
networks:
  blue: {vlan: 10, mtu: 1400, ageing: 60s, forward_reserved: [lldp]}
  red: {vlan: 20}
ports:
  a: {tap: {netns: a, mac: "02:00:00:00:00:0a", address: [10.0.0.1/24]}, access: blue, isolated: true, mac_pin: true, sources: [10.0.0.1], fdb_limit: 7, storm: {broadcast: 5/s}, loop_guard: off, offload: {coalesce: off, gso: off}}
  up: {device: {name: eth9}, trunk: [blue, red], native: red, hairpin: true, uplink: true, mtu: 1300}
`)
	eff := raw.Resolved("h", nil)
	vlans := config.AssignVLANs(raw, nil)
	ports := map[string]*port{
		"a":  {name: "a", id: 1, reply: keeper.PortReply{MAC: frame.MustParseMAC("02:00:00:00:00:0a")}},
		"up": {name: "up", id: 2},
	}
	s := spec(eff, vlans, ports)
	if len(s.Networks) != 2 || s.Networks[0].MTU != 1400 || s.Networks[0].Ageing.Seconds() != 60 || s.Networks[0].ForwardReserved != 1<<0xe {
		t.Errorf("networks %+v", s.Networks)
	}
	a, up := s.Ports[0], s.Ports[1]
	if a.Native != 10 || len(a.Tagged) != 0 || !a.Isolated || a.MACPin != ports["a"].reply.MAC || a.FDBLimit != 7 ||
		a.Storm.Broadcast != 5 || a.Storm.Unknown != 1000 || a.LoopGuard || !a.NoCoalesce || len(a.Sources) != 1 {
		t.Errorf("port a %+v", a)
	}
	if up.Native != 20 || !slices.Equal(up.Tagged, []frame.VID{10}) || !up.Hairpin || !up.Uplink || up.MTU != 1300 || up.NoCoalesce || !up.LoopGuard {
		t.Errorf("port up %+v", up)
	}
	r := request(eff, "a")
	if !r.NoGSO || r.MTU != 1400 || r.Ifname != "eth0" || r.Addresses[0] != netip.MustParsePrefix("10.0.0.1/24") {
		t.Errorf("request %+v", r)
	}
	if r := request(eff, "up"); r.Device != "eth9" || r.MTU != 1300 {
		t.Errorf("request %+v", r)
	}
}

// TestSlowReader: who reads too slowly loses events and is told how many; the
// others lose nothing, and nobody waits.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		ctx, cancel := context.WithCancel(t.Context())
		slow := h.subscribe(ctx, nil, time.Time{})
		for range readerDepth + 10 {
			h.publish(api.Event{Kind: "port"})
		}
		<-slow
		<-slow
		h.publish(api.Event{Kind: "fdb"})
		cancel()
		synctest.Wait()
		var last []string
		for e := range slow {
			last = append(last, e.Kind+" "+e.What)
		}
		want := []string{"lost 10 events lost: the reader is too slow", "fdb "}
		if got := last[len(last)-2:]; !slices.Equal(got, want) {
			t.Errorf("the end of the stream is %q, want %q", got, want)
		}
	})
}

// TestFramesAreWatchedOnDemand: the first reader of frames switches watching on
// and the last one off.
func TestFramesAreWatchedOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		var calls []bool
		h.onFrame = func(on bool) { calls = append(calls, on) }
		ctx, cancel := context.WithCancel(t.Context())
		all := h.subscribe(ctx, nil, time.Time{})
		first := h.subscribe(ctx, []string{KindFrame}, time.Time{})
		second := h.subscribe(ctx, []string{"port", KindFrame}, time.Time{})
		h.publish(api.Event{Kind: KindFrame})
		if len(all) != 0 || len(first) != 1 || len(second) != 1 {
			t.Errorf("delivered %d %d %d", len(all), len(first), len(second))
		}
		cancel()
		synctest.Wait()
		if !slices.Equal(calls, []bool{true, false}) {
			t.Errorf("watching was switched %v", calls)
		}
	})
}

func TestWhatTwoPortsCannotShare(t *testing.T) {
	tap := func(network string, i config.Interface) *config.Port { return &config.Port{Tap: &i, Access: network} }
	base := config.Interface{Netns: "a", Ifname: "eth0", MAC: frame.MustParseMAC("02:00:00:00:00:01"), Address: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}
	device := &config.Port{Device: &config.Device{Name: "eth1"}}
	for _, c := range []struct {
		name        string
		port, other *config.Port
		want        string
	}{
		{"nothing", tap("blue", base), tap("blue", config.Interface{Netns: "b"}), ""},
		{"mac", tap("blue", base), tap("blue", config.Interface{MAC: base.MAC}), "MAC 02:00:00:00:00:01"},
		{"address", tap("blue", base), tap("blue", config.Interface{Address: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/16")}}), "address 10.0.0.1"},
		{"address in another network", tap("blue", base), tap("red", config.Interface{Address: base.Address}), ""},
		{"interface", tap("blue", base), tap("blue", config.Interface{Netns: "a"}), "interface eth0 of namespace a"},
		{"device", device, device, "interface eth1"},
		{"adopted device", &config.Port{Veth: &config.Interface{Adopt: "eth1"}}, device, "interface eth1"},
		{"device and tap", device, tap("blue", base), ""},
	} {
		if got := common(c.port, c.other); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// TestAttachmentErrors: what is wrong with an argument is said in our own words.
func TestAttachmentErrors(t *testing.T) {
	for _, c := range []struct {
		r    api.AttachRequest
		want string
	}{
		{api.AttachRequest{Addresses: []string{"foo"}}, `address: "foo" is no IPv4 or IPv6 address`},
		{api.AttachRequest{Addresses: []string{"10.1.0.9"}}, `address: "10.1.0.9" has no prefix length; write it like 10.1.0.9/24`},
		{api.AttachRequest{Addresses: []string{"10.1.0.9/64"}}, `address: "10.1.0.9/64" has a bad prefix length; want /0 to /32`},
		{api.AttachRequest{Addresses: []string{"010.1.0.9/24"}}, `address: "010.1.0.9" has a leading zero, which some read as octal; write it without`},
		{api.AttachRequest{Gateway: "10.1.0.1/24"}, `gateway: "10.1.0.1/24" has a prefix length; write the address alone`},
		{api.AttachRequest{MAC: "foo"}, `MAC address "foo": want six hexadecimal octets like 02:00:00:00:00:01`},
		{api.AttachRequest{Via: "foo"}, `via "foo" is not known; want tap or veth`},
	} {
		_, err := attachment(c.r)
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Msg != c.want || e.Code != 2 {
			t.Errorf("%+v: got %v, want %s", c.r, err, c.want)
		}
	}
}

func TestPortNames(t *testing.T) {
	d := &Daemon{}
	for _, c := range []struct{ label, ifname, want string }{
		{"web", "eth0", "web"},
		{"netns:Blue One", "eth0", "netns-blue-one"},
		{"web", "eth1", "web-eth1"},
		{"../../etc", "eth0", "etc"},
		{"\x1b[2J", "eth0", "2j"},
		{"", "eth0", "port"},
		{strings.Repeat("x", 300), "eth0", strings.Repeat("x", 48)},
	} {
		if got := d.portName(c.label, c.ifname); got != c.want {
			t.Errorf("portName(%q, %q) = %q, want %q", c.label, c.ifname, got, c.want)
		}
	}
}

// FuzzPortName: whatever a container is called, the name that results is one
// that the configuration takes.
func FuzzPortName(f *testing.F) {
	f.Add("netns:web", "eth0")
	f.Fuzz(func(t *testing.T, label, ifname string) {
		name := (&Daemon{}).portName(label, ifname)
		if _, err := config.ParsePort(name, `{device: {name: eth0}, access: blue}`); err != nil {
			t.Errorf("portName(%q, %q) = %q: %v", label, ifname, name, err)
		}
	})
}
