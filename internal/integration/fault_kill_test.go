package integration_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// pair is a configuration of two containers in one network.
func pair(a, b *netnstest.NS) string {
	return `
networks: {blue: {vlan: 10}}
ports:
  c1: {tap: {netns: ` + a.Name() + `, address: [10.1.0.2/24], mac: "02:00:00:00:00:01"}, access: blue}
  c2: {tap: {netns: ` + b.Name() + `, address: [10.1.0.3/24], mac: "02:00:00:00:00:02"}, access: blue}
`
}

// trio is pair and a third container.
func trio(a, b, c *netnstest.NS) string {
	return pair(a, b) + `  c3: {tap: {netns: ` + c.Name() + `, address: [10.1.0.4/24], mac: "02:00:00:00:00:03"}, access: blue}
`
}

// TestKillWorker: when the worker is killed nobody notices. What it had read
// and not yet sent is lost with it, so it is killed between two frames; those
// that come until the next worker forwards wait in the TAP.
func TestKillWorker(t *testing.T) {
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := start(t, trio(a, b, c))
	ping(t, c, "10.1.0.2", 1)
	f := startFlow(t, a, b, "10.1.0.3")
	heard := eavesdrop(t, c, net.HardwareAddr{2, 0, 0, 0, 0, 2})
	events := []func() []string{linkEvents(t, a), linkEvents(t, b), linkEvents(t, c)}
	const kills = 10
	for i := range kills {
		f.pass(550) // by then the worker no longer counts as one that keeps crashing
		pid := n.workerPID()
		f.between(func() { die(t, pid) })
		f.pass(100)
		if now := n.workerPID(); now == pid {
			t.Fatalf("kill %d: worker %d is still there", i, pid)
		}
	}
	longest := f.finish()
	t.Logf("%d datagrams, %d kills: the longest wait was %v (promised: 100ms)", f.sent.Load(), kills, longest)
	if h := heard(); h != 0 {
		t.Errorf("%d frames to a known station were flooded: the FDB was not kept", h)
	}
	for i, seen := range events {
		if e := seen(); len(e) != 0 {
			t.Errorf("container %d saw its interface change: %v", i+1, e)
		}
	}
	var s struct{ Generation int }
	if n.json(&s, "stats"); s.Generation != kills+1 {
		t.Errorf("generation is %d, want %d", s.Generation, kills+1)
	}
}

// TestKillBoth: what was acknowledged survives the death of both processes, and
// containers keep their interfaces.
func TestKillBoth(t *testing.T) {
	a, b, c, d := netnstest.New(t), netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b)+`  c3: {veth: {netns: `+c.Name()+`, address: [10.1.0.4/24]}, access: blue}
  gw: {host: {ifname: tkb0, address: [10.1.0.1/24]}, access: blue}
`)
	n.cli("network", "add", "red", "--vlan", "20")
	n.cli("attach", "netns:"+d.Name(), "--network", "blue", "--address", "10.1.0.5/24")
	var before, after []struct {
		Name, MAC, Network, Origin, State, Reason string
		ID                                        int
		Addresses                                 []string
	}
	n.json(&before, "port", "ls")
	index := func() string {
		var s []string
		for _, ns := range []*netnstest.NS{a, b, c, d} {
			s = append(s, strconv.Itoa(ifindex(t, ns, "eth0"))+" "+strings.TrimSpace(ns.Run("ip", "-o", "-4", "addr", "show", "eth0")))
		}
		host, err := net.InterfaceByName("tkb0")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(append(s, strconv.Itoa(host.Index)), "\n")
	}
	was := index()
	n.kill()
	leftover(t, "tkbghost")
	begin := time.Now()
	n.up()
	t.Logf("up again in %v (promised: 1s)", time.Since(begin))
	if now := index(); now != was {
		t.Errorf("interfaces were\n%s\nand are\n%s", was, now)
	}
	n.json(&after, "port", "ls")
	if len(before) != 5 || len(after) != 5 {
		t.Fatalf("ports were %+v, are %+v", before, after)
	}
	for i := range after {
		x, y := before[i], after[i]
		if x.Name != y.Name || x.ID != y.ID || x.MAC != y.MAC || x.Network != y.Network || x.Origin != y.Origin || y.State != "up" ||
			strings.Join(x.Addresses, " ") != strings.Join(y.Addresses, " ") {
			t.Errorf("port was %+v, is %+v", x, y)
		}
	}
	if out := n.cli("network", "ls"); !strings.Contains(out, "red") {
		t.Errorf("the added network has gone:\n%s", out)
	}
	if _, err := net.InterfaceByName("tkbghost"); err == nil {
		t.Error("a marked interface that no port needs is still there")
	}
	for _, to := range []string{"10.1.0.3", "10.1.0.4", "10.1.0.1", "10.1.0.5"} {
		ping(t, a, to, 2)
	}
	n.down()
	for _, ns := range []*netnstest.NS{a, b, c, d} {
		if out := ns.Run("ip", "-o", "link"); strings.Count(out, "\n") != 1 {
			t.Errorf("left in a container:\n%s", out)
		}
	}
	n.onlyJournal()
}

