package integration_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
)

// secret is octets that nothing may show, however they are written.
type secret struct {
	name string
	raw  []byte
	text []string // further forms
}

// in names the first form of the secret that b has, if any.
func (s secret) in(b []byte) string {
	forms := append([]string{string(s.raw), hex.EncodeToString(s.raw), base64.StdEncoding.EncodeToString(s.raw), base64.RawURLEncoding.EncodeToString(s.raw)}, s.text...)
	for i, form := range forms {
		if bytes.Contains(bytes.ToLower(b), bytes.ToLower([]byte(form))) {
			return fmt.Sprintf("%s (form %d)", s.name, i)
		}
	}
	return ""
}

// sharedSecret is a random shared key and the text of its file.
func sharedSecret() (secret, string) {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	text := base64.StdEncoding.EncodeToString(b)
	return secret{"the shared key", b, []string{text}}, text + "\n"
}

// keySecret is a private key in PEM.
func keySecret(t *testing.T, text string) secret {
	t.Helper()
	k := keyOf(t, text)
	scalar, err := k.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return secret{"the private key", scalar, strings.Split(strings.TrimSpace(text), "\n")[1:2]}
}

// tells demands that nothing which a switch writes or says, nor what others see of
// its processes, has one of the secrets, and no capture the keys of links.
func (n *node) tells(secrets ...secret) {
	n.t.Helper()
	for _, s := range secrets {
		if s.in(append([]byte("x="), s.text[0]...)) == "" {
			n.t.Fatalf("%s would not be found", s.name)
		}
	}
	look := func(where string, b []byte) {
		n.t.Helper()
		for _, s := range secrets {
			if form := s.in(b); form != "" {
				n.t.Errorf("%s has %s", where, form)
			}
		}
	}
	n.until("the journal is written", func() bool { b, err := os.ReadFile(filepath.Join(n.state, "journal")); return err == nil && len(b) > 0 })
	err := filepath.WalkDir(n.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		look(path, b)
		return err
	})
	if err != nil {
		n.t.Error(err)
	}
	for _, pid := range []int{n.keeper.Process.Pid, n.workerPID()} {
		for _, file := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err != nil || len(b) == 0 {
				n.t.Errorf("%s of process %d: %d octets, %v", file, pid, len(b), err)
			}
			look(fmt.Sprintf("%s of process %d", file, pid), b)
		}
	}
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"stats", "--json"}, {"peer", "ls"}, {"peer", "ls", "--json"}, {"peer", "show", "h2"}, {"peer", "show", "h2", "--json"},
		{"peer", "history", "h2", "--json"}, {"port", "ls", "--json"}, {"network", "ls", "--json"}, {"apply", "-c", n.config, "--dry-run", "--json"},
	} {
		look(strings.Join(args, " "), []byte(n.cli(args...)))
	}
	look("the capture", n.captured())
	look("the events", n.remembered())
	look("the log", []byte(n.log.String()))
}

// captured is a capture of the underlay without keys, in which there are none.
func (n *node) captured() []byte {
	n.t.Helper()
	file := filepath.Join(n.t.TempDir(), "links.pcapng")
	cmd := exec.Command(n.bin, "--socket", n.socket, "capture", "--port", "dev/"+wiretest.Interface, "--filter", "udp port 4788", "--count", "3", "-w", file)
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = cmd.Process.Kill() })
	if err := cmd.Wait(); err != nil {
		n.t.Errorf("capture: %v", err)
	}
	b, err := os.ReadFile(file)
	if err != nil || len(b) < 100 || bytes.Contains(b, []byte("CLIENT_RANDOM")) {
		n.t.Errorf("the capture: %d octets, %v, or it has keys", len(b), err)
	}
	return b
}

// remembered is what the stream of events begins with.
func (n *node) remembered() []byte {
	n.t.Helper()
	var out syncBuffer
	cmd := exec.Command(n.bin, "--socket", n.socket, "events", "--since", "-1h", "--json")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.until("the link is remembered", func() bool { return strings.Contains(out.String(), "is established") })
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	return []byte(out.String())
}

