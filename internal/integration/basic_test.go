package integration_test

import (
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TestThreeContainersPing is the first thing that a user does.
func TestThreeContainersPing(t *testing.T) {
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := start(t, `
networks: {blue: {vlan: 10}}
ports:
  c1: {tap: {netns: `+a.Name()+`, address: [10.1.0.2/24, "fd00::2/64"], mac: "02:00:00:00:00:01"}, access: blue}
  c2: {tap: {netns: `+b.Name()+`, address: [10.1.0.3/24, "fd00::3/64"], mac: "02:00:00:00:00:02"}, access: blue}
  c3: {tap: {netns: `+c.Name()+`, address: [10.1.0.4/24, "fd00::4/64"], mac: "02:00:00:00:00:03"}, access: blue}
`)
	ping(t, a, "10.1.0.3", 5)
	ping(t, b, "10.1.0.4", 5)
	ping(t, c, "fd00::2", 5)
	var entries []struct{ MAC, Port, Network, Kind string }
	n.json(&entries, "fdb", "ls")
	want := map[string]string{"02:00:00:00:00:01": "c1", "02:00:00:00:00:02": "c2", "02:00:00:00:00:03": "c3"}
	for _, e := range entries {
		if want[e.MAC] != e.Port || e.Network != "blue" || e.Kind != "dynamic" {
			t.Errorf("entry %+v", e)
		}
		delete(want, e.MAC)
	}
	if len(want) != 0 {
		t.Errorf("not learned: %v", want)
	}
	if out := n.cli("fdb", "why", "02:00:00:00:00:02"); !strings.Contains(out, "c2") {
		t.Errorf("fdb why: %s", out)
	}
}

// TestStopRemovesEverything: SIGTERM leaves no interface, rule, socket or file.
func TestStopRemovesEverything(t *testing.T) {
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, `
networks: {blue: {vlan: 10}}
ports:
  c1: {tap: {netns: `+a.Name()+`, address: [10.1.0.2/24]}, access: blue}
  c2: {veth: {netns: `+b.Name()+`, address: [10.1.0.3/24]}, access: blue}
  gw: {host: {ifname: tap-blue, address: [10.1.0.1/24]}, access: blue}
`)
	ping(t, a, "10.1.0.3", 2)
	ping(t, a, "10.1.0.1", 2)
	n.down()
	for _, ns := range []*netnstest.NS{a, b} {
		if out := ns.Run("ip", "-o", "link"); strings.Count(out, "\n") != 1 {
			t.Errorf("left in a container:\n%s", out)
		}
	}
	if out, _, _ := n.try("status"); out != "" {
		t.Errorf("somebody answers: %s", out)
	}
}
