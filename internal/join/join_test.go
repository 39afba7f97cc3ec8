package join_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/join"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/pki"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// lines is a log that a test may read while it is written.
type lines struct {
	wrote chan struct{} // each line; bounded by what a test causes
	mu    sync.Mutex
	b     bytes.Buffer
}

func newLines() *lines { return &lines{wrote: make(chan struct{}, 1000)} }

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrote <- struct{}{}
	return l.b.Write(b)
}

// want waits for the next line and wants text in the log.
func (l *lines) want(t *testing.T, what, text string) {
	t.Helper()
	<-l.wrote
	if !strings.Contains(l.String(), text) {
		t.Errorf("%s: got no %q in\n%s", what, text, l)
	}
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rig is a CA whose token is being served over loopback.
type rig struct {
	t     *testing.T
	ca    *pki.CA
	token join.Token
	log   *lines
	stop  context.CancelFunc
	ended chan error // what Serve returned
	who   join.Joined
}

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.Init(filepath.Join(t.TempDir(), "ca"), "test CA")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	return ca
}

// serve makes a token and serves it until the test ends, which wants no
// goroutine to be left.
func serve(t *testing.T, ca *pki.CA, o join.Offer) *rig {
	t.Helper()
	t.Cleanup(func() {
		err := goleak.Find()
		for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); {
			err = goleak.Find()
		}
		if err != nil {
			t.Error(err)
		}
	})
	r := &rig{t: t, ca: ca, log: newLines(), ended: make(chan error, 1)}
	o.Listen, o.Log = "127.0.0.1:0", slog.New(slog.NewTextHandler(r.log, nil))
	if o.For == 0 {
		o.For = time.Minute
	}
	l, err := join.Listen(ca, o)
	if err != nil {
		t.Fatal(err)
	}
	r.token = l.Token()
	join.SetPenalty(l, time.Millisecond)
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	var all sync.WaitGroup
	all.Go(func() {
		who, err := l.Serve(ctx)
		r.who = who
		r.ended <- err
	})
	t.Cleanup(func() { stop(); all.Wait() })
	return r
}

// end waits until Serve returns, and wants this error.
func (r *rig) end(want error) {
	r.t.Helper()
	if err := <-r.ended; !errors.Is(err, want) {
		r.t.Errorf("serve: got error %v, want %v", err, want)
	}
	if c, err := net.Dial("tcp", r.token.Addresses[0].String()); err == nil {
		c.Close()
		r.t.Error("the listener is still open")
	}
	if list, err := join.Tokens(r.ca); err != nil || len(list) != 0 {
		r.t.Errorf("got tokens %v, %v, want none", list, err)
	}
}

// join uses a token in a new folder.
func (r *rig) join(tok join.Token, host string) (join.Result, error) {
	return join.Join(r.t.Context(), join.Order{Token: tok, Host: host, Dir: filepath.Join(r.t.TempDir(), "pki")})
}

// refused wants a host to be refused, and the log to say so once.
func (r *rig) refused(err error, want join.Refusal, why string) {
	r.t.Helper()
	e, ok := errors.AsType[*join.RefusedError](err)
	if !ok || e.Refusal != want || !strings.Contains(e.Why, why) {
		r.t.Errorf("got %v, want %s: %s", err, want, why)
	}
}

func TestJoin(t *testing.T) {
	ca := newCA(t)
	if _, err := ca.Issue(pki.Order{Host: "h1", Own: true}); err != nil {
		t.Fatal(err)
	}
	file, err := config.Parse("x", []byte(`
networks: {blue: {vni: 10010, encrypt: required}, local: {}}
ports: {c1: {tap: {netns: c1}, access: blue}}
tunnel:
  listen: 0.0.0.0:8472
  peers: {h9: {address: 192.0.2.9}}
  dtls: {cert: a, key: b, ca: c, rekey: {after: 1h}}
`))
	if err != nil {
		t.Fatal(err)
	}
	r := serve(t, ca, join.Offer{File: file})
	if list, err := join.Tokens(ca); err != nil || len(list) != 1 || list[0].ID != r.token.ID() || list[0].PID != os.Getpid() {
		t.Errorf("got tokens %v, %v", list, err)
	}
	got, err := r.join(r.token, "h2")
	if err != nil {
		t.Fatal(err)
	}
	r.end(nil)
	if r.who.Host != "h2" || r.who.Lost || r.who.Address != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("serve: got %+v", r.who)
	}
	if _, err := tls.LoadX509KeyPair(got.Cert, got.Key); err != nil {
		t.Error(err)
	}
	for _, p := range []string{got.Cert, got.Key, got.CA, got.CRL, got.File} {
		if info, err := os.Stat(p); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: got %v, %v, want mode 0600", p, info, err)
		}
	}
	text, err := os.ReadFile(got.File)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse(got.File, text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if c.Host != "h2" || len(c.Ports) != 0 || c.Networks["blue"].VNI != 10010 || c.Networks["local"] != nil || c.Tunnel.DTLS.Key != got.Key || c.Tunnel.Listen.Port() != 8472 {
		t.Errorf("got file\n%s", text)
	}
	if want := []string{"h1", "h9"}; !slices.Equal(got.Peers, want) {
		t.Errorf("got peers %v, want %v", got.Peers, want)
	}
	if a := netip.AddrPort(c.Tunnel.Peers["h1"].Address); a != netip.MustParseAddrPort("127.0.0.1:8472") {
		t.Errorf("got h1 at %v, want it where it was reached and its switch listens", a)
	}
	if ca.Folder().Has("h2.key") {
		t.Error("the CA has the key of h2")
	}
}

