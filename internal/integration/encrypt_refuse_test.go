package integration_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

// TestEncryptedRefusals has a host meet peers whose certificates or keys are not
// what they should be: there is no link, both for the reason that `peer ls` and
// one line of the log tell.
func TestEncryptedRefusals(t *testing.T) {
	ours, foreign := newAuthority(t, "ours"), newAuthority(t, "foreign")
	const certs, list = "cert: host.crt, key: host.key, ca: ca.crt", ", crl: revoked.crl"
	plain := func(host string, edit func(*x509.Certificate)) map[string]string {
		files, _ := ours.issue(host, edit)
		return files
	}
	stranger, _ := foreign.issue("h2", nil)
	stranger["ca.crt"] = plain("h2", nil)["ca.crt"] // it trusts us
	alone := &authority{t: t, serial: 1, key: newKey(t)}
	own := alone.sign(&x509.Certificate{DNSNames: []string{"h2"}, KeyUsage: x509.KeyUsageDigitalSignature}, nil, &alone.key.PublicKey)
	self := map[string]string{"host.crt": inPEM("CERTIFICATE", own.Raw), "host.key": alone.keyPEM(alone.key), "ca.crt": stranger["ca.crt"]}
	lost, cert := ours.issue("h2", nil)
	expired := func(x *x509.Certificate) {
		x.NotBefore, x.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	twoNames := func(x *x509.Certificate) { x.DNSNames = []string{"h3", "h9"} }
	h1 := plain("h1", nil)
	h1["revoked.crl"] = ours.revoked(cert)
	for _, c := range []struct {
		name, reason string
		dtls         [2]string
		files        [2]map[string]string
		host         string // of the second, in its file
	}{
		{"wrong CA", "wrong_ca", [2]string{certs, certs}, [2]map[string]string{h1, stranger}, "h2"},
		{"self-signed", "self_signed", [2]string{certs, certs}, [2]map[string]string{h1, self}, "h2"},
		{"expired", "expired", [2]string{certs, certs}, [2]map[string]string{h1, plain("h2", expired)}, "h2"},
		{"revoked", "revoked", [2]string{certs + list, certs}, [2]map[string]string{h1, lost}, "h2"},
		{"wrong name", "wrong_name", [2]string{certs, certs}, [2]map[string]string{h1, plain("h3", twoNames)}, "h9"},
		{"another shared key", "wrong_key", [2]string{"psk_file: k", "psk_file: k"}, [2]map[string]string{{"k": sharedKey(1)}, {"k": sharedKey(2)}}, "h2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFabric(t, 2)
			watch := f.tap(1)
			f.upSealed(1, c.dtls[0], c.files[0])
			two := f.hosts[1]
			two.node = prepare(t, strings.Replace(f.sealedFile(2, c.dtls[1]), "host: h2", "host: "+c.host, 1))
			two.node.ns = two.underlay
			two.node.put(c.files[1])
			two.node.up()
			f.attach(2, 2)
			f.canaries(1, 2)
			f.refusal(watch, c.reason)
		})
	}
}

// TestEncryptedPlaintext sends a host frames of an encrypted network in clear, to
// each of its ports and in a peer's name: all are refused, and none teaches.
func TestEncryptedPlaintext(t *testing.T) {
	t.Parallel()
	f := newFabric(t, 3)
	for i := range 2 {
		f.upSealed(i+1, "psk_file: secret", map[string]string{"secret": sharedKey(1)})
	}
	f.meet(1, 2)
	one := f.hosts[0].node
	heard := f.sink(1)
	before := one.stats()
	// Host 2 has the address of a peer, whatever it sends from there.
	f.say(2, underlayAddr(1, false)+":4789", vxlan(10010, fromStation9("in clear")))
	one.until("plaintext_refused", func() bool { return one.stats().Drops["plaintext_refused"] == before.Drops["plaintext_refused"]+1 })
	f.say(2, underlayAddr(1, false)+":4788", vxlan(10010, fromStation9("in clear")))
	one.until("plaintext_refused", func() bool { return one.stats().Drops["plaintext_refused"] == before.Drops["plaintext_refused"]+2 })
	f.say(2, underlayAddr(1, false)+":4788", []byte("nonsense"))
	one.until("bad_record", func() bool { return one.stats().Drops["bad_record"] == before.Drops["bad_record"]+1 })
	f.say(3, underlayAddr(1, false)+":4788", vxlan(10010, fromStation9("from a stranger in name only")))
	one.until("h3 has no link yet", func() bool { return one.peers()["h3"].Drops["plaintext_refused"] == 1 })
	f.say(3, underlayAddr(1, false)+":4788", nil)
	one.until("an empty datagram", func() bool { return one.peers()["h3"].Drops["bad_record"] == 1 })
	if one.where(9) != "" || len(heard.all()) != 0 {
		t.Errorf("station 9 is behind %q, delivered: %v", one.where(9), heard.all())
	}
	// The link doesn't mind.
	if p := one.peers()["h2"]; p.Link == nil || !p.Link.Up() || p.Drops["plaintext_refused"] != 2 || p.Drops["bad_record"] != 1 {
		t.Errorf("peer h2: %+v", p)
	}
	ping(t, f.hosts[1].container, "10.1.0.1", 3)
	f.conserved()
}
