package join_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/join"
)

// TestWrongSecret wants no number of wrong proofs to end a token.
func TestWrongSecret(t *testing.T) {
	r := serve(t, newCA(t), join.Offer{})
	const tries = 20
	for range tries {
		_, err := r.join(join.WithSecret(r.token, 0x80), "h2")
		r.refused(err, join.Denied, "secret is wrong")
	}
	if _, err := r.join(r.token, "h2"); err != nil {
		t.Error(err)
	}
	r.end(nil)
	if n := strings.Count(r.log.String(), "secret is wrong"); n != tries {
		t.Errorf("got %d lines, want %d:\n%s", n, tries, r.log)
	}
}

// idle opens n connections that say nothing from an address of this machine.
func (r *rig) idle(n int, from string) (all []net.Conn) {
	r.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	for range n {
		c, err := d.DialContext(r.t.Context(), "tcp", r.token.Addresses[0].String())
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { c.Close() })
		all = append(all, c)
	}
	return all
}

// TestIdleCrowd has more silent connections than there is room for, from the
// joining host's own address and from many: it joins all the same.
func TestIdleCrowd(t *testing.T) {
	for name, sources := range map[string][]string{
		"one address":    {"127.0.0.1"},
		"many addresses": {"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8", "127.0.0.9", "127.0.0.10", "127.0.0.11"},
	} {
		t.Run(name, func(t *testing.T) {
			r := serve(t, newCA(t), join.Offer{})
			for _, from := range sources {
				r.idle(100/len(sources), from)
			}
			if _, err := r.join(r.token, "h2"); err != nil {
				t.Error(err)
			}
			r.end(nil)
			if !strings.Contains(r.log.String(), "made room") {
				t.Errorf("nobody made room:\n%s", r.log)
			}
		})
	}
}

// TestCrowdElsewhere wants a crowd at one address to take no room from another's.
func TestCrowdElsewhere(t *testing.T) {
	r := serve(t, newCA(t), join.Offer{})
	early := r.idle(1, "127.0.0.2")[0]
	r.idle(200, "127.0.0.3")
	r.idle(200, "127.0.0.4")
	conn := tls.Client(early, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatalf("the first of all: %v", err)
	}
	if _, err := conn.Write(valid(t, r.token, conn.ConnectionState())); err != nil {
		t.Fatal(err)
	}
	_ = conn.CloseWrite()
	_, _ = io.ReadAll(conn)
	r.end(nil)
	if r.who.Host != "h2" {
		t.Errorf("got %+v, want h2", r.who)
	}
}
