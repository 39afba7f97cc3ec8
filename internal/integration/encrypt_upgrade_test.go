package integration_test

import (
	endian "encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// records are sealed records that crossed the underlay, by who has sent them.
type records struct {
	t    *testing.T
	seen map[string]map[[2]uint64]bool // by sender: nonce, key stream
	n    int
}

// plaintexts are the first 8 octets of all that a link of these tests carries: the
// VXLAN header of network blue, and that of keepalives and messages.
var plaintexts = []uint64{0x08<<56 | 10010<<8, 0x08 << 56}

// audit looks at every record that the tap has seen. Nobody but the two ends has
// the keys; but one key and one nonce make one key stream, and what was sealed
// is one of few texts. Two records with the same nonce and the same stream are one
// nonce used twice.
func (s *tap) audit(r *records) {
	s.t.Helper()
	s.each(func(b []byte) {
		const eth, udp = 14, 8
		if len(b) < eth+20 || b[12] != 8 || b[13] != 0 || b[eth+9] != 17 {
			return
		}
		sender := fmt.Sprint(b[eth+12 : eth+16])
		b = b[eth+int(b[eth]&15)*4+udp:]
		for {
			h, ok := record.Parse(b)
			if !ok {
				return
			}
			if nonce, ok := record.Number(h, b); ok && h.Type == record.ApplicationData && h.Length >= record.NonceLen+8 {
				r.add(sender, nonce, endian.BigEndian.Uint64(b[record.Headroom:]))
			}
			b = b[record.HeaderLen+h.Length:]
		}
	})
}

func (r *records) add(sender string, nonce, sealed uint64) {
	r.t.Helper()
	r.n++
	if r.seen[sender] == nil {
		r.seen[sender] = map[[2]uint64]bool{}
	}
	for _, p := range plaintexts {
		use := [2]uint64{nonce, sealed ^ p}
		if r.seen[sender][use] && !r.t.Failed() { // one tells enough
			r.t.Errorf("%s has used nonce %x twice with one key", sender, nonce)
		}
		r.seen[sender][use] = true
	}
}

// TestEncryptedUpgrade replaces the workers of both hosts under numbered datagrams
// over an encrypted link. What is promised is what a plain tunnel keeps: none is
// lost, none comes twice, the order stays; and no nonce is used twice.
func TestEncryptedUpgrade(t *testing.T) {
	for name, dtls := range map[string]string{"shared key": "psk_file: secret", "certificates": "cert: host.crt, key: host.key, ca: ca.crt"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFabric(t, 2)
			watch := f.tap(1)
			ca := newAuthority(t, "fabric")
			for i := range f.hosts {
				files, _ := ca.issue(fmt.Sprintf("h%d", i+1), nil)
				files["secret"] = sharedKey(1)
				f.upSealed(i+1, dtls, files)
			}
			one, two := f.hosts[0].node, f.hosts[1].node
			f.meet(1, 2)
			flow := startFlow(t, f.hosts[0].container, f.hosts[1].container, "10.1.0.2")
			for _, n := range []*node{two, one, two, one, one, two} {
				before := n.workerPID()
				n.cli("upgrade")
				if n.workerPID() == before {
					t.Error("the worker is the former one")
				}
				flow.pass(50)
			}
			made := one.peers()["h2"].Link.Handshakes
			one.until("new keys", func() bool { return one.peers()["h2"].Link.Handshakes > made })
			two.cli("upgrade")
			flow.pass(50)
			slowest := flow.finish()
			t.Logf("%d datagrams sent, %d arrived, the slowest took %v", flow.sent.Load(), flow.got.Load(), slowest)
			for _, n := range []*node{one, two} {
				if !strings.Contains(n.log.String(), "goes on with the keys of the worker before") {
					t.Errorf("the link was made anew:\n%s", n.log)
				}
			}
			f.exchange(1, 2)
			f.conserved()
			audit := &records{t: t, seen: map[string]map[[2]uint64]bool{}}
			if watch.audit(audit); audit.n < int(flow.sent.Load()) {
				t.Errorf("%d records were seen of %d datagrams", audit.n, flow.sent.Load())
			}
		})
	}
}