// leftover makes an interface that bears the mark of the switch, as one does
// that was made just before a crash.
func leftover(t *testing.T, name string) {
	t.Helper()
	netnstest.Require(t, "ip")
	here(t, "ip", "link", "add", name, "type", "bridge")
	here(t, "ip", "link", "set", name, "alias", alias(t, "tkb0")+"ghost")
}

// TestForeignInterface: an interface that somebody else made is never taken.
func TestForeignInterface(t *testing.T) {
	a, b := netnstest.New(t), netnstest.New(t)
	a.Run("ip", "link", "add", "eth0", "type", "bridge")
	n := start(t, pair(a, b))
	state, reason := n.portState("c1")
	if state != "down" || !strings.Contains(reason, "eth0 is a bridge that tapestry did not make") {
		t.Errorf("port c1 is %s: %s", state, reason)
	}
	if state, reason := n.portState("c2"); state != "up" {
		t.Errorf("port c2 is %s: %s", state, reason)
	}
	b.Run("ip", "link", "add", "eth7", "type", "bridge")
	_, errText, code := n.try("attach", "netns:"+b.Name(), "--network", "blue", "--ifname", "eth7", "--port", "c7")
	if code != 6 || !strings.Contains(errText, "eth7 is a bridge that tapestry did not make") {
		t.Errorf("exit %d: %s", code, errText)
	}
	if state, _ := n.portState("c7"); state != "missing" {
		t.Errorf("the refused port is there, %s", state)
	}
	a.Run("ip", "link", "del", "eth0")
	n.until("port c1 heals", func() bool { state, _ := n.portState("c1"); return state == "up" })
	ping(t, a, "10.1.0.3", 2)
	n.down()
	if out := b.Run("ip", "-o", "link"); !strings.Contains(out, "eth7") {
		t.Errorf("the foreign interface has gone:\n%s", out)
	}
}

// TestUpgrade: no frame is lost, in either direction of success.
func TestUpgrade(t *testing.T) {
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := prepare(t, trio(a, b, c))
	shared, own := n.bin, filepath.Join(n.dir, "tapestry")
	copyFile(t, shared, own)
	n.bin = own // what an upgrade starts
	n.up()
	n.bin = shared
	ping(t, c, "10.1.0.2", 1)
	f := startFlow(t, a, b, "10.1.0.3")
	heard := eavesdrop(t, c, net.HardwareAddr{2, 0, 0, 0, 0, 2})
	const times = 8
	for range times {
		before := n.workerPID()
		n.cli("upgrade")
		f.pass(100)
		if now := n.workerPID(); now == before {
			t.Fatalf("worker %d is still there", now)
		}
	}
	before := n.workerPID()
	for _, broken := range []string{"#!/bin/sh\nexit 1\n", "no program at all"} {
		if err := os.WriteFile(own+".new", []byte(broken), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(own+".new", own); err != nil {
			t.Fatal(err)
		}
		_, errText, code := n.try("upgrade")
		if code != 1 || !strings.Contains(errText, "goes on") {
			t.Errorf("upgrade to %q: exit %d: %s", broken, code, errText)
		}
		f.pass(100)
	}
	if now := n.workerPID(); now != before {
		t.Errorf("worker %d was replaced by %d", before, now)
	}
	if h := heard(); h != 0 {
		t.Errorf("%d frames to a known station were flooded: the FDB was not kept", h)
	}
	t.Logf("%d datagrams, %d upgrades: the longest wait was %v", f.sent.Load(), times, f.finish())
}
