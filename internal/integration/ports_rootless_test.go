package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// nobody is the ordinary user that a test of root's becomes.
const nobody = 65534

// TestRootless runs the whole switch as an ordinary user, root in a user
// namespace of its own only: two containers talk by TAPs, veth and host ports
// work, and nothing is left. When the tests run as an ordinary user, all of
// them are rootless.
func TestRootless(t *testing.T) {
	netnstest.Require(t, "netns", "tun", "ping")
	if os.Getuid() != 0 || !initialUserNamespace(t) {
		t.Skip("needs root, to become an ordinary user; as an ordinary user every test of this package is rootless")
	}
	for _, program := range []string{"setpriv", "unshare", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: install util-linux", program)
		}
	}
	openTUN(t)
	n := prepare(t, "")
	dir := homeOfNobody(t)
	bin := filepath.Join(dir, "tapestry")
	here(t, "cp", n.bin, bin)
	host := holder(t, dir, "setpriv", "--reuid", strconv.Itoa(nobody), "--regid", strconv.Itoa(nobody), "--clear-groups",
		"unshare", "--user", "--map-root-user", "--net", "--mount")
	inside := []string{"nsenter", "--target", strconv.Itoa(host), "--user", "--net", "--mount", "--"}
	one := holder(t, dir, append(inside, "unshare", "--net")...)
	two := holder(t, dir, append(inside, "unshare", "--net")...)
	n.bin = filepath.Join(dir, "rootless")
	script := "#!/bin/sh\nexec " + strings.Join(inside, " ") + " " + bin + " \"$@\"\n"
	if err := os.WriteFile(n.bin, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	n.config, n.socket, n.state = filepath.Join(dir, "tapestry.yaml"), filepath.Join(dir, "s"), filepath.Join(dir, "state")
	n.write(fmt.Sprintf(`
networks: {blue: {vlan: 10}}
ports:
  c1: {tap: {netns: "pid:%d", address: [10.1.0.2/24, "fd00::2/64"]}, access: blue}
  c2: {veth: {netns: "pid:%d", address: [10.1.0.3/24, "fd00::3/64"]}, access: blue}
  gw: {host: {ifname: tap-blue, address: [10.1.0.1/24]}, access: blue}
`, one, two))
	if err := os.Chmod(n.config, 0o644); err != nil {
		t.Fatal(err)
	}
	n.up()
	for _, c := range []struct {
		from int
		to   string
	}{{one, "10.1.0.3"}, {two, "fd00::2"}, {one, "10.1.0.1"}, {host, "10.1.0.3"}} {
		out, err := netnstest.Try("nsenter", "--target", strconv.Itoa(c.from), "--user", "--net", "--", "ping", "-n", "-q", "-c", "3", "-i", "0.02", "-W", "2", c.to)
		if err != nil {
			t.Errorf("ping %s: %v\n%s", c.to, err, out)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.workerPID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{fmt.Sprintf("Uid:\t%d\t", nobody), "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the worker's status has no %q:\n%s", want, status)
		}
	}
	conserved(t, n)
	n.down()
	for _, pid := range []int{host, one, two} {
		if out := here(t, "nsenter", "--target", strconv.Itoa(pid), "--user", "--net", "--", "ip", "-o", "link"); strings.Count(out, "\n") != 1 {
			t.Errorf("left behind:\n%s", out)
		}
	}
}

// initialUserNamespace reports whether root is root of the machine.
func initialUserNamespace(t *testing.T) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.HasSuffix(strings.TrimSpace(string(b)), "4294967295")
}

// openTUN puts a device node that everybody may open in the place of
// /dev/net/tun, in the mount namespace of the tests.
func openTUN(t *testing.T) {
	t.Helper()
	if fi, err := os.Stat("/dev/net/tun"); err == nil && fi.Mode().Perm()&0o006 == 0o006 {
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		t.Skipf("needs a device node of its own: %v; chmod 0666 /dev/net/tun", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	node := filepath.Join(dir, "tun")
	err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200)))
	if err == nil {
		err = os.Chmod(node, 0o666)
	}
	if err == nil {
		err = unix.Mount(node, "/dev/net/tun", "", unix.MS_BIND, "")
	}
	if err != nil {
		t.Skipf("needs a device node of its own: %v; chmod 0666 /dev/net/tun", err)
	}
	t.Cleanup(func() { _ = unix.Unmount("/dev/net/tun", unix.MNT_DETACH) })
}

// homeOfNobody is a folder that belongs to the ordinary user.
func homeOfNobody(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rootless")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Skipf("needs to change a file's owner: %v", err)
	}
	return dir
}

// holder starts a process that does nothing behind the words of cmd, which make
// its namespaces, and returns its number once it is there.
func holder(t *testing.T, dir string, cmd ...string) int {
	t.Helper()
	c := exec.Command(cmd[0], append(cmd[1:], "sh", "-c", "echo there; exec cat")...)
	c.Dir = dir
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs := &syncBuffer{}
	c.Stderr, c.WaitDelay = errs, drain
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = ends(c) })
	word := make([]byte, 6)
	if err := out.(*os.File).SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(word); err != nil || string(word) != "there\n" {
		if strings.Contains(errs.String(), "unshare failed") || err != nil {
			t.Skipf("needs user namespaces: %v %s; sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0", err, errs)
		}
		t.Fatalf("holder says %q: %v", word, errs)
	}
	return c.Process.Pid
}