// TestUsedTwice wants the second host to find nobody.
func TestUsedTwice(t *testing.T) {
	r := serve(t, newCA(t), join.Offer{})
	if _, err := r.join(r.token, "h2"); err != nil {
		t.Fatal(err)
	}
	r.end(nil)
	if _, err := r.join(r.token, "h3"); !errors.Is(err, join.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

// TestRace has eight hosts use one token at once.
func TestRace(t *testing.T) {
	r := serve(t, newCA(t), join.Offer{})
	var all sync.WaitGroup
	var mu sync.Mutex
	joined := 0
	for i := range 8 {
		all.Go(func() {
			if _, err := r.join(r.token, "h"+string(rune('0'+i))); err == nil {
				mu.Lock()
				joined++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	r.end(nil)
	if list, err := r.ca.List(); err != nil || len(list) != 1 || joined != 1 {
		t.Errorf("got %d certificates, %v, and %d hosts that joined, want one", len(list), err, joined)
	}
}

func TestExpired(t *testing.T) {
	r := serve(t, newCA(t), join.Offer{For: time.Second})
	r.end(join.ErrExpired)
	// Its expiry is cut to a whole second, so the joining side knows too.
	if _, err := r.join(r.token, "h2"); !errors.Is(err, join.ErrExpired) {
		t.Errorf("got %v, want ErrExpired", err)
	}
	_, err := join.Listen(r.ca, join.Offer{Listen: "127.0.0.1:0"})
	if !errors.Is(err, pki.ErrInvalid) {
		t.Errorf("a token without a life: got %v, want ErrInvalid", err)
	}
}

func TestRemoved(t *testing.T) {
	r := serve(t, newCA(t), join.Offer{})
	if err := join.Remove(r.ca, r.token.ID()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.join(r.token, "h2"); err == nil { // even before the listener has noticed
		t.Error("a removed token was used")
	}
	r.end(join.ErrRemoved)
	for _, id := range []string{r.token.ID(), "", "../x", "0000000g"} {
		if err := join.Remove(r.ca, id); !errors.Is(err, pki.ErrNotFound) {
			t.Errorf("remove %q: got %v, want ErrNotFound", id, err)
		}
	}
}

func TestInterrupted(t *testing.T) {
	r := serve(t, newCA(t), join.Offer{})
	idle, err := net.Dial("tcp", r.token.Addresses[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	r.stop()
	r.end(context.Canceled)
}

// TestDeadToken leaves one behind as a killed process would.
func TestDeadToken(t *testing.T) {
	ca := newCA(t)
	if err := ca.Folder().Create("token-01234567.json", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if list, err := join.Tokens(ca); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v, want no token", list, err)
	}
	r := serve(t, ca, join.Offer{})
	if ca.Folder().Has("token-01234567.json") {
		t.Error("the dead token is still there")
	}
	r.stop()
	r.end(context.Canceled)
}

func TestTakenName(t *testing.T) {
	ca := newCA(t)
	if _, err := ca.Issue(pki.Order{Host: "h2"}); err != nil {
		t.Fatal(err)
	}
	r := serve(t, ca, join.Offer{})
	_, err := r.join(r.token, "h2")
	r.refused(err, join.Taken, "h2")
	if _, err := r.join(r.token, "h3"); err != nil { // the token isn't used up by that
		t.Error(err)
	}
	r.end(nil)
	if _, err := join.Listen(ca, join.Offer{Host: "h2", For: time.Minute, Listen: "127.0.0.1:0"}); !errors.Is(err, pki.ErrExists) {
		t.Errorf("a token for a taken name: got %v, want ErrExists", err)
	}
}

// TestNamedToken wants a token for one host to serve no other.
func TestNamedToken(t *testing.T) {
	r := serve(t, newCA(t), join.Offer{Host: "h2"})
	if _, err := r.join(r.token, "h3"); !errors.Is(err, pki.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	forged := r.token
	forged.Host = ""
	_, err := r.join(forged, "h3")
	r.refused(err, join.Denied, "for host h2")
	if got, err := r.join(r.token, ""); err != nil || got.Host != "h2" {
		t.Errorf("got %v, %v, want h2", got, err)
	}
	r.end(nil)
}

func TestRenew(t *testing.T) {
	ca, dir := newCA(t), filepath.Join(t.TempDir(), "pki")
	r := serve(t, ca, join.Offer{})
	first, err := join.Join(t.Context(), join.Order{Token: r.token, Host: "h2", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	r.end(nil)
	old, err := os.ReadFile(first.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first.File, []byte("host: h2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = serve(t, ca, join.Offer{Host: "h2", Renew: true})
	if _, err := join.Join(t.Context(), join.Order{Token: r.token, Dir: dir}); !errors.Is(err, pki.ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	got, err := join.Join(t.Context(), join.Order{Token: r.token, Dir: dir, Renew: true})
	if err != nil || !got.Kept {
		t.Errorf("got %+v, %v, want the file to be kept", got, err)
	}
	r.end(nil)
	renewed, err := os.ReadFile(got.Cert)
	if file, _ := os.ReadFile(got.File); err != nil || bytes.Equal(old, renewed) || string(file) != "host: h2\n" {
		t.Errorf("got the old certificate, %v, or file %q", err, file)
	}
}

// TestFolderOfAnother wants nothing to be replaced, and the token to be good
// for another try.
func TestFolderOfAnother(t *testing.T) {
	r, other := serve(t, newCA(t), join.Offer{}), newCA(t)
	dir := filepath.Join(t.TempDir(), "pki")
	f, err := pki.OpenFolder(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, _, err := other.Files()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Create("ca.crt", text); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Dir(r.ca.Folder().Path("x"))} {
		if _, err := join.Join(t.Context(), join.Order{Token: r.token, Host: "h2", Dir: d}); !errors.Is(err, pki.ErrExists) {
			t.Errorf("%s: got %v, want ErrExists", d, err)
		}
	}
	open := t.TempDir() // 0755
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := join.Join(t.Context(), join.Order{Token: r.token, Host: "h2", Dir: open}); !errors.Is(err, pki.ErrExposed) {
		t.Errorf("got %v, want ErrExposed", err)
	}
	if _, err := r.join(r.token, "h2"); err != nil {
		t.Error(err)
	}
	r.end(nil)
}

// TestLost has a host vanish before it has written its certificate, which has
// only the name that was granted, whatever the request for it said.
func TestLost(t *testing.T) {
	r := serve(t, newCA(t), join.Offer{})
	conn, err := tls.Dial("tcp", r.token.Addresses[0].String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(valid(t, r.token, conn.ConnectionState())); err != nil {
		t.Fatal(err)
	}
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	var reply struct{ Cert []byte }
	if err := json.Unmarshal(body, &reply); err != nil {
		t.Fatal(err)
	}
	if c, err := pki.ParseCertificate(reply.Cert); err != nil || !slices.Equal(c.DNSNames, []string{"h2"}) {
		t.Errorf("got %v, %v, want a certificate for h2", c, err)
	}
	conn.NetConn().Close()
	r.end(nil)
	if !r.who.Lost || r.who.Host != "h2" {
		t.Errorf("got %+v, want h2, lost", r.who)
	}
}

// TestRevokedHost takes a joined host back: its certificate is on the list.
func TestRevokedHost(t *testing.T) {
	r := serve(t, newCA(t), join.Offer{})
	got, err := r.join(r.token, "h2")
	if err != nil {
		t.Fatal(err)
	}
	r.end(nil)
	text, err := os.ReadFile(got.Cert)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCertificate(text)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.ca.Revoke("h2"); n != 1 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	_, crl, err := r.ca.Files()
	if err != nil {
		t.Fatal(err)
	}
	l, err := pki.ParseCRL(crl)
	if err != nil || !slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(cert.SerialNumber) == 0 }) {
		t.Errorf("got %v, %v, want serial number %x on it", l, err, cert.SerialNumber)
	}
}
