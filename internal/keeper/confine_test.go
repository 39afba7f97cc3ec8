package keeper_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// Every thread, those made before and after, and every program executed has no
// capability left, whether the program is built without cgo, as the product is,
// or with it, as a plain go build does where there is a C compiler.
func TestConfine(t *testing.T) {
	for _, cgo := range []string{"0", "1"} {
		t.Run("CGO_ENABLED="+cgo, func(t *testing.T) { testConfine(t, cgo) })
	}
}

func testConfine(t *testing.T, cgo string) {
	bin := filepath.Join(t.TempDir(), "confined")
	build := exec.Command("go", "build", "-o", bin, "./testdata/confined")
	build.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := build.CombinedOutput(); err != nil {
		if _, missing := exec.LookPath("cc"); cgo == "1" && missing != nil {
			t.Skip("needs a C compiler: apt-get install gcc libc6-dev")
		}
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := netnstest.Command(t, bin)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		seen[key]++
		want := value
		switch key {
		case "CapEff", "CapPrm", "CapInh", "CapAmb":
			want = "0000000000000000"
		case "CapBnd":
			if os.Geteuid() == 0 {
				want = "0000000000000000"
			}
		case "NoNewPrivs":
			want = "1"
		case "Dumpable":
			want = "0"
		case "Mount":
			want = unix.EPERM.Error()
		}
		if value != want {
			t.Errorf("%s: got %s, want %s", key, value, want)
		}
	}
	// Eight threads that wait, one made later, main's, the child's.
	if n := seen["CapEff"]; n < 11 || seen["NoNewPrivs"] != n || seen["Mount"] != 1 {
		t.Errorf("got %v, want the sets of 11 threads at least", seen)
	}
}
