package tunnel_test

import (
	"fmt"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

// talk pings and transfers both ways between stations 1, in a, and 2, in b.
func talk(t *testing.T, a, b *netnstest.NS) {
	t.Helper()
	for _, d := range []struct {
		from, to *netnstest.NS
		v4, v6   string
	}{{a, b, "10.1.0.2", "fd00::2"}, {b, a, "10.1.0.1", "fd00::1"}} {
		d.from.Run("ping", "-c", "2", "-i", "0.01", "-W", "5", d.v4)
		d.from.Run("ping", "-c", "2", "-i", "0.01", "-W", "5", "-s", "1300", d.v6)
		for _, addr := range []string{d.v4 + ":7", "[" + d.v6 + "]:7"} {
			if err := transfer(d.from, d.to, addr, 1<<20); err != nil {
				t.Errorf("to %s: %v", addr, err)
			}
		}
	}
}

// TestTalk is tapestry at both ends.
func TestTalk(t *testing.T) {
	for _, at := range [][2]string{{"192.0.2.1:4789", "192.0.2.2:4789"}, {"[2001:db8::1]:8472", "[2001:db8::2]:8472"}} {
		t.Run(at[0], func(t *testing.T) {
			uA, uB := underlay(t, 1500)
			nsA, qA := container(t, 1, 1430)
			nsB, qB := container(t, 2, 1430)
			a, b := newHost(t, uA, at[0], qA, nil), newHost(t, uB, at[1], qB, nil)
			a.peer(at[1])
			b.peer(at[0])
			talk(t, nsA, nsB)
			until(t, "both peers to be up", func() bool {
				return a.tun.Status()[0].State == tunnel.Up && !a.tun.Status()[0].Passive && b.tun.Status()[0].State == tunnel.Up
			})
			a.conserve()
			b.conserve()
			if n := a.tun.Refused(); n != (tunnel.Drops{}) {
				t.Errorf("refused: %v", n)
			}
		})
	}
}

// kernelVTEP is the kernel's VXLAN device and bridge in u, and a container on it.
func kernelVTEP(t *testing.T, u *netnstest.NS, local, remote string, port int, options ...string) *netnstest.NS {
	t.Helper()
	u.Run("ip", "link", "add", "br0", "type", "bridge")
	u.Run(append([]string{"ip", "link", "add", "vx0", "type", "vxlan", "id", fmt.Sprint(blueVNI), "local", local, "remote", remote, "dstport", fmt.Sprint(port)}, options...)...)
	c := netnstest.New(t)
	u.Run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", c.Name())
	for _, name := range []string{"vx0", "v0"} {
		u.Run("ip", "link", "set", name, "master", "br0", "up")
	}
	u.Run("ip", "link", "set", "br0", "up")
	c.Run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:02", "mtu", "1430", "up")
	c.Run("ip", "addr", "add", "10.1.0.2/24", "dev", "eth0")
	c.Run("ip", "-6", "addr", "add", "fd00::2/64", "dev", "eth0", "nodad")
	return c
}

func TestKernelVTEP(t *testing.T) {
	for _, c := range []struct {
		name          string
		local, remote string
		port          int
		options       []string
		plain         bool
	}{
		{"ipv4", "192.0.2.1", "192.0.2.2", 4789, []string{"udpcsum"}, false},
		{"ipv4 no checksum", "192.0.2.1", "192.0.2.2", 8472, []string{"noudpcsum"}, true},
		{"ipv6", "2001:db8::1", "2001:db8::2", 4789, nil, false},
		{"ipv6 no checksum", "2001:db8::1", "2001:db8::2", 8472, []string{"udp6zerocsumtx", "udp6zerocsumrx"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			uA, uB := underlay(t, 1500)
			nsA, q := container(t, 1, 1430)
			at := func(a string) string {
				if len(c.local) > 9 {
					a = "[" + a + "]"
				}
				return fmt.Sprintf("%s:%d", a, c.port)
			}
			h := newHost(t, uA, at(c.local), q, func(o *tunnel.Options) { o.NoChecksum = c.plain })
			h.nets[0].MTU = 1430
			id := h.peer(at(c.remote))
			nsB := kernelVTEP(t, uB, c.remote, c.local, c.port, c.options...)
			talk(t, nsA, nsB)
			if st := h.tun.Status()[0]; st.ID != id {
				t.Errorf("status of port %d, want %d", st.ID, id)
			}
			until(t, "the kernel's VTEP to be up and passive", func() bool {
				st := h.tun.Status()[0]
				return st.State == tunnel.Up && st.Passive
			})
			for why, n := range h.tun.Refused() {
				if n > 0 {
					t.Errorf("%d refused as %v", n, frame.Reason(why))
				}
			}
			h.conserve()
		})
	}
}
