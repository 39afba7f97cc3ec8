package dtls_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	piondtls "github.com/pion/dtls/v2"
	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// sink is a net.Conn that forgets what is written once the handshake is over.
type sink struct {
	net.Conn
	deaf bool
}

func (s *sink) Write(b []byte) (int, error) {
	if s.deaf {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

// benchmarkPion writes with the library alone, for comparison with Seal.
func benchmarkPion(b *testing.B, size int) {
	c := newCA(b)
	config := func(host string) *piondtls.Config {
		cert, key := c.issue(host, nil)
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			b.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(c.cert)
		return &piondtls.Config{
			Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: "b",
			CipherSuites: []piondtls.CipherSuiteID{piondtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		}
	}
	near, far := net.Pipe()
	server := make(chan *piondtls.Conn, 1)
	go func() {
		s, err := piondtls.ServerWithContext(context.Background(), far, config("b"))
		if err != nil {
			b.Error(err)
		}
		server <- s
	}()
	out := &sink{Conn: near}
	client, err := piondtls.ClientWithContext(context.Background(), out, config("a"))
	if err != nil {
		b.Fatal(err)
	}
	s := <-server
	out.deaf = true
	data := make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	_ = client.Close()
	_ = near.Close()
	_ = s.Close()
}

func BenchmarkPionWrite1400(b *testing.B) { benchmarkPion(b, 1400) }
func BenchmarkPionWrite64(b *testing.B)   { benchmarkPion(b, 64) }

// benchmarkLink seals and opens by links, as a tunnel does.
func benchmarkLink(b *testing.B, size int) {
	w, from, to := benchmarkUp(b)
	defer w.close()
	out, in := from.e.Link("b"), to.e.Link("a")
	var writer record.Writer
	var reader record.Reader
	buf := make([]byte, size+record.Overhead)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if !out.Reserve(&writer, 1) || !writer.Seal(record.ApplicationData, buf) {
			b.Fatal("not sealed")
		}
		if _, _, v := in.Open(&reader, from.addr, buf); v != dtls.Delivered {
			b.Fatal("not delivered")
		}
	}
}

func BenchmarkLinkSealOpen1400(b *testing.B) { benchmarkLink(b, 1400) }
func BenchmarkLinkSealOpen64(b *testing.B)   { benchmarkLink(b, 64) }

// benchmarkUp are two hosts with a link.
func benchmarkUp(b *testing.B) (w *wire, from, to *host) {
	b.Helper()
	w = newWire(b)
	w.record = false
	c := newCA(b)
	up := make(chan struct{}, 100)
	w.told = func(e dtls.Event) {
		if e.State.Encrypted() {
			up <- struct{}{}
		}
	}
	cred := map[string]*dtls.Credentials{"a": c.credentials("a"), "b": c.credentials("b")}
	to = w.host("b", dtls.Options{}, cred["b"], "a")
	from = w.host("a", dtls.Options{}, cred["a"], "b")
	<-up
	<-up
	return w, from, to
}

// BenchmarkHandshake is both sides of one, from nothing to keys in use, with
// everything that credentials, certificates and hosts cost besides left out.
func BenchmarkHandshake(b *testing.B) {
	w := newWire(b)
	w.record = false
	defer w.close()
	c := newCA(b)
	up := make(chan struct{}, 100)
	w.told = func(e dtls.Event) {
		if e.State == dtls.Established {
			up <- struct{}{}
		}
	}
	ca, cb := c.credentials("a"), c.credentials("b")
	from := w.host("a", dtls.Options{}, nil, "b")
	w.host("b", dtls.Options{}, cb, "a")
	before, n := processorTime(b), 0
	for b.Loop() {
		from.apply(ca, "b")
		<-up
		<-up
		from.apply(nil, "b")
		n++
	}
	b.ReportMetric(float64(processorTime(b)-before)/float64(2*n)/1e6, "cpu-ms/side")
}

// processorTime is what the process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
