package probe_test

import (
	"os"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/probe"
	"github.com/tapestry-net/tapestry/switch/frame"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

func TestRun(t *testing.T) {
	netnstest.Require(t, "netns", "tun", "packet", "tc")
	r := probe.Run()
	for name, f := range map[string]probe.Finding{
		"namespace": r.Namespace, "net admin": r.NetAdmin, "net raw": r.NetRaw, "tun": r.TUN,
		"vnet header": r.VNetHdr, "GSO write": r.GSOWrite, "tc": r.TC, "packet": r.PacketVNet,
	} {
		if f.Answer != probe.Yes {
			t.Errorf("%s: got %v (%s), want yes", name, f.Answer, f.Text)
		}
	}
	if !r.Offloads.Has(frame.OffloadChecksum) {
		t.Errorf("offloads %b: want at least checksums", r.Offloads)
	}
	if again := probe.Run(); again != r {
		t.Errorf("second Run = %+v, want %+v", again, r)
	}
}

func TestEveryFindingSpeaks(t *testing.T) {
	r := probe.Run()
	for i, f := range r.Findings() {
		if f.Text == "" {
			t.Errorf("finding %d (%v) has no text", i, f.Answer)
		}
	}
}
