package integration_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TestEncryptedWeak has a host meet another program at its peer's address, with a
// certificate that is as it should be, which speaks an older version or has weaker
// suites alone. As a client it is refused for that. As a server it refuses what we
// offer, in clear, which anybody could have said: it counts as no answer.
func TestEncryptedWeak(t *testing.T) {
	netnstest.Require(t, "openssl")
	ca := newAuthority(t, "fabric")
	for _, c := range []struct {
		name, reason string
		args         []string
	}{
		{"DTLS 1.0", "wrong_version", []string{"-dtls1", "-cipher", "ALL:@SECLEVEL=0"}},
		{"CBC", "weak_suite", []string{"-dtls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA"}},
		{"CCM", "weak_suite", []string{"-dtls1_2", "-cipher", "ECDHE-ECDSA-AES128-CCM"}},
	} {
		t.Run(c.name+" client", func(t *testing.T) {
			t.Parallel()
			weak(t, ca, c.reason, append([]string{"s_client", "-connect", "192.0.2.1:4788", "-bind", "192.0.2.2:4788"}, c.args...))
		})
		t.Run(c.name+" server", func(t *testing.T) {
			t.Parallel()
			weak(t, ca, "no_answer", append([]string{"s_server", "-accept", "192.0.2.2:4788"}, c.args...))
		})
	}
}

// weak is one such meeting.
func weak(t *testing.T, ca *authority, reason string, args []string) {
	f := newFabric(t, 2)
	watch := f.tap(1)
	files, _ := ca.issue("h1", nil)
	f.upSealed(1, "cert: host.crt, key: host.key, ca: ca.crt", files)
	theirs, _ := ca.issue("h2", nil)
	dir := t.TempDir()
	(&node{t: t, dir: dir}).put(theirs)
	f.canaries(1, 2)
	cmd := exec.Command("openssl", append(args, "-cert", filepath.Join(dir, "host.crt"), "-key", filepath.Join(dir, "host.key"))...)
	f.hosts[1].underlay.Start(cmd)
	f.refusal(watch, reason)
}

// refusal demands that host 1 has no link to h2, says everywhere why, once in its
// log, and lets nothing out.
func (f *fabric) refusal(watch *tap, reason string) {
	t, one := f.t, f.hosts[0].node
	t.Helper()
	one.refuses("h2", reason)
	one.until("status tells why", func() bool { return strings.Contains(one.cli("status"), reason) })
	for _, args := range [][]string{{"peer", "ls"}, {"peer", "ls", "--json"}, {"peer", "show", "h2"}} {
		if out := one.cli(args...); !strings.Contains(out, reason) {
			t.Errorf("%v doesn't tell why:\n%s", args, out)
		}
	}
	one.until("frames are dropped", func() bool { return one.stats().Drops["not_encrypted_yet"] > 20 })
	if hits, _ := watch.hits(canary); hits != 0 {
		t.Errorf("the canary was seen %d times", hits)
	}
	if n := strings.Count(one.log.String(), "no encrypted link to h2: "+reason); n != 1 {
		t.Errorf("%d lines of the log tell why, want 1:\n%s", n, one.log)
	}
}
