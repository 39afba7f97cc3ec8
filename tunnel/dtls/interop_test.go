package dtls_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

const (
	ourPort     = 4788
	opensslPort = 4789
	patience    = 20 * time.Second
)

// vxlanFrame looks like what a tunnel sends, and holds what a terminal program
// would take for commands.
func vxlanFrame(n int) []byte {
	b := []byte{8, 0, 0, 0, 0, 0x27, 0x1a, 0}
	b = append(b, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00\nQ\nR\n"...)
	return append(b, bytes.Repeat([]byte{byte(n)}, 1300)...)
}

// udpEnd is an endpoint on a real socket with one peer, who may be at any port.
type udpEnd struct {
	t    *testing.T
	conn *net.UDPConn
	e    *dtls.Endpoint
	got  chan []byte
	up   chan struct{}
}

func newUDPEnd(t *testing.T, c *dtls.Credentials) *udpEnd {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: ourPort})
	if err != nil {
		t.Fatal(err)
	}
	u := &udpEnd{t: t, conn: conn, got: make(chan []byte, 100), up: make(chan struct{}, 100)}
	u.e, err = dtls.New(dtls.Options{
		Host: "a",
		Send: func(to netip.AddrPort, b []byte) error { _, err := conn.WriteToUDPAddrPort(b, to); return err },
		Events: func(ev dtls.Event) {
			if ev.State.Encrypted() {
				u.up <- struct{}{}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	peer := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), opensslPort)
	if err := u.e.Apply(c, []dtls.Peer{{Name: "b", Address: peer}}); err != nil {
		t.Fatal(err)
	}
	link := u.e.Link("b")
	done := make(chan struct{})
	go func() {
		defer close(done)
		var r record.Reader
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for b := buf[:n]; len(b) > 0; {
				plain, rest, v := link.Open(&r, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), b)
				if v == dtls.Delivered {
					u.got <- bytes.Clone(plain)
				}
				b = rest
			}
		}
	}()
	t.Cleanup(func() {
		_ = u.e.Close()
		_ = conn.Close()
		<-done
	})
	return u
}

// exchange sends frames both ways with the program behind stdin and stdout. The
// program begins: as a server we send nothing before we have heard something.
func (u *udpEnd) exchange(stdin io.Writer, stdout io.Reader) {
	u.t.Helper()
	link := u.e.Link("b")
	var w record.Writer
	for i := range 20 {
		want := vxlanFrame(i)
		if _, err := stdin.Write(want); err != nil {
			u.t.Fatal(err)
		}
		select {
		case got := <-u.got:
			if !bytes.Equal(got, want) {
				u.t.Fatalf("frame %d from openssl: %q", i, got)
			}
		case <-time.After(patience):
			u.t.Fatalf("no frame %d from openssl: %+v", i, link.Status())
		}
		if i == 0 {
			u.await()
		}
		b := make([]byte, len(want)+record.Overhead)
		copy(b[record.Headroom:], want)
		if !link.Reserve(&w, 1) || !w.Seal(record.ApplicationData, b) {
			u.t.Fatalf("frame %d: not sealed: %+v", i, link.Status())
		}
		if _, err := u.conn.WriteToUDPAddrPort(b, link.Status().Address); err != nil {
			u.t.Fatal(err)
		}
		if got, err := readFrame(stdout, len(want)); err != nil || !bytes.Equal(got, want) {
			u.t.Fatalf("frame %d at openssl: %v, %q", i, err, got)
		}
	}
}

// await waits for the link.
func (u *udpEnd) await() {
	u.t.Helper()
	select {
	case <-u.up:
		u.up <- struct{}{}
	case <-time.After(patience):
		u.t.Fatalf("no link: %+v", u.e.Link("b").Status())
	}
}

// readFrame reads n octets, past keepalives.
func readFrame(r io.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	for {
		if _, err := io.ReadFull(r, b[:8]); err != nil {
			return nil, err
		}
		if !bytes.Equal(b[:8], []byte{8, 0, 0, 0, 0, 0, 0, 0}) {
			_, err := io.ReadFull(r, b[8:])
			return b, err
		}
	}
}

// openssl starts the program; stop ends it.
func openssl(t *testing.T, args ...string) (stdin io.WriteCloser, stdout io.Reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	cmd := exec.CommandContext(ctx, "openssl", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("openssl %s: %s", strings.Join(args, " "), stderr.String())
		}
	})
	return in, out
}

