package integration_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// harmless demands that a text can be printed to a terminal as it is.
func harmless(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%s: %q in %q", what, r, text)
			return
		}
	}
	if len(text) > 4096 {
		t.Errorf("%s: an error of %d octets", what, len(text))
	}
}

// TestBadFiles: every value that the contract names is refused by check and by
// apply, with the field and the value, and nothing is touched.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	before := saved(t, n)
	port := func(more string) string { return "networks: {blue: {}}\nports: {p: {" + more + ", access: blue}}\n" }
	tap := func(more string) string { return port("tap: {netns: x, " + more + "}") }
	for _, bad := range []struct{ what, file, field, value string }{
		{"leading zero", tap("address: [010.0.0.1/24]"), "ports.p.tap.address[0]", "010.0.0.1"},
		{"v4-mapped", tap(`address: ["::ffff:10.0.0.1/120"]`), "ports.p.tap.address[0]", "::ffff:10.0.0.1"},
		{"prefix too long", tap("address: [10.0.0.1/33]"), "ports.p.tap.address[0]", "/33"},
		{"no prefix", tap("address: [10.0.0.1]"), "ports.p.tap.address[0]", "10.0.0.1"},
		{"VLAN 0", "networks: {blue: {vlan: 0}}\n", "networks.blue.vlan", "0"},
		{"VLAN 4095", "networks: {blue: {vlan: 4095}}\n", "networks.blue.vlan", "4095"},
		{"VNI 2^24", "networks: {blue: {vni: 16777216}}\n", "networks.blue.vni", "16777216"},
		{"VNI 0", "networks: {blue: {vni: 0}}\n", "networks.blue.vni", "0"},
		{"MTU 67", "networks: {blue: {mtu: 67}}\n", "networks.blue.mtu", "67"},
		{"MTU too large", "networks: {blue: {mtu: 65536}}\n", "networks.blue.mtu", "65536"},
		{"group MAC", tap(`mac: "01:00:5e:00:00:01"`), "ports.p.tap.mac", "01:00:5e:00:00:01"},
		{"zero MAC", tap(`mac: "00:00:00:00:00:00"`), "ports.p.tap.mac", "00:00:00:00:00:00"},
		{"gateway outside", tap("address: [10.0.0.1/24], gateway: 10.0.1.1"), "ports.p.tap.gateway", "10.0.1.1"},
		{"address twice", "networks: {blue: {}}\nports:\n  p: {tap: {netns: x, address: [10.0.0.1/24]}, access: blue}\n  q: {tap: {netns: y, address: [10.0.0.1/24]}, access: blue}\n", "ports.q.tap.address[0]", "10.0.0.1"},
		{"MAC twice", "networks: {blue: {}}\nports:\n  p: {tap: {netns: x, mac: \"02:00:00:00:00:07\"}, access: blue}\n  q: {tap: {netns: y, mac: \"02:00:00:00:00:07\"}, access: blue}\n", "ports.q.tap.mac", "02:00:00:00:00:07"},
		{"VLAN twice", "networks: {blue: {vlan: 7}, red: {vlan: 7}}\n", "networks.red.vlan", "7"},
		{"VNI twice", "networks: {blue: {vni: 7}, red: {vni: 7}}\n", "networks.red.vni", "7"},
		{"interface twice", "networks: {blue: {}}\nports:\n  p: {tap: {netns: x}, access: blue}\n  q: {tap: {netns: x}, access: blue}\n", "ports.q", "eth0"},
		{"unknown network", "networks: {blue: {}}\nports: {p: {tap: {netns: x}, access: bleu}}\n", "ports.p.access", "bleu"},
		{"unknown key", "networks: {blue: {vlam: 7}}\n", "vlam", "vlam"},
		{"upper case", "networks: {Blue: {}}\n", "Blue", "Blue"},
		{"dots", "networks: {\"../x\": {}}\n", "../x", "../x"},
		{"newline", "networks: {\"a\\nb\": {}}\n", "networks", `a\nb`},
		{"escape code", "networks: {\"a\\e[31mb\": {}}\n", "networks", `\x1b`},
		{"300 characters", "networks: {" + strings.Repeat("x", 300) + ": {}}\n", "networks", "xxx"},
		{"namespace with dots", port("tap: {netns: ../../x}"), "ports.p.tap.netns", "../../x"},
		{"path with dots", port("tap: {netns: /run/netns/../x}"), "ports.p.tap.netns", ".."},
		{"pid 0", port("tap: {netns: \"pid:0\"}"), "ports.p.tap.netns", "pid:0"},
		{"interface with slash", tap("ifname: a/b"), "ports.p.tap.ifname", "a/b"},
		{"interface too long", tap("ifname: a234567890123456"), "ports.p.tap.ifname", "a234567890123456"},
		{"no YAML", "networks: {\n", "", ""},
		{"two documents", "networks: {}\n---\nnetworks: {}\n", "", ""},
	} {
		n.write(bad.file)
		out, errText, code := n.try("check", "-c", n.config)
		if code != 2 || !strings.Contains(out, n.config+":") || !strings.Contains(out, bad.field) || !strings.Contains(out, bad.value) {
			t.Errorf("check, %s: exit %d: %s%s", bad.what, code, out, errText)
		}
		harmless(t, bad.what, out+errText)
		out, errText, code = n.try("apply", "-c", n.config)
		if code != 2 || out != "" || !strings.Contains(errText, bad.field) || !strings.Contains(errText, bad.value) {
			t.Errorf("apply, %s: exit %d: %s%s", bad.what, code, out, errText)
		}
		harmless(t, bad.what, errText)
	}
	if !bytes.Equal(saved(t, n), before) {
		t.Error("the saved state has changed")
	}
	second := prepare(t, "networks: {blue: {vlan: 0}}\n")
	if code, text := second.failed(second.tryUp()); code != 2 || !strings.Contains(text, "networks.blue.vlan") {
		t.Errorf("up: exit %d: %s", code, text)
	}
	ping(t, a, "10.1.0.3", 1)
}

