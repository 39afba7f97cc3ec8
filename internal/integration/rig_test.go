package integration_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// patience bounds every wait for something that the system does by itself.
const patience = 20 * time.Second

// drain bounds the wait for output that a child of an ended program holds open.
const drain = 5 * time.Second

// background is a program for the test to start, which is killed when the test
// ends. One that is about to end is waited for with ends.
func background(t *testing.T, cmd ...string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), cmd[0], cmd[1:]...)
	c.WaitDelay = drain
	return c
}

// ends waits for a program that is about to end, and kills it when it doesn't.
func ends(c *exec.Cmd) error {
	timer := time.AfterFunc(patience, func() { _ = c.Process.Kill() })
	err := c.Wait()
	if !timer.Stop() {
		err = errors.Join(fmt.Errorf("it did not end within %v", patience), err)
	}
	return err
}

// binary builds the program once for all tests of the package.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tapestry-test")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "tapestry")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/tapestry-net/tapestry/cmd/tapestry")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is shipped
	build.WaitDelay = drain
	out, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// node is one running switch.
type node struct {
	t      *testing.T
	bin    string
	dir    string
	config string // path of its file
	socket string
	state  string
	ns     *netnstest.NS // that it runs in; nil = the test's own
	keeper *exec.Cmd
	ended  *exec.Cmd // the keeper of the last start that failed
	log    *syncBuffer
	exited chan error
}

// start runs a switch with the given file and waits until it forwards. What it
// logs is shown when the test fails.
func start(t *testing.T, config string) *node {
	t.Helper()
	n := prepare(t, config)
	n.up()
	return n
}

// prepare makes the folder of a switch that is not running yet.
func prepare(t *testing.T, config string) *node {
	t.Helper()
	netnstest.Require(t, "netns", "tun")
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n := &node{t: t, bin: bin, dir: dir, config: filepath.Join(dir, "tapestry.yaml"),
		socket: filepath.Join(dir, "s"), state: filepath.Join(dir, "state")}
	n.write(config)
	return n
}

// lend makes t, a part of the node's test, the one that fails for the node.
func (n *node) lend(t *testing.T) {
	was := n.t
	n.t = t
	t.Cleanup(func() { n.t = was })
}