// TestEncryptedSecrets looks for a shared key, a certificate's key and a token's
// secret wherever they must not be. The host has joined by a token that it read
// from its standard input.
func TestEncryptedSecrets(t *testing.T) {
	t.Parallel()
	t.Run("shared key", func(t *testing.T) {
		t.Parallel()
		f := newFabric(t, 2)
		key, text := sharedSecret()
		for i := range f.hosts {
			f.upSealed(i+1, "psk_file: secret", map[string]string{"secret": text})
		}
		f.meet(1, 2)
		defer f.busy()()
		f.hosts[0].node.tells(key)
	})
	t.Run("joined by a token", func(t *testing.T) {
		t.Parallel()
		netnstest.Require(t, "netns", "tun")
		bin, err := binary()
		if err != nil {
			t.Fatal(err)
		}
		f := newFabric(t, 2)
		ca, dir := filepath.Join(t.TempDir(), "ca"), filepath.Join(t.TempDir(), "pki")
		if out, err := exec.Command(bin, "pki", "init", "--dir", ca, "--host", "h2").CombinedOutput(); err != nil {
			t.Fatalf("pki init: %v\n%s", err, out)
		}
		token := joined(t, bin, ca, dir)
		read := func(dir, name string) string {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		files := func(dir, host string) map[string]string {
			return map[string]string{"host.crt": read(dir, host+".crt"), "host.key": read(dir, host+".key"), "ca.crt": read(dir, "ca.crt")}
		}
		const dtls = "cert: host.crt, key: host.key, ca: ca.crt"
		f.upSealed(1, dtls, files(dir, "h1"))
		f.upSealed(2, dtls, files(ca, "h2"))
		f.meet(1, 2)
		defer f.busy()()
		f.hosts[0].node.tells(keySecret(t, read(dir, "h1.key")), token)
		for _, folder := range []string{ca, dir} {
			list, err := os.ReadDir(folder)
			if err != nil || len(list) < 4 {
				t.Errorf("%s has %d files, %v", folder, len(list), err)
			}
			for _, file := range list {
				if form := token.in([]byte(read(folder, file.Name()))); form != "" {
					t.Errorf("%s has %s", file.Name(), form)
				}
			}
		}
	})
}

// busy sends frames through the link until the returned function is called.
func (f *fabric) busy() (stop func()) {
	end := f.canaries(1, 2)
	return func() { end(nil) }
}

// joined has host h1 join with a token on its standard input, and returns the
// token's secret. The joining process, while it waits for the token, and what it
// says don't have it.
func joined(t *testing.T, bin, ca, dir string) secret {
	t.Helper()
	offer := exec.Command(bin, "pki", "token", "h1", "--dir", ca, "--listen", "127.0.0.1:0", "--address", "127.0.0.1")
	var token, said syncBuffer
	offer.Stdout, offer.Stderr = &token, &said
	if err := offer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = offer.Process.Kill() })
	if !eventually(func() bool { return strings.Contains(token.String(), "\n") }) {
		t.Fatalf("no token: %s", said.String())
	}
	text := strings.TrimSpace(token.String())
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, "tapestry-"))
	if err != nil || len(b) < 49 {
		t.Fatalf("token %q: %v", text, err)
	}
	s := secret{"the token's secret", b[33:49], []string{text, text[60:90]}}
	cmd := exec.Command(bin, "join", "-", "--host", "h1", "--dir", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out syncBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte(text + "\n")); err != nil {
		t.Fatal(err)
	}
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
	env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("join: %v\n%s", err, out.String())
	}
	if err := offer.Wait(); err != nil {
		t.Fatalf("pki token: %v\n%s", err, said.String())
	}
	for where, b := range map[string]string{
		"its command line": string(line), "its environment": string(env), "what join says": out.String(), "what pki token says to people": said.String(),
		"what it says when it ends": strings.Replace(token.String(), text, "", 1),
	} {
		if form := s.in([]byte(b)); form != "" {
			t.Errorf("%s has %s", where, form)
		}
	}
	return s
}
