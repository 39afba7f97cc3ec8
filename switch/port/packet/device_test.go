package packet_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/port/packet"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// TestLoopbackIsNoPort: a loopback would give back every flood.
func TestLoopbackIsNoPort(t *testing.T) {
	netnstest.Require(t, "netns", "packet")
	_, err := packet.Open("lo", false)
	if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("open lo: got %v", err)
	}
}
