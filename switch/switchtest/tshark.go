package switchtest

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TShark has tshark read a capture file and returns one line of fields a packet,
// with bars between them.
func TShark(t *testing.T, file string, fields ...string) []string {
	t.Helper()
	netnstest.Require(t, "tshark")
	args := []string{"-n", "-r", file, "-T", "fields", "-E", "separator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := netnstest.Command(t, append([]string{"tshark"}, args...)...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("tshark: %v: %s", err, exit.Stderr)
		}
		t.Fatalf("tshark: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}
