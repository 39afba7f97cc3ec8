package integration_test

import (
	"strings"
	"testing"
)

// TestEncrypted has three hosts share a key and an encrypted network: everybody
// reaches everybody, and nothing of it can be read on the underlay.
func TestEncrypted(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 3)
	watch := f.tap(1)
	for i := range f.hosts {
		f.upSealed(i+1, "psk_file: secret", map[string]string{"secret": sharedKey(1)})
	}
	f.meet(1, 2)
	f.meet(1, 3)
	f.meet(2, 3)
	ping(t, f.hosts[0].container, "10.1.0.2", 20, "-p", canaryHex)
	f.exchange(1, 2)
	if out := f.hosts[0].node.cli("trace", "c1", "10.1.0.2"); !strings.Contains(out, "tunnel from h1") || !strings.Contains(out, "answered: ") {
		t.Errorf("trace by the link:\n%s", out)
	}
	if out := f.hosts[0].node.cli("explain", "--in", "peer/h2", "icmp 10.1.0.2 > 10.1.0.1"); !strings.Contains(out, "encrypted link") || !strings.Contains(out, "FORWARD") {
		t.Errorf("explain what the link opens:\n%s", out)
	}
	for name, p := range f.hosts[0].node.peers() {
		f.hosts[0].node.sees(name)
		p = f.hosts[0].node.peers()[name]
		if p.Encryption != "dtls" || p.Cipher != "TLS_PSK_WITH_AES_128_GCM_SHA256" || p.Epoch == 0 || p.SealedMTU != 1500-50-37 || p.MTU != p.SealedMTU || p.Drops["bad_record"] != 0 {
			t.Errorf("peer %s: %+v", name, p)
		}
	}
	if hits, n := watch.hits(canary); hits != 0 || n < 40 {
		t.Errorf("the canary was seen %d times in %d frames, want none", hits, n)
	}
	if log := f.hosts[0].node.log.String(); strings.Contains(log, strings.TrimSpace(sharedKey(1))) {
		t.Error("the key stands in the log")
	}
	f.conserved()
}

// canary is what frames carry that must not be read on the underlay, and
// canaryHex the same as a pattern of ping's.
const (
	canary    = "canary!!"
	canaryHex = "63616e6172792121"
)