// evil are names that are never one.
var evil = map[string]string{
	"dots":        "../../etc/passwd",
	"newline":     "a\nhint: run me",
	"escape code": "a\x1b]0;x\x07\x1b[2J",
	"long":        strings.Repeat("x", 300),
	"upper case":  "Blue",
	"empty":       "",
	"no UTF-8":    "a\xff\xfe",
	"right-left":  "a\u202eb",
	"space":       "a b",
	"shell":       "$(reboot)",
}

// TestBadNames: by the command line and by the API, every name is refused with
// exit code 2, and what is printed can't drive a terminal.
func TestBadNames(t *testing.T) {
	t.Parallel()
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	before := saved(t, n)
	target := "netns:" + c.Name()
	for what, name := range evil {
		commands := [][]string{
			{"network", "add", "--", name},
			{"attach", "netns:" + name, "--network", "blue"},
			{"attach", target, "--network", "blue", "--ifname", name + "/"},
			{"attach", target, "--network", "blue", "--mac", name + "-"},
			{"attach", target, "--network", "blue", "--address", name + "/24"},
		}
		if name != "" {
			commands = append(commands, []string{"attach", target, "--network", "blue", "--port", name})
		}
		for _, args := range commands {
			out, errText, code := n.try(args...)
			want := 2
			if args[1] == "netns:Blue" { // a namespace's name may have capitals
				want = 5
			}
			if code != want || out != "" || !strings.HasPrefix(errText, "tapestry: ") {
				t.Errorf("%s, %q: exit %d: %s%s", what, args, code, out, errText)
			}
			harmless(t, what, errText)
		}
		for _, args := range [][]string{{"port", "show", name}, {"network", "show", name}, {"network", "rm", name}, {"detach", "netns:x", "--ifname", name}} {
			out, errText, code := n.try(args...)
			if code != 5 && code != 2 || out != "" {
				t.Errorf("%s, %q: exit %d: %s%s", what, args, code, out, errText)
			}
			harmless(t, what, errText)
		}
		for _, call := range []struct {
			path string
			body map[string]any
		}{
			{"/v1/attach", map[string]any{"netns": c.Name(), "network": "blue", "port": name + "\n"}},
			{"/v1/attach", map[string]any{"netns": "../" + name, "network": "blue"}},
			{"/v1/attach", map[string]any{"netns": c.Name(), "network": "blue", "ifname": name + "/"}},
			{"/v1/attach", map[string]any{"netns": c.Name(), "network": "blue", "via": name + "x"}},
			{"/v1/item", map[string]any{"op": "add", "kind": "network", "name": name, "yaml": "{}"}},
			{"/v1/item", map[string]any{"op": "add", "kind": "port", "name": name, "yaml": "{tap: {netns: " + c.Name() + "}, access: blue}"}},
			{"/v1/item", map[string]any{"op": name, "kind": "network", "name": "x", "yaml": "{}"}},
			{"/v1/item", map[string]any{"op": "add", "kind": name, "name": "x", "yaml": "{}"}},
			{"/v1/apply", map[string]any{"yaml": "networks: {\"" + strings.ToValidUTF8(strings.NewReplacer("\n", `\n`, "\x1b", `\e`, "\x07", `\a`).Replace(name), "_") + "/\": {}}", "file": name}},
		} {
			status, text := n.call(http.MethodPost, call.path, call.body)
			if status != http.StatusBadRequest {
				t.Errorf("%s, %s %v: status %d: %s", what, call.path, call.body, status, text)
			}
			harmless(t, what, text)
		}
	}
	if out := c.Run("ip", "-o", "link"); strings.Count(out, "\n") != 1 {
		t.Errorf("the container has got something:\n%s", out)
	}
	if !bytes.Equal(saved(t, n), before) {
		t.Error("the saved state has changed")
	}
	ping(t, a, "10.1.0.3", 1)
}

