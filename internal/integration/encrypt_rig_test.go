package integration_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// sharedKey is a key file of 32 octets.
func sharedKey(octet byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{octet}, 32)) + "\n"
}

// sealedFile is host i's file: network blue is encrypted, with all hosts of the
// fabric for peers. dtls is what stands under tunnel.dtls.
func (f *fabric) sealedFile(i int, dtls string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "host: h%d\nnetworks: {blue: {vlan: 10, vni: 10010, encrypt: required}}\ntunnel:\n  dtls: {%s}\n  peers:\n", i, dtls)
	for j := range f.hosts {
		fmt.Fprintf(&b, "    h%d: {address: %s}\n", j+1, underlayAddr(j+1, false))
	}
	return b.String()
}

// upSealed starts host i with such a file, and those files beside it.
func (f *fabric) upSealed(i int, dtls string, files map[string]string) *node {
	f.t.Helper()
	h := f.hosts[i-1]
	h.node = prepare(f.t, f.sealedFile(i, dtls))
	h.node.ns = h.underlay
	h.node.put(files)
	h.node.up()
	f.attach(i, i)
	return h.node
}

// put writes files beside the switch's own, for nobody else to read.
func (n *node) put(files map[string]string) {
	n.t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
}

// refuses waits until the link to a peer has failed for that reason.
func (n *node) refuses(peer, reason string) {
	n.t.Helper()
	var l *api.Link
	n.until("no link to "+peer+": "+reason, func() bool {
		l = n.peers()[peer].Link
		return l != nil && !l.Up() && l.Reason == reason
	})
}

// tap sees every octet that crosses the interfaces of one namespace.
type tap struct {
	t    *testing.T
	fd   int
	seen bytes.Buffer
	n    int
}

// tap watches host i's underlay from now on.
func (f *fabric) tap(i int) *tap {
	f.t.Helper()
	return tapOn(f.t, f.hosts[i-1].underlay)
}

// tapOn watches all interfaces of a namespace from now on.
func tapOn(t *testing.T, ns *netnstest.NS) *tap {
	t.Helper()
	s := &tap{t: t, fd: -1}
	all := uint16(unix.ETH_P_ALL)
	ns.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all<<8|all>>8))
		if err == nil {
			err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		}
		return err
	})
	t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

// hits is how often the text was seen, of how many frames in all.
func (s *tap) hits(text string) (hits, frames int) {
	s.t.Helper()
	s.each(func(b []byte) {
		s.n++
		s.seen.Write(b)
		s.seen.WriteByte('\n')
	})
	return bytes.Count(s.seen.Bytes(), []byte(text)), s.n
}

// each calls f with every frame that was seen since the last call.
func (s *tap) each(f func(b []byte)) {
	s.t.Helper()
	for b := make([]byte, 1<<16); ; {
		n, _, err := unix.Recvfrom(s.fd, b, 0)
		if err == unix.EAGAIN {
			break
		}
		if err != nil && err != unix.ENETDOWN {
			s.t.Fatalf("watch the underlay: %v", err)
		}
		f(b[:max(n, 0)])
	}
	st, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil || st.Drops != 0 {
		s.t.Fatalf("watch the underlay: %d frames missed, error %v", st.Drops, err)
	}
}