// write replaces the switch's file.
func (n *node) write(config string) {
	n.t.Helper()
	if err := os.WriteFile(n.config, []byte(config), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// onlyJournal checks that a clean stop leaves nothing in the state directory but
// the memory of what happened to ports and peers.
func (n *node) onlyJournal() {
	n.t.Helper()
	left, err := os.ReadDir(n.state)
	if err != nil {
		n.t.Error(err)
	}
	for _, f := range left {
		if f.Name() != "journal" {
			n.t.Errorf("left in the state directory: %v", f.Name())
		}
	}
}

// up starts the switch and waits for its line `ready`.
func (n *node) up() {
	n.t.Helper()
	if err := n.tryUp(); err != nil {
		n.t.Fatalf("tapestry up: %v\n%s", err, n.log)
	}
}

func (n *node) tryUp() error {
	n.log, n.ended = &syncBuffer{}, nil
	n.keeper = exec.Command(n.bin, "up", "-c", n.config, "--socket", n.socket, "--state", n.state)
	n.keeper.Stderr, n.keeper.WaitDelay = n.log, drain
	out, err := n.keeper.StdoutPipe()
	if err != nil {
		return err
	}
	begin := n.keeper.Start
	if n.ns != nil {
		begin = func() error { return n.ns.Handle.Do(n.keeper.Start) }
	}
	if err := begin(); err != nil {
		return err
	}
	ready := make(chan error, 1)
	n.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan error) {
		line, err := bufio.NewReader(out).ReadString('\n')
		if err == nil && line != "ready\n" {
			err = fmt.Errorf("said %q instead of ready", line)
		}
		ready <- err
		_, _ = io.Copy(io.Discard, out)
		exited <- cmd.Wait()
	}(n.keeper, n.exited)
	n.t.Cleanup(n.down)
	select {
	case err := <-ready:
		if err != nil {
			err = errors.Join(err, n.end())
			n.ended, n.keeper = n.keeper, nil
		}
		return err
	case <-time.After(patience):
		n.confess()
		return errors.New("not ready in time")
	}
}

// end waits for the keeper's end. One that hangs is made to confess, and killed.
func (n *node) end() error {
	select {
	case err := <-n.exited:
		return err
	case <-time.After(patience):
	}
	n.confess()
	select {
	case <-n.exited:
	case <-time.After(drain):
		_ = n.keeper.Process.Kill()
	}
	return fmt.Errorf("not within %v", patience)
}

// confess makes worker and keeper, which hang, write to the log what each of their
// goroutines is about, and ends them.
func (n *node) confess() {
	list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", n.keeper.Process.Pid))
	for _, file := range list {
		children, _ := os.ReadFile(file)
		for _, word := range strings.Fields(string(children)) {
			if pid, err := strconv.Atoi(word); err == nil {
				_ = syscall.Kill(pid, syscall.SIGQUIT)
			}
		}
	}
	eventually(func() bool { return strings.Contains(n.log.String(), "goroutine ") })
	_ = n.keeper.Process.Signal(syscall.SIGQUIT)
}

// down stops the switch with SIGTERM, if it runs, and demands a clean end.
func (n *node) down() {
	n.t.Helper()
	if n.keeper == nil {
		return
	}
	_ = n.keeper.Process.Signal(syscall.SIGTERM)
	if err := n.end(); err != nil {
		n.t.Errorf("tapestry up, told to end: %v\n%s", err, n.log)
	}
	n.keeper = nil
	if n.t.Failed() {
		n.t.Logf("log of the switch:\n%s", n.log)
	}
}

// kill ends keeper and worker with SIGKILL, as a power cut would.
func (n *node) kill() {
	n.t.Helper()
	worker := n.workerPID()
	_ = n.keeper.Process.Kill()
	_ = syscall.Kill(worker, syscall.SIGKILL)
	_ = n.end() // by a signal
	n.keeper = nil
	n.until("the worker is gone", func() bool { return syscall.Kill(worker, 0) != nil })
}

// workerPID is the process that forwards.
func (n *node) workerPID() int {
	n.t.Helper()
	var s struct{ PID int }
	n.json(&s, "stats")
	if s.PID == 0 {
		n.t.Fatal("stats names no pid")
	}
	return s.PID
}

// cli runs a command that must succeed and returns its standard output.
func (n *node) cli(args ...string) string {
	n.t.Helper()
	out, errText, code := n.try(args...)
	if code != 0 {
		n.t.Fatalf("tapestry %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errText)
	}
	return out
}

// try runs a command and returns both outputs and the exit code.
func (n *node) try(args ...string) (stdout, stderr string, code int) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.bin, append([]string{"--socket", n.socket}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, drain
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatalf("tapestry %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// json runs a command with --json and decodes its document.
func (n *node) json(into any, args ...string) {
	n.t.Helper()
	out := n.cli(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		n.t.Fatalf("tapestry %s --json: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// until waits for something that the system does by itself.
func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline.C:
			n.t.Fatalf("waited %v in vain: %s\n%s", patience, what, n.log)
		}
	}
}

// portState is the state and reason of one port.
func (n *node) portState(name string) (state, reason string) {
	n.t.Helper()
	var ports []struct{ Name, State, Reason string }
	n.json(&ports, "port", "ls")
	for _, p := range ports {
		if p.Name == name {
			return p.State, p.Reason
		}
	}
	return "missing", ""
}

// ping demands that every one of count packets comes back.
func ping(t *testing.T, from *netnstest.NS, to string, count int, more ...string) {
	t.Helper()
	netnstest.Require(t, "ping")
	args := append([]string{"ping", "-n", "-q", "-c", fmt.Sprint(count), "-i", "0.05", "-W", "2"}, more...)
	out, err := from.Try(append(args, to)...)
	if err != nil || !strings.Contains(out, " 0% packet loss") {
		t.Fatalf("ping %s: %v\n%s", to, err, out)
	}
}

// syncBuffer collects what a process writes while the test reads it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// String returns what was written so far.
func (s *syncBuffer) String() string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
