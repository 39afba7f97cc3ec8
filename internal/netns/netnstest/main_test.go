package netnstest_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// abandon makes TestAbandon leave a process behind.
const abandon = "TAPESTRY_TEST_ABANDON"

// TestReap: what tests leave running ends with them, also when they run out of
// time.
func TestReap(t *testing.T) {
	netnstest.Require(t, "netns")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := netnstest.Command(t, self, "-test.run=^TestAbandon$")
	c.Env = append(os.Environ(), "TAPESTRY_NETNSTEST=", abandon+"=1")
	out, err := c.CombinedOutput()
	if err == nil {
		t.Fatalf("it has succeeded:\n%s", out)
	}
	_, rest, _ := strings.Cut(string(out), "pid ")
	word, _, _ := strings.Cut(rest, "\n")
	pid, err := strconv.Atoi(word)
	if err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("process %d: %v, want none", pid, err)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// TestAbandon is TestReap's other half.
func TestAbandon(t *testing.T) {
	if os.Getenv(abandon) == "" {
		return
	}
	out, err := netnstest.Try("sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo pid $!")
	if err != nil {
		t.Error(err)
	}
	_, _ = os.Stdout.WriteString(out)
	panic("out of time")
}

// TestOrphan: a process whose parent is gone doesn't stay as a zombie.
func TestOrphan(t *testing.T) {
	netnstest.Require(t, "netns")
	out, err := netnstest.Try("sh", "-c", "sleep 0.05 >/dev/null 2>&1 & echo $!")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

// TestTry returns what a program says, and its end.
func TestTry(t *testing.T) {
	out, err := netnstest.Try("sh", "-c", "echo a; echo b >&2; exit 3")
	if out != "a\nb\n" || err == nil || err.Error() != "exit status 3" {
		t.Errorf("got %q, %v", out, err)
	}
}
