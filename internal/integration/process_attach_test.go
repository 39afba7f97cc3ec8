package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// container is a process in a namespace of its own, as a container engine
// starts one.
func container(t *testing.T) (*netnstest.NS, *exec.Cmd) {
	t.Helper()
	ns := netnstest.New(t)
	c := exec.Command("sleep", "1000")
	ns.Start(c)
	return ns, c
}

// TestAttach: every way to name a target, and what a port is called then.
func TestAttach(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	byName, _ := container(t)
	byPID, p1 := container(t)
	byPath, p2 := container(t)
	byVeth, _ := container(t)
	pid1, pid2 := strconv.Itoa(p1.Process.Pid), strconv.Itoa(p2.Process.Pid)
	for i, x := range []struct {
		ns           *netnstest.NS
		target, port string
		more         []string
	}{
		{byName, "netns:" + byName.Name(), byName.Name(), nil},
		{byPID, "pid:" + pid1, "pid" + pid1, nil},
		{byPath, "/proc/" + pid2 + "/ns/net", "pid" + pid2, nil},
		{byVeth, "netns:" + byVeth.Name(), "web", []string{"--via", "veth", "--port", "web", "--ifname", "lan0", "--mac", "02:00:00:00:00:99"}},
		{byName, "netns:" + byName.Name(), byName.Name() + "-eth1", []string{"--ifname", "eth1"}},
	} {
		addr := fmt.Sprintf("10.1.0.%d", 11+i)
		n.cli(append([]string{"attach", x.target, "--network", "blue", "--address", addr + "/24"}, x.more...)...)
		if state, reason := n.portState(x.port); state != "up" {
			t.Errorf("%s: port %s is %s %s", x.target, x.port, state, reason)
		}
		ping(t, a, addr, 1)
		if _, errText, code := n.try(append([]string{"attach", x.target, "--network", "blue"}, x.more...)...); code != 6 || !strings.Contains(errText, x.port) {
			t.Errorf("%s again: exit %d: %s", x.target, code, errText)
		}
	}
	n.kill()
	n.up()
	for _, addr := range []string{"10.1.0.11", "10.1.0.12", "10.1.0.13", "10.1.0.14", "10.1.0.15"} {
		ping(t, a, addr, 1)
	}
	for _, d := range [][]string{
		{"netns:" + byName.Name()}, {"netns:" + byName.Name(), "--ifname", "eth1"}, {"pid:" + pid1},
		{"/proc/" + pid2 + "/ns/net"}, {"netns:" + byVeth.Name(), "--ifname", "lan0"},
	} {
		n.cli(append([]string{"detach"}, d...)...)
		if _, errText, code := n.try(append([]string{"detach"}, d...)...); code != 5 {
			t.Errorf("detach %v twice: exit %d: %s", d, code, errText)
		}
	}
	for _, ns := range []*netnstest.NS{byName, byPID, byPath, byVeth} {
		if out := ns.Run("ip", "-o", "link"); strings.Count(out, "\n") != 1 {
			t.Errorf("left in a container:\n%s", out)
		}
	}
}

// TestAttachConflict: what another port has is refused, and the owner named.
func TestAttachConflict(t *testing.T) {
	t.Parallel()
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	other := netnstest.New(t)
	n.cli("attach", "netns:"+other.Name(), "--network", "blue", "--port", "c1-other")
	var given struct{ MAC string }
	n.json(&given, "port", "show", "c1-other")
	for what, args := range map[string][]string{
		"given MAC": {"--mac", given.MAC},
		"address":   {"--address", "10.1.0.2/24"},
		"MAC":       {"--mac", "02:00:00:00:00:01"},
		"port name": {"--port", "c1"},
	} {
		_, errText, code := n.try(append([]string{"attach", "netns:" + c.Name(), "--network", "blue"}, args...)...)
		if code != 6 || !strings.Contains(errText, "c1") {
			t.Errorf("%s: exit %d: %s", what, code, errText)
		}
	}
	if out := c.Run("ip", "-o", "link"); strings.Count(out, "\n") != 1 {
		t.Errorf("left in a container:\n%s", out)
	}
}

// TestDetachDead: a port of a container that has died can be taken away.
func TestDetachDead(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	ns, p := container(t)
	pid := "pid:" + strconv.Itoa(p.Process.Pid)
	n.cli("attach", pid, "--network", "blue", "--port", "dead")
	_ = p.Process.Kill()
	_ = ends(p)
	ns.Delete()
	n.becomes("dead", "down", "")
	n.cli("detach", pid)
	if state, _ := n.portState("dead"); state != "missing" {
		t.Errorf("the port is still there, %s", state)
	}
}

