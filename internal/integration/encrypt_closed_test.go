package integration_test

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// canaries sends frames with the canary from station i to station to and to all,
// hundreds a second, whatever becomes of them, until the test ends or the
// returned function is called.
func (f *fabric) canaries(i, to int) (stop func()) {
	f.t.Helper()
	ns := f.hosts[i-1].container
	ns.Run("ip", "neigh", "replace", fmt.Sprintf("10.1.0.%d", to), "lladdr", fmt.Sprintf("02:00:00:00:00:%02x", to), "dev", "eth0", "nud", "permanent")
	var conn net.PacketConn
	ns.Do(func() (err error) {
		conn, err = listen("0.0.0.0:0", func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1) })
		return err
	})
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(3 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				for _, addr := range []net.IP{net.IPv4(10, 1, 0, byte(to)), net.IPv4(10, 1, 0, 255)} {
					_, _ = conn.WriteTo([]byte(canary), &net.UDPAddr{IP: addr, Port: sinkPort}) // refused while the port is away
				}
			}
		}
	}()
	ended := false
	stop = func() {
		if !ended {
			ended = true
			close(quit)
			<-done
			conn.Close()
		}
	}
	f.t.Cleanup(stop)
	return stop
}

// TestEncryptedFailsClosed walks every fault while frames with a canary are sent:
// they go through as soon as there is a link, and never in clear.
func TestEncryptedFailsClosed(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	watch := []*tap{f.tap(1), f.tap(2)}
	ca := newAuthority(t, "fabric")
	const dtls = "cert: host.crt, key: host.key, ca: ca.crt"
	one, two := f.hosts[0], f.hosts[1]
	first, _ := ca.issue("h1", nil)
	second, cert2 := ca.issue("h2", nil)

	f.upSealed(1, dtls, first)
	heard := f.sink(2)
	stop := f.canaries(1, 2)
	closed := func(when string) {
		t.Helper()
		for i, w := range watch {
			if hits, n := w.hits(canary); hits != 0 {
				t.Fatalf("%s: the canary was seen %d times in %d frames at host %d", when, hits, n, i+1)
			}
		}
	}
	dropped := func(when string) {
		t.Helper()
		before := one.node.stats().Drops["not_encrypted_yet"]
		one.node.until(when+": frames are dropped as not_encrypted_yet", func() bool { return one.node.stats().Drops["not_encrypted_yet"] > before+20 })
		closed(when)
	}
	through := func(when string) {
		t.Helper()
		before := heard.count(canary)
		one.node.until(when+": frames come", func() bool { return heard.count(canary) > before+20 })
		closed(when)
	}
	dropped("before the peer is up")
	f.upSealed(2, dtls, second)
	through("the peer is up")
	two.node.kill()
	two.node.up()
	through("the peer was killed")
	if err := syscall.Kill(one.node.workerPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	through("the own worker was killed")
	one.node.cli("upgrade")
	through("the own worker was replaced")
	two.node.cli("upgrade")
	through("the peer's worker was replaced")

	other, _ := ca.issue("h1", nil)
	one.node.put(other)
	if out := one.node.cli("apply", "-c", one.node.config); !strings.Contains(out, "keys or certificates") {
		t.Errorf("apply with another certificate: %s", out)
	}
	through("the certificate was changed")
	if out := one.node.cli("apply", "-c", one.node.config); !strings.Contains(out, "no change") {
		t.Errorf("apply once more: %s", out)
	}

	one.node.cli("peer", "rm", "h2")
	one.node.cli("peer", "add", "h2", "--address", underlayAddr(2, false))
	through("the peer was removed and added again")

	one.node.put(map[string]string{"revoked.crl": ca.revoked(cert2)})
	one.node.write(f.sealedFile(1, dtls+", crl: revoked.crl"))
	one.node.cli("apply", "-c", one.node.config)
	dropped("the peer's certificate was revoked")
	one.node.put(map[string]string{"revoked.crl": ca.revoked()})
	one.node.cli("apply", "-c", one.node.config)
	through("nothing is revoked any more")

	stop()
	f.encryptOffAndOn(dtls, closed)
	f.canaries(1, 2)
	dropped("encryption is on here, off there")
	two.node.write(f.sealedFile(2, dtls))
	two.node.cli("apply", "-c", two.node.config)
	through("encryption is on again")
}

// encryptOffAndOn takes the encryption off two hosts, and on again on the first.
func (f *fabric) encryptOffAndOn(dtls string, closed func(string)) {
	f.t.Helper()
	for i, h := range f.hosts {
		h.node.until("nothing is under way", func() bool { return !strings.Contains(h.node.cli("port", "ls"), canary) })
		h.node.write(strings.Replace(f.sealedFile(i+1, dtls), ", encrypt: required", "", 1))
		h.node.cli("apply", "-c", h.node.config)
	}
	f.meet(1, 2)
	closed("encryption is off, and nobody sends a canary")
	f.hosts[0].node.write(f.sealedFile(1, dtls))
	f.hosts[0].node.cli("apply", "-c", f.hosts[0].node.config)
}

// TestEncryptedRekey renews keys again and again under numbered frames: none is
// lost, none comes twice.
func TestEncryptedRekey(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 2)
	watch := f.tap(1)
	for i := range f.hosts {
		f.upSealed(i+1, "psk_file: secret, rekey: {records: 400}", map[string]string{"secret": sharedKey(3)})
	}
	f.meet(1, 2)
	flow := startFlow(t, f.hosts[0].container, f.hosts[1].container, "10.1.0.2")
	one := f.hosts[0].node
	begin := one.peers()["h2"].Epoch
	one.until("three renewals", func() bool { return one.peers()["h2"].Epoch >= begin+3 })
	flow.finish()
	if _, n := watch.hits(canary); n == 0 {
		t.Error("nothing was seen on the underlay")
	}
	l := one.peers()["h2"].Link
	if l.RekeyAt != 400 || l.Handshakes < 4 || l.LastHandshake.IsZero() || l.Left == 0 {
		t.Errorf("link: %+v", l)
	}
	f.conserved()
}
