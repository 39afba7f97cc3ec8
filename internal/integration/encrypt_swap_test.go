package integration_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// mingled is two hosts with an encrypted network red, where station 1 of each is,
// and a plain one, blue, where station 11 is.
type mingled struct {
	*fabric
	blue []*netnstest.NS
}

func newMingled(t *testing.T) *mingled {
	t.Helper()
	m := &mingled{fabric: newFabric(t, 2)}
	for i, h := range m.hosts {
		m.blue = append(m.blue, netnstest.New(t))
		h.node = prepare(t, m.file(i+1, "red: {vlan: 10, vni: 10010, encrypt: required}, blue: {vlan: 20, vni: 10020}", "red"))
		h.node.ns = h.underlay
		h.node.put(map[string]string{"secret": sharedKey(7)})
		h.node.up()
	}
	m.meet(1, 2)
	return m
}

// file is host i's, with station 1 in that network.
func (m *mingled) file(i int, networks, of string) string {
	return fmt.Sprintf(`host: h%[1]d
profile: lab
networks: {%[2]s}
ports:
  c: {tap: {netns: %[3]s, address: [10.1.0.%[1]d/24], mac: "02:00:00:00:00:%02[1]x"}, access: %[4]s}
  e: {tap: {netns: %[5]s, address: [10.1.0.1%[1]d/24], mac: "02:00:00:00:00:1%[1]x"}, access: blue}
tunnel:
  dtls: {psk_file: secret}
  peers: {h1: {address: 192.0.2.1}, h2: {address: 192.0.2.2}}
`, i, networks, m.hosts[i-1].container.Name(), of, m.blue[i-1].Name())
}

// apply gives host i another file, and reports the refusal.
func (m *mingled) apply(i int, networks, of, more string) error {
	n := m.hosts[i-1].node
	c := api.Dial(n.socket)
	defer c.Close()
	_, err := c.Apply(context.Background(), api.ApplyRequest{File: n.config, YAML: m.file(i, networks, of) + more})
	return err
}

// storm sends a text to all stations of a namespace's network, thousands of times
// a second, until the test ends.
func storm(t *testing.T, ns *netnstest.NS, text string) {
	t.Helper()
	var conn net.PacketConn
	ns.Do(func() (err error) {
		conn, err = listen("0.0.0.0:0", func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1) })
		return err
	})
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				_, _ = conn.WriteTo([]byte(text), &net.UDPAddr{IP: net.IPv4(10, 1, 0, 255), Port: sinkPort})
			}
		}
	}()
	t.Cleanup(func() {
		close(quit)
		<-done
		conn.Close()
	})
}

// overfull is a part of a file that is refused at the last moment: the switch has
// changed already when the table turns out to be too small for its static entries.
func overfull(network, port string) string {
	var b strings.Builder
	b.WriteString("fdb_limit: 1\nfdb:\n")
	for i := range 32 {
		fmt.Fprintf(&b, "  - {network: %s, mac: \"02:00:00:00:aa:%02x\", port: %s}\n", network, i, port)
	}
	return b.String()
}

// TestEncryptedNetworksMove gives the VLAN of an encrypted network to a plain one,
// again and again, while both are full of frames: none of the former is seen on
// the underlay, and none of either in the other.
func TestEncryptedNetworksMove(t *testing.T) {
	t.Parallel()
	const plain = "plaintext"
	m := newMingled(t)
	underlay := []*tap{m.tap(1), m.tap(2)}
	red := []*tap{tapOn(t, m.hosts[0].container), tapOn(t, m.hosts[1].container)}
	blue := []*tap{tapOn(t, m.blue[0]), tapOn(t, m.blue[1])}
	storm(t, m.hosts[0].container, canary)
	storm(t, m.blue[0], plain)
	heard := func(where string, taps []*tap, text string) {
		t.Helper()
		for i, w := range taps {
			if hits, n := w.hits(text); hits != 0 {
				t.Fatalf("%q was seen %d times in %d frames %s at host %d", text, hits, n, where, i+1)
			}
		}
	}
	for range 25 {
		for _, s := range []struct{ networks, of, more string }{
			{networks: "red: {vlan: 20, vni: 10010, encrypt: required}, blue: {vlan: 10, vni: 10020}", of: "red"},
			{networks: "green: {vlan: 20, vni: 10030}, blue: {vlan: 10, vni: 10020}, here: {vlan: 30}", of: "here"},
			{networks: "red: {vlan: 10, vni: 10010, encrypt: required}, blue: {vlan: 20, vni: 10020}", of: "red"},
			{networks: "red: {vlan: 10, vni: 10010}, blue: {vlan: 20, vni: 10020}", of: "red", more: overfull("blue", "e")},
		} {
			for i := range m.hosts {
				if err := m.apply(i+1, s.networks, s.of, s.more); (err != nil) != (s.more != "") {
					t.Fatalf("apply %s%s: %v", s.networks, s.more, err)
				} else if err != nil && !strings.Contains(err.Error(), "fdb_limit") {
					t.Fatalf("refused for another reason: %v", err)
				}
			}
			heard("on the underlay", underlay, canary)
			heard("in blue", blue, canary)
			heard("in red", red, plain)
		}
	}
	for _, w := range []struct {
		*tap
		text string
	}{{underlay[0], plain}, {blue[1], plain}, {red[1], canary}} {
		m.hosts[0].node.until(w.text+" arrives where it belongs", func() bool { hits, _ := w.hits(w.text); return hits > 100 })
	}
}
