package integration_test

import (
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/api"
)

// last is what a station says when no more canaries come.
const last = "no more"

// canaries sends frames with the canary from station i to station to and to all,
// hundreds a second, whatever becomes of them, until the test ends or the
// returned function is called, which waits until the last of them has passed
// both switches when there is somebody who hears them.
func (f *fabric) canaries(i, to int) (stop func(heard *sink)) {
	f.t.Helper()
	ns := f.hosts[i-1].container
	ns.Run("ip", "neigh", "replace", fmt.Sprintf("10.1.0.%d", to), "lladdr", fmt.Sprintf("02:00:00:00:00:%02x", to), "dev", "eth0", "nud", "permanent")
	var conn net.PacketConn
	ns.Do(func() (err error) {
		conn, err = listen("0.0.0.0:0", func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1) })
		return err
	})
	say := func(host byte, text string) {
		_, _ = conn.WriteTo([]byte(text), &net.UDPAddr{IP: net.IPv4(10, 1, 0, host), Port: sinkPort}) // refused while the port is away
	}
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
				say(byte(to), canary)
				say(255, canary)
			}
		}
	}()
	ended := false
	stop = func(heard *sink) {
		if ended {
			return
		}
		ended = true
		close(quit)
		<-done
		defer conn.Close()
		// Of one socket to one address nothing overtakes what went before.
		if heard != nil && !eventually(func() bool {
			say(byte(to), last+" for one")
			say(255, last+" for all")
			return heard.count(last+" for one") > 0 && heard.count(last+" for all") > 0
		}) {
			f.t.Error("the last canary isn't known to have passed")
		}
	}
	f.t.Cleanup(func() { stop(nil) })
	return stop
}

// closing is a fabric of two hosts whose network is encrypted, under canaries from
// the first to the second.
type closing struct {
	*fabric
	watch    []*tap
	heard    *sink // at the second
	one, two *node
	ca       *authority
	dtls     string // of both files
}

// closed demands that no canary was seen on the underlay so far.
func (c *closing) closed(when string) {
	c.t.Helper()
	for i, w := range c.watch {
		if hits, n := w.hits(canary); hits != 0 {
			c.t.Fatalf("%s: the canary was seen %d times in %d frames at host %d", when, hits, n, i+1)
		}
	}
}

// sent waits until more canaries have come to the first switch, wherever they go.
func (c *closing) sent(when string) {
	c.t.Helper()
	arrived := func() (n uint64) {
		for _, p := range asked(c.one, (*api.Client).Ports) {
			n += p.RX.Frames
		}
		return n
	}
	before := arrived()
	c.one.until(when+": frames come to the switch", func() bool { return arrived() > before+20 })
	c.closed(when)
}

// dropped waits until more canaries were dropped for want of a link.
func (c *closing) dropped(when string) {
	c.t.Helper()
	before := c.one.stats().Drops["not_encrypted_yet"]
	c.one.until(when+": frames are dropped as not_encrypted_yet", func() bool { return c.one.stats().Drops["not_encrypted_yet"] > before+20 })
	c.closed(when)
}

// through waits until more canaries have come to the second host's station.
func (c *closing) through(when string) {
	c.t.Helper()
	before := c.heard.count(canary)
	c.one.until(when+": frames come", func() bool { return c.heard.count(canary) > before+20 })
	c.closed(when)
}

// apply gives host i a file.
func (c *closing) apply(i int, text string) {
	c.t.Helper()
	n := c.hosts[i-1].node
	n.write(text)
	n.cli("apply", "-c", n.config)
}

// refused gives the first host a file that it must not take, and its own again.
func (c *closing) refused(text, why string) {
	c.t.Helper()
	c.one.write(text)
	if _, errs, code := c.one.try("apply", "-c", c.one.config); code == 0 || !strings.Contains(errs, why) {
		c.t.Errorf("apply: exit %d, want a refusal for %q: %s", code, why, errs)
	}
	c.one.write(c.sealedFile(1, c.dtls))
}

// TestEncryptedFailsClosed walks every fault while frames with a canary are sent:
// they go through as soon as there is a link, and never in clear.
func TestEncryptedFailsClosed(t *testing.T) {
	t.Parallel()
	c := &closing{fabric: newFabric(t, 2), ca: newAuthority(t, "fabric"), dtls: "cert: host.crt, key: host.key, ca: ca.crt"}
	c.watch = []*tap{c.tap(1), c.tap(2)}
	first, _ := c.ca.issue("h1", nil)
	second, cert2 := c.ca.issue("h2", nil)

	c.one = c.upSealed(1, c.dtls, first)
	alone := strings.Replace(c.sealedFile(1, c.dtls), "    h2: {address: "+underlayAddr(2, false)+"}\n", "", 1)
	c.apply(1, alone)
	c.heard = c.sink(2)
	stop := c.canaries(1, 2)
	c.sent("this host is the only member")
	c.apply(1, c.sealedFile(1, c.dtls))
	c.dropped("before the peer is up")
	c.two = c.upSealed(2, c.dtls, second)
	c.through("the peer is up")
	c.processes()
	c.credentials(cert2)
	c.configurations()
	stop(c.heard)
	c.offAndOn()
}

