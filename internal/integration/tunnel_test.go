package integration_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TestTwoHosts is one file, but for its ports, on two hosts: a network between
// them, over a restart of either worker, and as long as the tunnel is configured.
func TestTwoHosts(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	file := func(host, listen, port string) string {
		return fmt.Sprintf(`
host: %s
networks: {blue: {vlan: 10, vni: 10010, mtu: 1450}}
tunnel:
  listen: %s
  peers:
    h1: {address: 127.0.0.1:47891}
    h2: {address: 127.0.0.2:47892}
ports:
  %s
`, host, listen, port)
	}
	h1 := file("h1", "127.0.0.1:47891", "c1: {tap: {netns: "+a.Name()+", address: [10.1.0.2/24]}, access: blue}")
	n1 := start(t, h1)
	n2 := start(t, file("h2", "127.0.0.2:47892", "c2: {tap: {netns: "+b.Name()+", address: [10.1.0.3/24]}, access: blue}"))
	pingSoon := func(what string) {
		t.Helper()
		var err error
		var out string
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
			if out, err = a.Try("ping", "-c", "1", "-W", "1", "10.1.0.3"); err == nil {
				return
			}
		}
		t.Fatalf("%s: %v\n%s", what, err, out)
	}
	pingSoon("across")
	ping(t, a, "10.1.0.3", 5)
	ping(t, b, "10.1.0.2", 5)
	if err := syscall.Kill(n2.workerPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	pingSoon("after a worker's death")
	var s struct{ Drops map[string]uint64 }
	n1.json(&s, "stats")
	for _, why := range []string{"unknown_peer", "unknown_vni", "vni_not_allowed", "inner_short"} {
		if s.Drops[why] != 0 {
			t.Errorf("%d drops as %s", s.Drops[why], why)
		}
	}
	n1.write(`
host: h1
networks: {blue: {vlan: 10, vni: 10010, mtu: 1450}}
ports:
  c1: {tap: {netns: ` + a.Name() + `, address: [10.1.0.2/24]}, access: blue}
`)
	n1.cli("apply", "-c", n1.config)
	if out, err := a.Try("ping", "-c", "1", "-W", "1", "10.1.0.3"); err == nil {
		t.Errorf("ping goes through without a tunnel: %s", out)
	}
	n1.write(h1)
	n1.cli("apply", "-c", n1.config)
	pingSoon("with the tunnel back")
}
