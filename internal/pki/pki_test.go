package pki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/internal/pki"
)

// newCA is a CA in a folder of its own.
func newCA(t testing.TB) *pki.CA {
	t.Helper()
	ca, err := pki.Init(filepath.Join(t.TempDir(), "pki"), "test CA")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	return ca
}

// issue makes a host's certificate and reads it back.
func issue(t testing.TB, ca *pki.CA, o pki.Order) (pki.Issued, *x509.Certificate) {
	t.Helper()
	i, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return i, read(t, ca, o.Host+".crt")
}

func read(t testing.TB, ca *pki.CA, name string) *x509.Certificate {
	t.Helper()
	text, err := ca.Folder().Read(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pki.ParseCertificate(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantIs wants an error that is one of the sentinels.
func wantIs(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %q", what, err, want)
	}
}

func TestInit(t *testing.T) {
	ca := newCA(t)
	c := ca.Certificate()
	if !c.IsCA || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || c.Subject.CommonName != "test CA" {
		t.Errorf("got CA certificate %+v", c)
	}
	names, err := ca.Folder().Names()
	if want := []string{"ca.crt", "ca.key", "issued.json", "lock", "revoked.crl"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("got files %v, %v, want %v", names, err, want)
	}
	_, crl, err := ca.Files()
	if err != nil {
		t.Fatal(err)
	}
	l, err := pki.ParseCRL(crl)
	if err != nil || l.CheckSignatureFrom(c) != nil || len(l.RevokedCertificateEntries) != 0 || l.Number.Int64() != 1 {
		t.Errorf("got list %+v, %v, want an empty one, number 1, signed by the CA", l, err)
	}
	again, err := pki.Open(filepath.Dir(ca.Folder().Path("x")))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Fingerprint() != ca.Fingerprint() {
		t.Error("opened again, the CA has another fingerprint")
	}
	_, err = pki.Init(filepath.Dir(ca.Folder().Path("x")), "other")
	wantIs(t, "init twice", err, pki.ErrExists)
	_, err = pki.Open(t.TempDir() + "/none")
	wantIs(t, "open nothing", err, pki.ErrNotFound)
	for _, name := range []string{"", "a\x1bb", strings.Repeat("x", 65), "\xff"} {
		_, err := pki.Init(filepath.Join(t.TempDir(), "pki"), name)
		wantIs(t, fmt.Sprintf("CA name %q", name), err, pki.ErrInvalid)
	}
}

func TestIssue(t *testing.T) {
	ca := newCA(t)
	i, c := issue(t, ca, pki.Order{Host: "h128", Life: 48 * time.Hour})
	if !slices.Equal(c.DNSNames, []string{"h128"}) || c.IsCA || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}) {
		t.Errorf("got names %v, CA %v, usage %v", c.DNSNames, c.IsCA, c.ExtKeyUsage)
	}
	if got := c.NotAfter.Sub(c.NotBefore); got != 48*time.Hour+5*time.Minute {
		t.Errorf("got a life of %v, want 48h and 5m before", got)
	}
	if got := fmt.Sprintf("%032x", c.SerialNumber); got != i.Serial || len(got) != 32 {
		t.Errorf("got serial number %s in the index, %s in the certificate", i.Serial, got)
	}
	if _, err := tls.LoadX509KeyPair(ca.Folder().Path("h128.crt"), ca.Folder().Path("h128.key")); err != nil {
		t.Error(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, DNSName: "h128", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	_, err := ca.Issue(pki.Order{Host: "h128"})
	wantIs(t, "a taken name", err, pki.ErrExists)
	_, renewed := issue(t, ca, pki.Order{Host: "h128", Renew: true})
	if renewed.Equal(c) {
		t.Error("renewed, the certificate is as it was")
	}
	_, err = ca.Issue(pki.Order{Host: "h1", Life: -time.Second})
	wantIs(t, "a life in the past", err, pki.ErrInvalid)
	_, long := issue(t, ca, pki.Order{Host: "h1", Life: 1 << 62})
	if long.NotAfter.After(ca.Certificate().NotAfter) {
		t.Errorf("got end %v after the CA's %v", long.NotAfter, ca.Certificate().NotAfter)
	}
}

// TestPrivate wants every file to be its owner's alone, and what isn't refused.
func TestPrivate(t *testing.T) {
	ca := newCA(t)
	issue(t, ca, pki.Order{Host: "h1"})
	dir := filepath.Dir(ca.Folder().Path("x"))
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		mode fs.FileMode
	}{{dir + "/ca.key", 0o640}, {dir + "/ca.key", 0o604}, {dir, 0o750}, {dir, 0o701}} {
		before, err := os.Stat(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(c.path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err = pki.Open(dir)
		wantIs(t, fmt.Sprintf("%s with mode %v", c.path, c.mode), err, pki.ErrExposed)
		if err := os.Chmod(c.path, before.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNames(t *testing.T) {
	ca := newCA(t)
	for _, host := range []string{"", ".", "..", "../x", "a/b", "/etc", "A", "-a", "a..b", "ca", "a\x00", "a\n", "é", strings.Repeat("a", 64)} {
		_, err := ca.Issue(pki.Order{Host: host})
		wantIs(t, fmt.Sprintf("issue %q", host), err, pki.ErrInvalid)
		_, err = ca.Revoke(host)
		wantIs(t, fmt.Sprintf("revoke %q", host), err, pki.ErrInvalid)
	}
	for _, host := range []string{"a", "0", "h128", "a.b-c_d", "revoked", "issued", "lock", strings.Repeat("a", 63)} {
		issue(t, ca, pki.Order{Host: host})
	}
}

// TestForeignFiles wants files that the CA hasn't made to stay.
func TestForeignFiles(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	issue(t, other, pki.Order{Host: "h1"})
	theirs, err := other.Folder().Read("h1.crt")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"h1.crt": string(theirs), "h2.crt": "mine", "h3.key": "mine"} {
		if err := ca.Folder().Create(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
		_, err := ca.Issue(pki.Order{Host: name[:2], Renew: true})
		wantIs(t, name, err, pki.ErrExists)
		if got, err := ca.Folder().Read(name); err != nil || string(got) != text {
			t.Errorf("%s: got %q, %v, want it as it was", name, got, err)
		}
	}
	if list, err := ca.List(); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v, want nothing to be issued", list, err)
	}
	// A link in place of a key isn't followed.
	if err := os.Remove(ca.Folder().Path("ca.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other.Folder().Path("ca.key"), ca.Folder().Path("ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Open(filepath.Dir(ca.Folder().Path("x"))); err == nil {
		t.Error("a key that is a link: got no error")
	}
}

func TestRevoke(t *testing.T) {
	ca := newCA(t)
	_, a := issue(t, ca, pki.Order{Host: "h1"})
	_, b := issue(t, ca, pki.Order{Host: "h1", Renew: true})
	_, kept := issue(t, ca, pki.Order{Host: "h2"})
	for _, want := range []int{2, 0} { // the second time makes the list again
		if n, err := ca.Revoke("h1"); err != nil || n != want {
			t.Errorf("got %d, %v, want %d certificates", n, err, want)
		}
	}
	_, crl, err := ca.Files()
	if err != nil {
		t.Fatal(err)
	}
	l, err := pki.ParseCRL(crl)
	if err != nil || l.Number.Int64() != 3 || l.CheckSignatureFrom(ca.Certificate()) != nil {
		t.Fatalf("got list %+v, %v, want number 3, signed", l, err)
	}
	listed := func(c *x509.Certificate) bool {
		return slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(c.SerialNumber) == 0 })
	}
	if !listed(a) || !listed(b) || listed(kept) {
		t.Errorf("got entries %v, want both of h1 and none of h2", l.RevokedCertificateEntries)
	}
	_, err = ca.Revoke("h3")
	wantIs(t, "revoke a stranger", err, pki.ErrNotFound)
	issue(t, ca, pki.Order{Host: "h1"}) // the name is free again, and the files are ours
}

func TestStates(t *testing.T) {
	ca := newCA(t)
	now := time.Now()
	for _, h := range []string{"a", "b", "c"} {
		issue(t, ca, pki.Order{Host: h, Life: 40 * 24 * time.Hour})
	}
	if _, err := ca.Revoke("b"); err != nil {
		t.Fatal(err)
	}
	list, err := ca.List()
	if err != nil || len(list) != 3 {
		t.Fatalf("got %v, %v", list, err)
	}
	for _, c := range []struct {
		after time.Duration
		want  string
	}{
		{0, "valid revoked valid"},
		{41 * 24 * time.Hour, "expired revoked expired"},
	} {
		var got []string
		for _, i := range list {
			got = append(got, string(i.State(now.Add(c.after))))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("after %v: got %v, want %s", c.after, got, c.want)
		}
	}
	if a := list[0]; a.ExpiresSoon(now) || a.ExpiresSoon(now.Add(29*24*time.Hour)) || !a.ExpiresSoon(now.Add(31*24*time.Hour)) || a.ExpiresSoon(now.Add(41*24*time.Hour)) {
		t.Error("a certificate of 40 days should be renewed in its last 10")
	}
	pki.SetClock(ca, func() time.Time { return now.Add(41 * 24 * time.Hour) })
	issue(t, ca, pki.Order{Host: "a"}) // an expired name is free
}

// TestCrash leaves what a crash between two files would.
func TestCrash(t *testing.T) {
	for _, gone := range [][]string{{"h1.key", "h1.crt"}, {"h1.key"}} {
		ca := newCA(t)
		issue(t, ca, pki.Order{Host: "h1"})
		for _, n := range gone {
			if err := ca.Folder().Remove(n); err != nil {
				t.Fatal(err)
			}
		}
		issue(t, ca, pki.Order{Host: "h1", Renew: true})
		if _, err := tls.LoadX509KeyPair(ca.Folder().Path("h1.crt"), ca.Folder().Path("h1.key")); err != nil {
			t.Errorf("without %v: %v", gone, err)
		}
	}
	ca := newCA(t)
	issue(t, ca, pki.Order{Host: "h1"})
	_, before, err := ca.Files()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Revoke("h1"); err != nil {
		t.Fatal(err)
	}
	if err := ca.Folder().Replace("revoked.crl", before); err != nil { // the index says more than the list
		t.Fatal(err)
	}
	if n, err := ca.Revoke("h1"); n != 0 || err != nil {
		t.Errorf("got %d, %v, want 0", n, err)
	}
	_, crl, err := ca.Files()
	if err != nil {
		t.Fatal(err)
	}
	if l, err := pki.ParseCRL(crl); err != nil || len(l.RevokedCertificateEntries) != 1 {
		t.Errorf("got %+v, %v, want one entry", l, err)
	}
}

// TestSign takes keys that are fit, and no other.
func TestSign(t *testing.T) {
	ca := newCA(t)
	weak, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*ecdsa.PublicKey{nil, &weak.PublicKey} {
		_, _, err := ca.Sign(pki.Order{Host: "h1"}, k)
		wantIs(t, "an unfit key", err, pki.ErrInvalid)
	}
	if _, _, err := ca.TransientCertificate("h1", time.Now().Add(time.Hour)); !errors.Is(err, pki.ErrInvalid) {
		t.Errorf("a server with a host's name: got error %v", err)
	}
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", string(der)} {
		if err := ca.Folder().Replace("ca.key", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := pki.Open(filepath.Dir(ca.Folder().Path("x"))); err == nil {
			t.Errorf("key %.20q: got no error", text)
		}
	}
}

// TestOneHolder has several processes' worth of CAs issue at once: nothing is
// lost, and a name is given once.
func TestOneHolder(t *testing.T) {
	ca := newCA(t)
	dir := filepath.Dir(ca.Folder().Path("x"))
	var all sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for i := range 8 {
		all.Go(func() {
			own, err := pki.Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer own.Close()
			if _, err := own.Issue(pki.Order{Host: fmt.Sprintf("h%d", i)}); err != nil {
				t.Error(err)
			}
			_, err = own.Issue(pki.Order{Host: "one"})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				taken++
			} else if !errors.Is(err, pki.ErrExists) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	list, err := ca.List()
	if err != nil || len(list) != 9 || taken != 1 {
		t.Errorf("got %d certificates, %v, and one name %d times, want 9 and 1", len(list), err, taken)
	}
}

// TestModel compares the CA with a map, through random orders of commands.
func TestModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "ca")
		if err != nil {
			t.Fatal(err)
		}
		ca, err := pki.Init(dir, "test CA")
		if err != nil {
			t.Fatal(err)
		}
		defer ca.Close()
		valid, revoked := map[string]int{}, map[string]int{}
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			host := rapid.SampledFrom([]string{"a", "b"}).Draw(r, "host")
			switch rapid.SampledFrom([]string{"issue", "renew", "revoke"}).Draw(r, "command") {
			case "issue":
				if _, err := ca.Issue(pki.Order{Host: host}); (err == nil) != (valid[host] == 0) {
					r.Fatalf("issue %s with %d valid: got %v", host, valid[host], err)
				} else if err == nil {
					valid[host]++
				}
			case "renew":
				if _, err := ca.Issue(pki.Order{Host: host, Renew: true}); err != nil {
					r.Fatal(err)
				}
				valid[host]++
			case "revoke":
				n, err := ca.Revoke(host)
				if n != valid[host] || (err == nil) != (valid[host]+revoked[host] > 0) {
					r.Fatalf("revoke %s with %d valid: got %d, %v", host, valid[host], n, err)
				}
				revoked[host] += n
				valid[host] = 0
			}
		}
		_, crl, err := ca.Files()
		if err != nil {
			r.Fatal(err)
		}
		l, err := pki.ParseCRL(crl)
		if err != nil || len(l.RevokedCertificateEntries) != revoked["a"]+revoked["b"] {
			r.Fatalf("got list %v, %v, want %v revoked", l, err, revoked)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"version":1,"list":1,"issued":[{"host":"h1","serial":"00000000000000000000000000000001","not_before":"2026-01-02T03:04:05Z","not_after":"2027-01-02T03:04:05Z"}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := pki.ParseIndex(b)
		if err != nil {
			return
		}
		for _, i := range x.Issued {
			if pki.CheckHost(i.Host) != nil || len(i.Serial) != 32 {
				t.Errorf("took %+v", i)
			}
		}
	})
}
