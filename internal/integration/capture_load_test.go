package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
)

// stalled is a capture to a pipe that nobody reads.
type stalled struct {
	n    *node
	cmd  *exec.Cmd
	pipe *os.File
	head []byte // what was read before the reader stopped
	errs syncBuffer
}

// stall starts a capture and stops reading as soon as it watches.
func (n *node) stall() *stalled {
	n.t.Helper()
	s := &stalled{n: n, cmd: background(n.t, n.bin, "--socket", n.socket, "capture", "-w", "-")}
	pr, pw, err := os.Pipe()
	if err != nil {
		n.t.Fatal(err)
	}
	s.pipe = pr
	s.cmd.Stdout, s.cmd.Stderr = pw, &s.errs
	if err := s.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { pr.Close() })
	pw.Close()
	s.head = first(n.t, pr, 64) // it watches
	return s
}

// end interrupts the capture, which must not wait for its reader, and demands that
// it says what was lost.
func (s *stalled) end() {
	s.n.t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGINT)
	if err := ends(s.cmd); err != nil {
		s.n.t.Errorf("tapestry capture: %v", err)
	}
	var captured, lost int
	if _, err := fmt.Sscanf(s.errs.String(), "%d packets captured, %d lost\n", &captured, &lost); err != nil || captured == 0 || lost == 0 {
		s.n.t.Errorf("it says %q, %v; want some captured and some lost", s.errs.String(), err)
	}
}

// TestCaptureStartStop: a hundred captures come and go, and a stalled one stays,
// while a TCP stream of thousands of frames a second crosses the switch; every
// numbered datagram arrives, and every octet.
func TestCaptureStartStop(t *testing.T) {
	x, y, z := newEnd(t, "tap", 2, "access: blue", ""), newEnd(t, "tap", 3, "access: blue", ""), newEnd(t, "tap-plain", 4, "access: blue", "")
	n := start(t, file("vlan: 10", x, y, z))
	pid := n.workerPID()
	r, err := receive(y, y.v4)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	f := startFlow(t, x.ns, y.ns, y.v4)
	stuck := n.stall()
	quit, streams := make(chan struct{}), make(chan int)
	go func() {
		const least = 4 // 24,000 frames of 1460 octets and as many answers
		count := 0
		for more := true; more; count++ {
			if err := streamTCP(z, r.addr, 8<<20); err != nil {
				t.Errorf("stream %d: %v", count, err)
				break
			}
			select {
			case <-quit:
				more = count+1 < least
			default:
			}
		}
		streams <- count
	}()
	for i := range 100 {
		args := [][]string{
			{"capture", "--count", "3"},
			{"capture", "--count", "2", "--port", x.port, "--filter", "udp port 7000", "-w", filepath.Join(n.dir, "f.pcapng")},
			{"capture", "--count", "50", "--json", "--direction", "out", "--segment"},
		}[i%3]
		n.cli(args...)
	}
	close(quit)
	t.Logf("%d streams of 8 MiB", <-streams)
	f.finish()
	stuck.end()
	var s api.Stats
	n.json(&s, "stats")
	if s.RxFrames < 20000 {
		t.Errorf("the switch took %d frames, which is no load", s.RxFrames)
	}
	if got := n.workerPID(); got != pid {
		t.Errorf("worker %d was replaced by %d", pid, got)
	}
	conserved(t, n)
}