// processes ends and replaces those of both switches.
func (c *closing) processes() {
	c.t.Helper()
	c.two.kill()
	c.two.up()
	c.through("the peer was killed")
	if err := syscall.Kill(c.one.workerPID(), syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	c.through("the own worker was killed")
	c.one.cli("upgrade")
	c.through("the own worker was replaced")
	c.two.cli("upgrade")
	c.through("the peer's worker was replaced")
	c.one.kill()
	c.one.up()
	c.through("the own switch was killed")
}

// credentials changes those of the first host.
func (c *closing) credentials(cert2 *x509.Certificate) {
	c.t.Helper()
	other, _ := c.ca.issue("h1", nil)
	c.one.put(other)
	if out := c.one.cli("apply", "-c", c.one.config); !strings.Contains(out, "keys or certificates") {
		c.t.Errorf("apply with another certificate: %s", out)
	}
	c.through("the certificate was changed")
	if out := c.one.cli("apply", "-c", c.one.config); !strings.Contains(out, "no change") {
		c.t.Errorf("apply once more: %s", out)
	}
	stranger, _ := c.ca.issue("h9", nil)
	c.one.put(stranger)
	c.refused(c.sealedFile(1, c.dtls), "h9")
	c.through("another host's certificate was refused")
	c.one.put(other)

	c.one.put(map[string]string{"revoked.crl": c.ca.revoked(cert2)})
	c.apply(1, c.sealedFile(1, c.dtls+", crl: revoked.crl"))
	c.dropped("the peer's certificate was revoked")
	c.one.put(map[string]string{"revoked.crl": c.ca.revoked()})
	c.one.cli("apply", "-c", c.one.config)
	c.through("nothing is revoked any more")
	c.one.put(map[string]string{"revoked.crl": c.ca.revoked(cert2)})
	c.dropped("another revocation list was copied there")
	c.one.put(map[string]string{"revoked.crl": c.ca.revoked()})
	c.through("and one that revokes nothing")
	c.apply(1, c.sealedFile(1, c.dtls))
}

// configurations changes what the file says of peers, networks and links.
func (c *closing) configurations() {
	c.t.Helper()
	file := c.sealedFile(1, c.dtls)
	c.one.cli("peer", "rm", "h2")
	c.sent("the peer was removed")
	c.one.cli("peer", "add", "h2", "--address", underlayAddr(2, false))
	c.through("the peer was added again")

	c.refused(strings.Replace(file, "tunnel:\n  dtls: {"+c.dtls+"}", "tunnel:", 1), "add tunnel.dtls")
	c.through("a file without tunnel.dtls was refused")
	var taken net.PacketConn
	c.hosts[0].underlay.Do(func() (err error) { taken, err = net.ListenPacket("udp", "0.0.0.0:4799"); return err })
	moved := c.dtls + ", listen: \"0.0.0.0:4799\""
	c.refused(c.sealedFile(1, moved), "4799")
	taken.Close()
	c.through("a file whose address is in use was refused")
	c.apply(1, c.sealedFile(1, moved))
	c.apply(2, strings.Replace(c.sealedFile(2, c.dtls), underlayAddr(1, false), underlayAddr(1, false)+", dtls_port: 4799", 1))
	c.through("the links of the first host have moved")
	c.apply(1, file)
	c.apply(2, c.sealedFile(2, c.dtls))
	c.through("they have moved back")

	c.one.cli("detach", "netns:"+c.hosts[0].container.Name())
	c.apply(1, strings.Replace(strings.Replace(file, "networks: {blue: {vlan: 10, vni: 10010, encrypt: required}}", "networks: {}", 1),
		"tunnel:\n  dtls: {"+c.dtls+"}", "tunnel:", 1))
	c.closed("the network is gone, and tunnel.dtls too")
	c.apply(1, file)
	c.attach(1, 1)
	c.hosts[0].container.Run("ip", "neigh", "replace", "10.1.0.2", "lladdr", "02:00:00:00:00:02", "dev", "eth0", "nud", "permanent")
	c.through("the network is there again")
}

// offAndOn takes the encryption off both hosts, where the canary can be seen, and
// on again on the first.
func (c *closing) offAndOn() {
	c.t.Helper()
	for i := range c.hosts {
		c.apply(i+1, strings.Replace(c.sealedFile(i+1, c.dtls), ", encrypt: required", "", 1))
	}
	c.meet(1, 2)
	c.closed("encryption is off, and nobody sends a canary")
	ping(c.t, c.hosts[0].container, "10.1.0.2", 3, "-p", canaryHex)
	for i, w := range c.watch {
		if hits, n := w.hits(canary); hits < 6 {
			c.t.Fatalf("the canary in clear was seen %d times in %d frames at host %d: this test sees nothing", hits, n, i+1)
		}
		w.seen.Reset()
	}
	c.apply(1, c.sealedFile(1, c.dtls))
	c.canaries(1, 2)
	c.dropped("encryption is on here, off there")
	c.apply(2, c.sealedFile(2, c.dtls))
	c.through("encryption is on again")
}

// TestEncryptedRekey renews keys again and again under numbered frames: none is
// lost, none comes twice, and none of those with a canary leaves in clear.
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
	heard := f.sink(2)
	stop := f.canaries(1, 2)
	one.until("three renewals", func() bool { return one.peers()["h2"].Epoch >= begin+3 })
	stop(heard)
	flow.finish()
	if hits, n := watch.hits(canary); hits != 0 || n < 400 || heard.count(canary) == 0 {
		t.Errorf("the canary was seen %d times in %d frames, want none; %d have arrived", hits, n, heard.count(canary))
	}
	l := one.peers()["h2"].Link
	if l.RekeyAt != 400 || l.Handshakes < 4 || l.LastHandshake.IsZero() || l.Left == 0 {
		t.Errorf("link: %+v", l)
	}
	f.conserved()
}
