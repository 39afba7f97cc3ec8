package integration_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestEncryptedFiles asserts that a key that others can read is refused, when the
// switch starts and later; that a refusal changes nothing; that a switch which finds
// no key when it starts again carries all else; and that no secret is kept or said.
func TestEncryptedFiles(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	secret := strings.TrimSpace(sharedKey(9))
	h := f.hosts[0]
	h.node = prepare(t, f.sealedFile(1, "psk_file: secret"))
	h.node.ns = h.underlay
	one, path := h.node, filepath.Join(h.node.dir, "secret")
	one.put(map[string]string{"secret": secret})
	mode := func(m os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, m); err != nil {
			t.Fatal(err)
		}
	}
	mode(0o644)
	if err := one.tryUp(); err == nil || !strings.Contains(one.log.String(), "others can read it") {
		t.Fatalf("a key that others can read: %v\n%s", err, one.log)
	}
	mode(0o600)
	one.up()
	f.attach(1, 1)
	f.upSealed(2, "psk_file: secret", map[string]string{"secret": secret})
	f.meet(1, 2)
	mode(0o640)
	if _, errs, code := one.try("apply", "-c", one.config); code != 2 || !strings.Contains(errs, "tunnel.dtls.psk_file") || !strings.Contains(errs, "hint: chmod 600") {
		t.Errorf("apply: exit %d: %s", code, errs)
	}
	mode(0o600)
	one.put(map[string]string{"secret": "not base64: " + secret})
	if _, errs, code := one.try("apply", "-c", one.config); code != 2 || strings.Contains(errs, secret) {
		t.Errorf("apply with a key that is none: exit %d: %s", code, errs)
	}
	ping(t, f.hosts[0].container, "10.1.0.2", 2)

	one.kill()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	one.up()
	if out := one.cli("status"); !strings.Contains(out, "no encrypted link can be made") || !strings.Contains(out, "tunnel.dtls.psk_file") {
		t.Errorf("status: %s", out)
	}
	one.put(map[string]string{"secret": secret})
	one.cli("apply", "-c", one.config)
	f.meet(1, 2)

	kept, err := os.ReadFile(filepath.Join(one.state, "state"))
	if err != nil || bytes.Contains(kept, []byte(secret)) {
		t.Errorf("the state file holds the key, or %v", err)
	}
	for _, args := range [][]string{{"status", "--json"}, {"peer", "show", "h2", "--json"}} {
		if out := one.cli(args...); strings.Contains(out, secret) {
			t.Errorf("%v says the key", args)
		}
	}
	if strings.Contains(one.log.String(), secret) {
		t.Error("the log says the key")
	}
	for _, pid := range []int{one.keeper.Process.Pid, one.workerPID()} {
		if line, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline")); bytes.Contains(line, []byte(secret)) {
			t.Errorf("the command line of %d says the key", pid)
		}
	}
}
