package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// under makes the switch start by a shell that has done something first.
// Commands are still run directly.
func (n *node) under(shell string) (up func() error) {
	n.t.Helper()
	direct, script := n.bin, filepath.Join(n.dir, "start.sh")
	text := fmt.Sprintf("#!/bin/sh\nset -e\n%s %s \"$@\"\n", shell, direct)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		n.t.Fatal(err)
	}
	return func() error {
		n.bin = script
		defer func() { n.bin = direct }()
		return n.tryUp()
	}
}

// failed is the exit code of an `up` that has ended by itself, and what it said.
func (n *node) failed(err error) (code int, stderr string) {
	n.t.Helper()
	if err == nil {
		n.t.Fatal("tapestry up came up")
	}
	if n.ended == nil || n.ended.ProcessState == nil {
		n.t.Fatalf("tapestry up has neither come up nor ended: %v\n%s", err, n.log)
	}
	return n.ended.ProcessState.ExitCode(), n.log.String()
}

// TestWorkerConfined looks at the running worker from outside.
func TestWorkerConfined(t *testing.T) {
	for _, cgo := range []string{"0", "1"} {
		t.Run("CGO_ENABLED="+cgo, func(t *testing.T) {
			a, b := netnstest.New(t), netnstest.New(t)
			n := prepare(t, pair(a, b))
			if cgo == "1" {
				n.bin = buildCgo(t, n.dir)
			}
			n.up()
			f := startFlow(t, a, b, "10.1.0.3")
			confined(t, n.workerPID())
			before := readBytes(t, n.keeper.Process.Pid)
			f.pass(250)
			// The worker has read 500 frames of 58 octets.
			if read := readBytes(t, n.keeper.Process.Pid) - before; read > 5000 {
				t.Errorf("the keeper has read %d octets while frames passed", read)
			}
			f.finish()
		})
	}
}

// buildCgo builds the program as a plain go build does where there is a C
// compiler.
func buildCgo(t *testing.T, dir string) string {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("needs a C compiler: apt-get install gcc libc6-dev")
	}
	path := filepath.Join(dir, "tapestry-cgo")
	build := background(t, "go", "build", "-o", path, "github.com/tapestry-net/tapestry/cmd/tapestry")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	defer time.AfterFunc(10*time.Minute, func() { _ = build.Process.Kill() }).Stop()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

func confined(t *testing.T, pid int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) < 3 {
		t.Fatalf("worker %d has threads %v, %v", pid, threads, err)
	}
	want := map[string]string{
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
		"CapBnd": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1",
	}
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue // a thread that has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			if w, ok := want[key]; ok {
				seen++
				if value != w {
					t.Errorf("%s: %s is %s, want %s", file, key, value, w)
				}
			}
		}
		if seen != len(want) {
			t.Errorf("%s tells %d of %d", file, seen, len(want))
		}
	}
}

var rchar = regexp.MustCompile(`rchar: (\d+)`)

