package integration_test

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// TestTunnelOverflow stops a worker until its socket's buffer overflows. What the
// kernel has taken in is delivered afterwards, once; it counts the rest, and the
// peers go on as before.
func TestTunnelOverflow(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	config := f.file(false, 4789, 1, 2)
	one, two := f.up(1, config), f.up(2, config)
	f.meet(1, 2)
	heard := f.sink(2)
	at := switchtest.Station4(2)
	at.Port = sinkPort
	var c net.Conn
	f.hosts[0].underlay.Do(func() (err error) { c, err = net.Dial("udp", "192.0.2.2:4789"); return err })
	defer c.Close()

	pid := two.workerPID()
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(pid, s); err != nil {
			t.Fatal(err)
		}
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	signal(syscall.SIGSTOP)
	sent, before := 0, backlogged(t)
	two.until("the buffer overflows", func() bool {
		for range 500 {
			sent++
			text := make([]byte, 1300)
			copy(text, fmt.Sprintf("number %d", sent))
			if _, err := c.Write(vxlan(10010, switchtest.UDPFrame(switchtest.Station4(1), at, text))); err != nil {
				t.Fatal(err)
			}
		}
		return overflows(t, f.hosts[1].underlay, 4789) > 0
	})
	signal(syscall.SIGCONT)
	two.until("all is delivered that the kernel has taken in", func() bool {
		// What it dropped may be a probe too. On a busy machine the veth's queue and the
		// wires drop packets on the way there, and the container's socket some that were
		// delivered.
		wires := f.lan.Counts()
		lost := overflows(t, f.hosts[1].underlay, 4789) + overflows(t, f.hosts[1].container, sinkPort) + backlogged(t) - before +
			int(wires.Missed+wires.Full+wires.Refused)
		return len(heard.all()) >= sent-lost
	})
	for text, n := range heard.all() {
		if n != 1 {
			t.Errorf("%q is delivered %d times", text, n)
		}
	}
	if len(heard.all()) < 1000 {
		t.Errorf("%d of %d datagrams are delivered", len(heard.all()), sent)
	}
	f.meet(1, 2)
	f.meet(2, 1)
	one.sees("h2")
	two.sees("h1")
	f.exchange(1, 2)
	if now := two.workerPID(); now != pid {
		t.Errorf("worker %d has become %d", pid, now)
	}
	f.conserved()
	var stats api.Stats
	var status api.Status
	two.json(&stats, "stats")
	two.json(&status, "status")
	if want := uint64(overflows(t, f.hosts[1].underlay, 4789)); stats.Missed != want {
		t.Errorf("stats tell of %d datagrams that the kernel dropped, want %d", stats.Missed, want)
	}
	if len(status.Problems) != 1 || !strings.Contains(status.Problems[0].What, "the kernel dropped") {
		t.Errorf("problems: %+v", status.Problems)
	}
}

// overflows is how many datagrams the kernel has dropped for lack of room at the
// IPv4 sockets of a port, as /proc/net/udp tells in its last column.
func overflows(t *testing.T, ns *netnstest.NS, port int) (total int) {
	t.Helper()
	for line := range strings.Lines(ns.Run("cat", "/proc/net/udp", "/proc/net/udp6")) {
		col := strings.Fields(line)
		if len(col) < 13 || !strings.HasSuffix(col[1], fmt.Sprintf(":%04X", port)) {
			continue
		}
		n, err := strconv.Atoi(col[12])
		if err != nil {
			t.Fatalf("/proc/net/udp says %q", line)
		}
		total += n
	}
	return total
}

// backlogged is how many packets the processors' queues behind veths and others
// had no room for (/proc/net/softnet_stat, second column), on the whole machine.
func backlogged(t *testing.T) (total int) {
	t.Helper()
	b, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		n, err := strconv.ParseUint(strings.Fields(line)[1], 16, 32)
		if err != nil {
			t.Fatalf("/proc/net/softnet_stat says %q", line)
		}
		total += int(n)
	}
	return total
}
