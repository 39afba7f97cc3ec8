package integration_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
)

// TestEncryptedPathMTU asserts that ports, path MTU and ICMP errors allow for the
// 37 octets of a record, on a path that gets narrower, too.
func TestEncryptedPathMTU(t *testing.T) {
	t.Parallel()
	const wide, path = 1500 - 50 - 37, 1400
	const narrow = path - 50 - 37
	f := newFabric(t, 2)
	for i := range f.hosts {
		f.upSealed(i+1, "psk_file: secret", map[string]string{"secret": sharedKey(1)})
	}
	one, two := f.hosts[0].node, f.hosts[1].node
	f.meet(1, 2)
	one.sees("h2")
	two.sees("h1")
	if out := f.hosts[0].container.Run("ip", "link", "show", "eth0"); !strings.Contains(out, fmt.Sprintf("mtu %d", wide)) {
		t.Errorf("the container's interface: %s, want MTU %d", out, wide)
	}
	ping(t, f.hosts[0].container, "10.1.0.2", 1, "-M", "do", "-s", fmt.Sprint(wide-28))

	f.lan.Wires[1].Set(wiretest.Link{Longest: 14 + path})
	one.until("h1 finds the path narrower", func() bool { return one.peers()["h2"].SealedMTU == narrow })
	two.until("h2 finds the path narrower", func() bool { return two.peers()["h1"].SealedMTU == narrow })
	ping(t, f.hosts[0].container, "10.1.0.2", 1, "-M", "do", "-s", fmt.Sprint(narrow-28))
	out, err := f.hosts[0].container.Try("ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", fmt.Sprint(narrow-27), "10.1.0.2")
	if want := fmt.Sprintf("Frag needed and DF set (mtu = %d)", narrow); err == nil || !strings.Contains(out, want) {
		t.Errorf("an octet too much: want %q: %v\n%s", want, err, out)
	}
	f.exchange(1, 2)
	f.exchange(2, 1)
	one.until("status tells", func() bool { return strings.Contains(one.cli("status"), fmt.Sprintf("packets of %d octets", narrow)) })
	f.conserved()
}
