package integration_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TestDescriptorsExhausted: a port too many is refused with a hint, and the
// others lose nothing.
func TestDescriptorsExhausted(t *testing.T) {
	t.Parallel()
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := prepare(t, pair(a, b))
	if err := n.under("ulimit -n 48; exec")(); err != nil {
		t.Fatalf("%v\n%s", err, n.log)
	}
	f := startFlow(t, a, b, "10.1.0.3")
	attach := func(i int) (string, int) {
		_, errText, code := n.try("attach", "netns:"+c.Name(), "--network", "blue", "--ifname", fmt.Sprintf("eth%d", i), "--port", fmt.Sprintf("p%d", i))
		return errText, code
	}
	made := 0
	for ; made < 48; made++ {
		errText, code := attach(made)
		if code == 0 {
			continue
		}
		if code != 1 || !strings.Contains(errText, "too many open files") || !strings.Contains(errText, "limit of open files") {
			t.Errorf("exit %d: %s", code, errText)
		}
		break
	}
	if made == 0 || made == 48 {
		t.Fatalf("%d ports were made with 48 descriptors", made)
	}
	if out := c.Run("ip", "-o", "link"); strings.Contains(out, fmt.Sprintf("eth%d", made)) {
		t.Errorf("the refused port has left something:\n%s", out)
	}
	var ports []struct{ State string }
	if n.json(&ports, "port", "ls"); len(ports) != made+2 {
		t.Errorf("%d ports are there, want %d", len(ports), made+2)
	}
	n.cli("detach", "netns:"+c.Name(), "--ifname", "eth0")
	if errText, code := attach(made); code != 0 {
		t.Errorf("with room again: exit %d: %s", code, errText)
	}
	f.finish()
}

// TestStateNotWritable: what can't be made durable is refused whole.
func TestStateNotWritable(t *testing.T) {
	t.Parallel()
	for _, why := range []string{"read-only", "full"} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
			n := prepare(t, pair(a, b))
			if err := os.Mkdir(n.state, 0o750); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", n.state, "tmpfs", 0, "size=256k"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { n.down(); _ = unix.Unmount(n.state, unix.MNT_DETACH) })
			n.up()
			f := startFlow(t, a, b, "10.1.0.3")
			before := saved(t, n)
			spoil, mend := spoilers(t, n, why)
			spoil()
			for _, change := range [][]string{
				{"network", "add", "red", "--vlan", "20"},
				{"attach", "netns:" + c.Name(), "--network", "blue", "--address", "10.1.0.4/24", "--port", "c3"},
				{"apply", "-c", n.edited("c2")},
				{"port", "rm", "c1"},
			} {
				_, errText, code := n.try(change...)
				if code != 1 || !strings.Contains(errText, "hint: make room in "+n.state) {
					t.Errorf("%v: exit %d: %s", change, code, errText)
				}
			}
			if out := c.Run("ip", "-o", "link"); strings.Count(out, "\n") != 1 {
				t.Errorf("the refused port has left something:\n%s", out)
			}
			if out := n.cli("network", "ls") + n.cli("port", "ls"); strings.Contains(out, "red") || strings.Contains(out, "c3") || !strings.Contains(out, "c2") {
				t.Errorf("a refused change is in force:\n%s", out)
			}
			mend()
			if !bytes.Equal(saved(t, n), before) {
				t.Error("the saved state is another one")
			}
			n.cli("network", "add", "red", "--vlan", "20")
			f.finish()
		})
	}
}

// edited writes a file like the one in force, without one port, and returns its
// path.
func (n *node) edited(without string) string {
	n.t.Helper()
	text, err := os.ReadFile(n.config)
	if err != nil {
		n.t.Fatal(err)
	}
	var kept strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "  "+without+":") {
			kept.WriteString(line)
		}
	}
	path := filepath.Join(n.dir, "edited.yaml")
	if err := os.WriteFile(path, []byte(kept.String()), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return path
}

// saved is the state file.
func saved(t *testing.T, n *node) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.state, "state"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// spoilers make the state directory refuse writing, and take it again. The
// worker is root without any capability, so the folder's mode counts for it.
func spoilers(t *testing.T, n *node, why string) (spoil, mend func()) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	filler := filepath.Join(n.state, "filler")
	if why == "read-only" {
		return func() { must(os.Chmod(n.state, 0o550)) }, func() { must(os.Chmod(n.state, 0o750)) }
	}
	return func() {
			file, err := os.Create(filler)
			must(err)
			defer file.Close()
			for err == nil {
				_, err = file.Write(make([]byte, 4096))
			}
		}, func() {
			must(os.Remove(filler))
		}
}

// TestDamagedState: a damaged state file is named and refused, never taken for
// an empty one.
func TestDamagedState(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	n := start(t, pair(a, b))
	n.cli("network", "add", "red", "--vlan", "20")
	n.kill()
	whole := saved(t, n)
	path := filepath.Join(n.state, "state")
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for what, bad := range map[string][]byte{
		"empty": {}, "cut short": whole[:len(whole)-1], "one bit": flipped, "other file": []byte("networks: {}\n" + strings.Repeat("#", 100)),
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		code, text := n.failed(n.tryUp())
		if code != 1 || !strings.Contains(text, path) || !strings.Contains(text, "damaged") || !strings.Contains(text, "move it away") {
			t.Errorf("%s: exit %d: %s", what, code, text)
		}
		if n := strings.Count(text, "damaged"); n != 1 {
			t.Errorf("%s: said %d times: %s", what, n, text)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, bad) {
			t.Errorf("%s: the file was changed: %v", what, err)
		}
		if out := a.Run("ip", "-o", "link"); !strings.Contains(out, "eth0") {
			t.Errorf("%s: the container has lost its interface", what)
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	n.up()
	ping(t, a, "10.1.0.3", 2)
	if out := n.cli("network", "ls"); !strings.Contains(out, "red") {
		t.Errorf("the copy put back is not in force:\n%s", out)
	}
}
