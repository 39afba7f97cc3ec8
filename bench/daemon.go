package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tapestry-net/tapestry/bench/machine"
	"github.com/tapestry-net/tapestry/internal/api"
)

const (
	// readyTime bounds the start of a switch, and readyEach what one more port
	// adds: the kernel takes some 20 ms to make a TAP and move it.
	readyTime = 20 * time.Second
	readyEach = 200 * time.Millisecond
	// stopTime is how long a switch may take to remove what it made.
	stopTime = time.Minute
)

// daemon is a running `tapestry up`.
type daemon struct {
	cmd     *exec.Cmd
	errs    bytes.Buffer  // its log
	pids    []int         // keeper and worker
	startup time.Duration // until it forwarded
	beside  *daemon       // another that stops with it; nil = none
}

// startDaemon runs a switch with the configuration and waits until all its ports
// are up. Its socket and state are in dir. Ports is how many the configuration
// has. Through is a program that becomes it, in another namespace; none = the
// caller's.
func startDaemon(ctx context.Context, program, dir, config string, ports int, through ...string) (*daemon, error) {
	file, socket := filepath.Join(dir, "bench.yaml"), filepath.Join(dir, "sock")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start switch: %w", err)
	}
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, fmt.Errorf("start switch: %w", err)
	}
	line := append(through, program, "up", "-c", file, "--socket", socket, "--state", filepath.Join(dir, "state"))
	d := &daemon{cmd: exec.CommandContext(ctx, line[0], line[1:]...)}
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	d.cmd.Dir = dir
	d.cmd.Stderr = &d.errs
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	d.cmd.WaitDelay = stopTime
	// A group of its own keeps ^C from reaching it before the measurement ends.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start switch: %w", err)
	}
	begin := time.Now()
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start switch: %w", err)
	}
	late := time.AfterFunc(readyTime+time.Duration(ports)*readyEach, func() { _ = d.cmd.Process.Signal(syscall.SIGTERM) })
	said, err := bufio.NewReader(out).ReadString('\n')
	late.Stop()
	d.startup = time.Since(begin)
	if err != nil || strings.TrimSpace(said) != "ready" {
		d.stop()
		return nil, fmt.Errorf("start switch: it said %q instead of ready: %s", strings.TrimSpace(said), d.lastWords())
	}
	if err := d.check(ctx, socket); err != nil {
		d.stop()
		return nil, fmt.Errorf("start switch: %w", err)
	}
	return d, nil
}

// check makes sure that every port is up, and finds the processes.
func (d *daemon) check(ctx context.Context, socket string) error {
	c := api.Dial(socket)
	defer c.Close()
	ports, err := c.Ports(ctx)
	if err != nil {
		return err
	}
	for _, p := range ports {
		if p.State != "up" {
			return fmt.Errorf("port %s is %s: %s", p.Name, p.State, p.Reason)
		}
	}
	if d.pids, err = machine.Family(d.cmd.Process.Pid); err != nil {
		return err
	}
	if len(d.pids) < 2 {
		return fmt.Errorf("process %d has no worker", d.pids[0])
	}
	return nil
}

// stop ends the switch and waits until it has.
func (d *daemon) stop() {
	if d.beside != nil {
		d.beside.stop()
	}
	if d.cmd.ProcessState != nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(stopTime, func() { _ = d.cmd.Process.Kill() })
	defer late.Stop()
	_ = d.cmd.Wait()
}

// lastWords is the end of the log of a switch that has ended.
func (d *daemon) lastWords() string {
	lines := strings.Split(strings.TrimSpace(d.errs.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}