// TestBadRequests: what is no request of ours is refused and hurts nobody.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	f := startFlow(t, a, b, "10.1.0.3")
	for _, x := range []struct {
		method, path, body string
		status             int
	}{
		{http.MethodPost, "/v1/attach", "", http.StatusBadRequest},
		{http.MethodPost, "/v1/attach", "{", http.StatusBadRequest},
		{http.MethodPost, "/v1/attach", "[]", http.StatusBadRequest},
		{http.MethodPost, "/v1/attach", "null null", http.StatusBadRequest},
		{http.MethodPost, "/v1/attach", `{"nets": "x"}`, http.StatusBadRequest},
		{http.MethodPost, "/v1/attach", strings.Repeat("[", 100000), http.StatusBadRequest},
		{http.MethodPost, "/v1/apply", `{"yaml": "` + strings.Repeat("x", 5<<20) + `"}`, http.StatusBadRequest},
		{http.MethodPost, "/v1/explain", `{"in": "c1", "hex": "xyz"}`, http.StatusBadRequest},
		{http.MethodPost, "/v1/explain", `{"in": "c1", "hex": "` + strings.Repeat("00", 70000) + `"}`, http.StatusBadRequest},
		{http.MethodGet, "/v1/fdb/why?mac=x", "", http.StatusBadRequest},
		{http.MethodGet, "/v1/fdb/history?limit=-1", "", http.StatusBadRequest},
		{http.MethodGet, "/v1/ports?x=%1b", "", http.StatusBadRequest},
		{http.MethodGet, "/v1/%1b%5b2J", "", http.StatusNotFound},
		{http.MethodGet, "/v1/../../etc/passwd", "", http.StatusNotFound},
		{http.MethodDelete, "/v1/ports", "", http.StatusNotFound},
	} {
		status, text := n.call(x.method, x.path, x.body)
		if status != x.status && (x.status != http.StatusNotFound || status != http.StatusMethodNotAllowed && status/100 != 3) {
			t.Errorf("%s %.40s %.40s: status %d: %.200s", x.method, x.path, x.body, status, text)
		}
		harmless(t, x.path, text)
	}
	f.finish()
}

// TestBadUsage: a missing or odd file is no stack trace.
func TestBadUsage(t *testing.T) {
	t.Parallel()
	n := prepare(t, "")
	binary := filepath.Join(n.dir, "binary.yaml")
	if err := os.WriteFile(binary, bytes.Repeat([]byte{0, 0x1b, 0xff}, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		code int
		args []string
	}{
		{2, []string{"check", "-c", binary}},
		{5, []string{"check", "-c", n.dir + "/absent"}},
		{2, []string{"check", "-c", n.dir}},
		{2, []string{"check"}},
		{2, []string{"up", "-c", binary, "--socket", n.socket, "--state", n.state}},
		{5, []string{"up", "-c", n.dir + "/absent", "--socket", n.socket, "--state", n.state}},
		{2, []string{"up", "-c", n.config, "--socket", n.dir + "/" + strings.Repeat("x", 120), "--state", n.state}},
		{2, []string{"status", "--socket", n.dir + "/" + strings.Repeat("x", 120)}},
	} {
		var errs bytes.Buffer
		cmd := netnstest.Command(t, append([]string{n.bin}, x.args...)...)
		cmd.Stderr = &errs
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != x.code {
			t.Errorf("%q: exit %d, want %d: %s", x.args, code, x.code, errs.String())
		}
		harmless(t, x.args[0], errs.String())
	}
	if _, err := os.Stat(n.state); err == nil {
		t.Error("a refused start has left its state directory")
	}
}