// readBytes is how much a process has read by read(2) and its like.
func readBytes(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := rchar.FindSubmatch(text)
	if m == nil {
		t.Fatalf("no rchar in\n%s", text)
	}
	v, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestStopRestores: SIGTERM removes what the switch made, and leaves foreign
// interfaces as they were.
func TestStopRestores(t *testing.T) {
	t.Parallel()
	a, b, c, d := netnstest.New(t), netnstest.New(t), netnstest.New(t), netnstest.New(t)
	for host, ns := range map[string]*netnstest.NS{"stopdev": c, "stopadopt": d} {
		here(t, "ip", "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", ns.Name())
		here(t, "ip", "link", "set", host, "up")
		ns.Run("ip", "link", "set", "eth0", "up")
	}
	look := func() string {
		var s strings.Builder
		for _, dev := range []string{"stopdev", "stopadopt"} {
			s.WriteString(here(t, "ip", "-d", "link", "show", dev))
			s.WriteString(here(t, "tc", "qdisc", "show", "dev", dev))
			s.WriteString(here(t, "tc", "filter", "show", "dev", dev, "ingress"))
		}
		return s.String()
	}
	n := prepare(t, pair(a, b)+`  c3: {device: {name: stopdev}, access: blue}
  c4: {veth: {adopt: stopadopt}, access: blue}
  c5: {veth: {netns: `+a.Name()+`, ifname: eth5}, access: blue}
  gw: {host: {ifname: stopgw, address: [10.1.0.1/24]}, access: blue}
`)
	n.until("the veths have carrier", func() bool { return strings.Count(look(), "LOWER_UP") == 2 })
	before := look()
	n.up()
	if look() == before {
		t.Error("the running switch has changed nothing")
	}
	mark := alias(t, "stopgw")
	n.down()
	if after := look(); after != before {
		t.Errorf("foreign interfaces were\n%s\nand are\n%s", before, after)
	}
	if out := here(t, "ip", "-o", "link"); strings.Contains(out, mark) {
		t.Errorf("left behind:\n%s", out)
	}
	for _, ns := range []*netnstest.NS{a, b} {
		if out := ns.Run("ip", "-o", "link"); strings.Count(out, "\n") != 1 {
			t.Errorf("left in a container:\n%s", out)
		}
	}
	for _, path := range []string{n.socket, n.socket + ".lock"} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	n.onlyJournal()
	here(t, "ip", "link", "del", "stopdev")
	here(t, "ip", "link", "del", "stopadopt")
}

// alias is the mark of the switch that an interface bears, without its port.
func alias(t *testing.T, dev string) string {
	t.Helper()
	out := here(t, "ip", "-o", "link", "show", dev)
	_, mark, ok := strings.Cut(out, "alias tapestry:")
	if !ok {
		t.Fatalf("%s bears no mark: %s", dev, out)
	}
	instance, _, _ := strings.Cut(mark, ":")
	return "tapestry:" + instance + ":"
}

// TestTwoSwitches: a second switch can't have the first one's place.
func TestTwoSwitches(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	first := start(t, pair(a, b))
	f := startFlow(t, a, b, "10.1.0.3")
	pid := strconv.Itoa(first.keeper.Process.Pid)
	for _, shared := range []string{"socket", "state"} {
		second := prepare(t, "networks: {blue: {}}\n")
		if shared == "socket" {
			second.socket = first.socket
		} else {
			second.state = first.state
		}
		code, text := second.failed(second.tryUp())
		if code != 6 || !strings.Contains(text, "pid "+pid) || !strings.Contains(text, "hint: ") {
			t.Errorf("same %s: exit %d, want 6 and pid %s: %s", shared, code, pid, text)
		}
	}
	f.pass(10)
	f.finish()
	first.cli("status")
}

// TestNoTUN: without /dev/net/tun the port says how to get it.
func TestNoTUN(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	n := prepare(t, pair(a, b))
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("needs unshare: apt-get install util-linux")
	}
	up := n.under(`exec unshare -m --propagation private sh -c 'mount -t tmpfs none /dev/net && exec "$@"' sh`)
	if err := up(); err != nil {
		t.Fatalf("%v\n%s", err, n.log)
	}
	state, reason := n.portState("c1")
	if state != "down" || !strings.Contains(reason, "/dev/net/tun") || !strings.Contains(reason, "modprobe tun") {
		t.Errorf("port is %s: %s", state, reason)
	}
	if out := n.cli("status"); !strings.Contains(out, "/dev/net/tun") {
		t.Errorf("status doesn't say why:\n%s", out)
	}
}

// TestNotPermitted: an ordinary user learns which capability is missing.
func TestNotPermitted(t *testing.T) {
	t.Parallel()
	netnstest.Require(t, "root")
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("needs setpriv: apt-get install util-linux")
	}
	a, b := netnstest.New(t), netnstest.New(t)
	n := prepare(t, pair(a, b))
	open(t, n.dir)
	open(t, filepath.Dir(n.bin))
	const nobody = "exec setpriv --reuid=65534 --regid=65534 --clear-groups"
	if err := os.Chmod(n.config, 0o644); err != nil {
		t.Fatal(err)
	}
	up := n.under(nobody)

	code, text := n.failed(up())
	if code != 4 || !strings.Contains(text, "permission denied") {
		t.Errorf("a folder that may not be written: exit %d: %s", code, text)
	}
	if err := os.Chown(n.dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := up(); err != nil {
		t.Fatalf("%v\n%s", err, n.log)
	}
	state, reason := n.portState("c1")
	if state != "down" || !strings.Contains(reason, "CAP_") {
		t.Errorf("port is %s: %s", state, reason)
	}
	if out := n.cli("status"); !strings.Contains(strings.ToLower(out), "cap_net_admin") {
		t.Errorf("status doesn't say what is missing:\n%s", out)
	}
	n.down()

	// Somebody who may not speak to a switch of root.
	root := start(t, pair(a, b))
	open(t, root.dir)
	out, err := netnstest.Command(t, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", root.bin, "--socket", root.socket, "status").CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 4 || !strings.Contains(string(out), "hint: ") {
		t.Errorf("status as nobody: %v: %s", err, out)
	}
}

// open lets everybody look into a folder and those above it.
func open(t *testing.T, dir string) {
	t.Helper()
	for ; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