// TestExitCodes: 0 to 6, each for real.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	c.Run("ip", "link", "add", "eth0", "type", "bridge")
	n := start(t, pair(a, b))
	bad := filepath.Join(n.dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("networks: {blue: {vlan: 4095}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		code int
		args []string
	}{
		{0, []string{"status"}},
		{0, []string{"check", "-c", n.config}},
		{2, []string{"frobnicate"}},
		{2, []string{"status", "--frobnicate"}},
		{2, []string{"check", "-c", bad}},
		{2, []string{"apply", "-c", bad}},
		{2, []string{"attach", "netns:" + c.Name(), "--network", "blue", "--address", "10.1.0.300/24"}},
		{2, []string{"network", "add", "a", "--vlan", "99999"}},
		{2, []string{"port", "add", "a", "--tap", "a", "--access", "blue", "--address", "10.1.0.1/33"}},
		{3, []string{"status", "--socket", filepath.Join(n.dir, "nobody")}},
		{5, []string{"port", "show", "absent"}},
		{5, []string{"attach", "netns:absent", "--network", "blue"}},
		{5, []string{"attach", "netns:" + c.Name(), "--network", "absent"}},
		{5, []string{"attach", "pid:2147483647", "--network", "blue"}},
		{5, []string{"apply", "-c", filepath.Join(n.dir, "absent.yaml")}},
		{5, []string{"explain", "--in", "absent", "broadcast"}},
		{5, []string{"fdb", "ls", "--network", "absent"}},
		{6, []string{"network", "rm", "blue"}},
		{0, []string{"fdb", "add", "blue", "02:00:00:00:00:99", "c1"}},
		{6, []string{"port", "rm", "c1"}},
		{6, []string{"network", "add", "a", "--vlan", "10"}},
		{6, []string{"port", "set", "c2", "tap.address=[10.1.0.2/24]"}},
		{6, []string{"attach", "netns:" + c.Name(), "--network", "blue"}},
	} {
		out, errText, code := n.try(x.args...)
		if code != x.code {
			t.Errorf("%v: exit %d, want %d: %s%s", x.args, code, x.code, out, errText)
		}
		if strings.HasPrefix(errText, "tapestry: 1:") {
			t.Errorf("%v: a column of what nobody wrote: %s", x.args, errText)
		}
		if code != 0 && (!strings.HasPrefix(errText, "tapestry: ") || out != "" && x.args[0] != "check") {
			t.Errorf("%v: stdout %q, stderr %q", x.args, out, errText)
		}
	}
}

// TestUnreachable: a socket that nobody answers on doesn't hold a command up
// for ever.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	n := prepare(t, "networks: {blue: {}}\n")
	_, errText, code := n.try("status")
	if code != 3 || !strings.Contains(errText, "hint: start it with `tapestry up") {
		t.Errorf("no socket: exit %d: %s", code, errText)
	}
	l, err := net.Listen("unix", n.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	begin := time.Now()
	_, errText, code = n.try("status") // nobody accepts
	if code != 3 || !strings.Contains(errText, n.socket) {
		t.Errorf("silent socket: exit %d after %v: %s", code, time.Since(begin), errText)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	if _, errText, code = n.try("status"); code != 3 {
		t.Errorf("socket that hangs up: exit %d: %s", code, errText)
	}
}

// call makes one request to the API of the switch.
func (n *node) call(method, path string, body any) (status int, text string) {
	n.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			n.t.Fatal(err)
		}
		r = bytes.NewReader(enc)
	}
	c := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", n.socket)
		},
	}}
	req, err := http.NewRequest(method, "http://tapestry"+path, r)
	if err != nil {
		n.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(b)
}

// costs are the worker's goroutines and descriptors, and the keeper's.
func (n *node) costs() (goroutines, worker, keeper int) {
	n.t.Helper()
	_, text := n.call(http.MethodGet, "/metrics", nil)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		v, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "go_goroutines":
			goroutines = int(v)
		case "process_open_fds":
			worker = int(v)
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.keeper.Process.Pid))
	if err != nil || goroutines == 0 || worker == 0 {
		n.t.Fatalf("%d goroutines, %d descriptors, keeper: %v", goroutines, worker, err)
	}
	return goroutines, worker, len(fds)
}

// TestNothingPilesUp: a hundred containers that come and go, by TAP and by
// veth, leave nothing behind in either process or in the kernel.
func TestNothingPilesUp(t *testing.T) {
	t.Parallel()
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b)+`  gw: {host: {ifname: piles, address: [10.1.0.1/24]}, access: blue}
`)
	mark := alias(t, "piles")
	cycle := func(via string) {
		t.Helper()
		req := map[string]any{"netns": c.Name(), "network": "blue", "port": "x", "ifname": "eth0", "via": via, "addresses": []string{"10.1.0.9/24"}}
		if status, text := n.call(http.MethodPost, "/v1/attach", req); status != http.StatusOK {
			t.Fatalf("attach: %d %s", status, text)
		}
		if status, text := n.call(http.MethodPost, "/v1/detach", map[string]any{"netns": c.Name(), "ifname": "eth0"}); status != http.StatusOK {
			t.Fatalf("detach: %d %s", status, text)
		}
	}
	for range 5 { // what is made once only
		cycle("tap")
		cycle("veth")
	}
	g0, w0, k0 := n.costs()
	for range 100 {
		cycle("tap")
		cycle("veth")
	}
	const slack = 6 // of connections and collectors at the moment of looking
	var g, w, k int
	if !eventually(func() bool { g, w, k = n.costs(); return g <= g0+slack && w <= w0+slack && k <= k0+slack }) {
		t.Errorf("goroutines %d → %d, descriptors of the worker %d → %d, of the keeper %d → %d", g0, g, w0, w, k0, k)
	}
	t.Logf("goroutines %d → %d, descriptors of the worker %d → %d, of the keeper %d → %d", g0, g, w0, w, k0, k)
	if out := here(t, "ip", "-o", "link"); strings.Count(out, mark) != 1 {
		t.Errorf("left behind:\n%s", out)
	}
	if out := c.Run("ip", "-o", "link"); strings.Count(out, "\n") != 1 {
		t.Errorf("left in a container:\n%s", out)
	}
}
