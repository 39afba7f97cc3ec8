package integration_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
)

// TestEncryptedCapture captures an encrypted link where it crosses the underlay,
// with its keys: tshark finds the frames in it, and without the keys it doesn't.
// At ports and peers they are seen as they are.
func TestEncryptedCapture(t *testing.T) {
	t.Parallel()
	netnstest.Require(t, "tshark")
	f := newFabric(t, 2)
	for i := range f.hosts {
		f.upSealed(i+1, "psk_file: secret", map[string]string{"secret": sharedKey(5)})
	}
	f.meet(1, 2)
	one := f.hosts[0].node
	file := filepath.Join(t.TempDir(), "links.pcapng")
	cmd := background(t, one.bin, "--socket", one.socket, "capture", "--port", "dev/"+wiretest.Interface, "--filter", "udp port 4788", "--with-keys", "-w", file)
	var said bytes.Buffer
	cmd.Stderr = &said
	before := one.peers()["h2"].Epoch
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	one.until("new keys", func() bool { return one.peers()["h2"].Epoch > before })
	ping(t, f.hosts[0].container, "10.1.0.2", 5, "-p", canaryHex)
	one.until("packets are written", func() bool { b, _ := os.ReadFile(file); return len(b) > 8000 })
	_ = cmd.Process.Signal(os.Interrupt)
	if err := ends(cmd); err != nil {
		t.Fatalf("capture: %v\n%s", err, said.String())
	}
	if !strings.Contains(said.String(), "WARNING") {
		t.Errorf("nobody was warned: %s", said.String())
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", st.Mode(), err)
	}
	b, err := os.ReadFile(file)
	if err != nil || bytes.Contains(b, []byte(canary)) {
		t.Fatalf("the canary stands in the capture, or %v", err)
	}
	decoded, err := netnstest.Command(t, "tshark", "-r", file, "-d", "udp.port==4788,dtls", "-d", "dtls.port==4788,data", "-T", "fields", "-e", "data.data").CombinedOutput()
	if err != nil || !strings.Contains(string(decoded), canaryHex) {
		t.Errorf("tshark finds no canary: %v\n%s", err, decoded)
	}
	whole := make(chan string, 1)
	go func() { whole <- one.cli("capture", "--port", "peer/h2", "--filter", "icmp", "--count", "1", "--json") }()
	var line string
	one.until("a frame is seen at the peer", func() bool {
		ping(t, f.hosts[0].container, "10.1.0.2", 1, "-p", canaryHex)
		select {
		case line = <-whole:
			return true
		default:
			return false
		}
	})
	if !strings.Contains(line, canaryHex) {
		t.Errorf("at the peer: %s", line)
	}
}