// TestOpenSSL does the handshake with openssl in both roles, with certificates
// and with a shared key, and exchanges frames.
func TestOpenSSL(t *testing.T) {
	netnstest.Require(t, "netns", "openssl")
	dir := t.TempDir()
	c := newCA(t)
	cert, key := c.issue("b", nil)
	file := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	withCert := []string{"-cert", file("b.crt", cert), "-key", file("b.key", key), "-CAfile", file("ca.crt", c.pem())}
	psk := strings.Repeat("07", 32)
	for _, test := range []struct {
		name           string
		credentials    *dtls.Credentials
		server, client []string
		cipher         record.Suite
	}{
		{
			"AES-128 certificates", c.credentials("a"),
			append([]string{"-Verify", "2", "-verify_return_error", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"}, withCert...),
			append([]string{"-verify_return_error", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"}, withCert...), record.ECDHEWithAES128GCM,
		},
		{
			"AES-256 certificates", c.credentials("a"),
			append([]string{"-Verify", "2", "-verify_return_error", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"}, withCert...),
			append([]string{"-verify_return_error", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"}, withCert...), record.ECDHEWithAES256GCM,
		},
		{
			"shared key", shared(t, 7),
			[]string{"-nocert", "-psk", psk, "-cipher", "PSK-AES128-GCM-SHA256"},
			[]string{"-psk", psk, "-psk_identity", "b", "-cipher", "PSK-AES128-GCM-SHA256"}, record.PSKWithAES128GCM,
		},
	} {
		t.Run(test.name+", openssl serves", func(t *testing.T) {
			in, out := openssl(t, append([]string{"s_server", "-dtls1_2", "-quiet", "-accept", fmt.Sprintf("127.0.0.1:%d", opensslPort)}, test.server...)...)
			u := newUDPEnd(t, test.credentials)
			u.await() // what the program reads before, it forgets
			u.exchange(in, out)
			if got := u.e.Link("b").Status().Cipher; got != test.cipher.String() {
				t.Errorf("cipher %s, want %v", got, test.cipher)
			}
		})
		t.Run(test.name+", openssl is the client", func(t *testing.T) {
			u := newUDPEnd(t, test.credentials)
			in, out := openssl(t, append([]string{"s_client", "-dtls1_2", "-quiet", "-connect", fmt.Sprintf("127.0.0.1:%d", ourPort)}, test.client...)...)
			u.exchange(in, out)
		})
	}
	t.Run("DTLS 1.0 and weak suites are refused", func(t *testing.T) {
		u := newUDPEnd(t, c.credentials("a"))
		for _, args := range [][]string{
			{"-dtls1", "-cipher", "ALL:@SECLEVEL=0"},
			{"-dtls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA"},
			{"-dtls1_2", "-cipher", "ECDHE-ECDSA-AES128-CCM"},
		} {
			cmd := netnstest.Command(t, append(append([]string{"openssl", "s_client", "-connect", fmt.Sprintf("127.0.0.1:%d", ourPort)}, args...), withCert...)...)
			if out, err := cmd.CombinedOutput(); err == nil || u.e.Link("b").Status().State.Encrypted() {
				t.Errorf("openssl %v: a link: %s", args, out)
			}
		}
		got := u.e.Link("b").Status().Failure.Reason
		if got != dtls.WeakSuite && got != dtls.WrongVersion {
			t.Errorf("reason %v", got)
		}
	})
}

// TestTsharkDecrypts gives a capture and the key log to tshark, which reads the
// frames, those after a renewal of the keys too.
func TestTsharkDecrypts(t *testing.T) {
	netnstest.Require(t, "tshark")
	w := newWire(t)
	defer w.close()
	c := newCA(t)
	up := make(chan struct{}, 100)
	cred := map[string]*dtls.Credentials{"a": c.credentials("a"), "b": c.credentials("b")}
	a := w.host("a", dtls.Options{}, cred["a"], "b")
	var log bytes.Buffer
	a.e.SetKeyLog(&log)
	b := w.host("b", dtls.Options{}, cred["b"], "a")
	wait := func(f func() bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !f(); {
			if time.Now().After(deadline) {
				t.Fatalf("no link: %+v", a.status("b"))
			}
			select {
			case <-up:
			case <-time.After(time.Millisecond):
			}
		}
	}
	wait(func() bool { return a.status("b").State.Encrypted() && b.status("a").State.Encrypted() })
	a.say("b", "first keys")
	b.stop()
	b = w.host("b", dtls.Options{}, cred["b"], "a")
	wait(func() bool { return a.status("b").Generation == 2 && b.status("a").State.Encrypted() })
	a.say("b", "second keys")
	a.e.SetKeyLog(nil)

	dir := t.TempDir()
	pcap, keys := filepath.Join(dir, "wire.pcap"), filepath.Join(dir, "keys.log")
	if err := os.WriteFile(keys, log.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	writePcap(t, pcap, w)
	out, err := netnstest.Command(t, "tshark", "-r", pcap, "-d", "udp.port==4788,dtls", "-o", "tls.keylog_file:"+keys,
		"-Y", "dtls.app_data", "-T", "fields", "-e", "data.data", "-e", "dtls.app_data").CombinedOutput()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, out)
	}
	for _, text := range []string{"first keys", "second keys"} {
		if !strings.Contains(string(out), fmt.Sprintf("%x", canary+text)) {
			t.Errorf("tshark doesn't show %q: %s", text, out)
		}
	}
}

// writePcap writes what the wire has carried.
func writePcap(t *testing.T, path string, w *wire) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := pcapgo.NewWriter(f)
	if err := p.WriteFileHeader(1<<16, layers.LinkTypeRaw); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range w.log {
		ip := &layers.IPv4{
			Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP,
			SrcIP: addresses[s.from].Addr().AsSlice(), DstIP: addresses[s.to].Addr().AsSlice(),
		}
		udp := &layers.UDP{SrcPort: 4788, DstPort: 4788}
		if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		b := gopacket.NewSerializeBuffer()
		o := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
		if err := gopacket.SerializeLayers(b, o, ip, udp, gopacket.Payload(s.b)); err != nil {
			t.Fatal(err)
		}
		n := len(b.Bytes())
		if err := p.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: n, Length: n}, b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
}