// ender returns what kills a process, which may have ended by then.
func ender(t *testing.T, pid int) func() {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // fails when it has ended
		unix.Close(fd)
	}
}

// workerBut is another worker than that, when there is one.
func (n *node) workerBut(old int) (pid int) {
	n.t.Helper()
	n.until("another worker runs", func() bool {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", n.keeper.Process.Pid))
		for _, file := range files {
			children, _ := os.ReadFile(file)
			for _, word := range strings.Fields(string(children)) {
				if p, err := strconv.Atoi(word); err == nil && p != old {
					pid = p
				}
			}
		}
		return pid != 0
	})
	return pid
}

// TestEncryptedUpgradeKilled kills the old worker or the new one around an upgrade:
// the link comes back, and no nonce is used twice.
func TestEncryptedUpgradeKilled(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	watch := f.tap(1)
	for i := range f.hosts {
		f.upSealed(i+1, "psk_file: secret", map[string]string{"secret": sharedKey(1)})
	}
	f.meet(1, 2)
	one := f.hosts[0].node
	flow := startFlow(t, f.hosts[0].container, f.hosts[1].container, "10.1.0.2")
	audit := &records{t: t, seen: map[string]map[[2]uint64]bool{}}
	for name, step := range map[string]func(){
		"the old one as it quiesces": func() {
			end := ender(t, one.workerPID())
			one.cli("upgrade")
			end()
		},
		"the new one as it takes over": func() {
			old := one.workerPID()
			one.cli("upgrade")
			die(t, one.workerBut(old))
		},
		"the old one while the new one starts": func() {
			old, done := one.workerPID(), make(chan struct{})
			end := ender(t, old)
			go func() {
				defer close(done)
				_, _, _ = one.try("upgrade") // cut off
			}()
			one.workerBut(old)
			end()
			<-done
		},
		"nobody": func() { one.cli("upgrade") },
	} {
		step()
		flow.pass(50)
		watch.audit(audit)
		if t.Failed() {
			t.Fatalf("killed: %s\n%s", name, one.log)
		}
	}
	flow.settle()
	f.exchange(1, 2)
	watch.audit(audit)
}

// TestEncryptedUpgradeRevoked revokes the peer's certificate, and only an upgrade
// reads the list: the keys that are handed over count no more.
func TestEncryptedUpgradeRevoked(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	watch := f.tap(1)
	ca := newAuthority(t, "fabric")
	const dtls = "cert: host.crt, key: host.key, ca: ca.crt"
	first, _ := ca.issue("h1", nil)
	second, cert := ca.issue("h2", nil)
	first["revoked.crl"] = ca.revoked()
	f.upSealed(1, dtls+", crl: revoked.crl", first)
	f.upSealed(2, dtls, second)
	f.meet(1, 2)
	f.canaries(1, 2)
	one := f.hosts[0].node
	one.put(map[string]string{"revoked.crl": ca.revoked(cert)})
	one.cli("upgrade")
	one.refuses("h2", "revoked")
	if strings.Contains(one.log.String(), "goes on with the keys") {
		t.Errorf("the link went on:\n%s", one.log)
	}
	before := one.stats().Drops["not_encrypted_yet"]
	one.until("frames are dropped", func() bool { return one.stats().Drops["not_encrypted_yet"] > before+20 })
	if hits, _ := watch.hits(canary); hits != 0 {
		t.Errorf("the canary was seen %d times", hits)
	}
}

// TestEncryptedUpgradeSecret looks for keys where they mustn't be: the keeper has no
// memory of them when the upgrade is over, and neither has the worker.
func TestEncryptedUpgradeSecret(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	for i := range f.hosts {
		f.upSealed(i+1, "psk_file: secret", map[string]string{"secret": sharedKey(1)})
	}
	f.meet(1, 2)
	one := f.hosts[0].node
	one.cli("upgrade")
	f.meet(1, 2)
	for _, pid := range []int{one.keeper.Process.Pid, one.workerPID()} {
		dir := fmt.Sprintf("/proc/%d/fd/", pid)
		fds, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if to, err := os.Readlink(dir + fd.Name()); err == nil && strings.Contains(to, "tapestry-keys") {
				t.Errorf("process %d has %s", pid, to)
			}
		}
	}
}
