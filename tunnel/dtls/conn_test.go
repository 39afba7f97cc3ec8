package dtls_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// sealedFinished is a sealed handshake record with an explicit nonce.
func sealedFinished(seq, nonce uint64) []byte {
	return clearRecord(record.Handshake, 1, seq, append(binary.BigEndian.AppendUint64(nil, nonce), make([]byte, 40)...))
}

// TestNoNonceOfOurs gives the wire what the library may draw at random (CVE-2026-
// 26014): a nonce that a Sealer could use never leaves.
func TestNoNonceOfOurs(t *testing.T) {
	var left [][]byte
	w := dtls.NewWire(true, func(b []byte) error { left = append(left, b); return nil })
	ours, other := sealedFinished(0, 1<<48|77), sealedFinished(0, 2<<48|77)
	change := clearRecord(record.ChangeCipherSpec, 0, 3, []byte{1})
	for _, b := range [][]byte{ours, append(bytes.Clone(change), ours...), other} {
		if n, err := w.Write(b); n != len(b) || err != nil {
			t.Errorf("written %d, %v", n, err)
		}
	}
	if len(left) != 1 || !bytes.Equal(left[0], other) {
		t.Errorf("%d datagrams left: %x", len(left), left)
	}
}

// TestSealsNothingElse lets no sealed record of the library leave but those of a
// handshake, in any state: an alert or data would have a number of ours.
func TestSealsNothingElse(t *testing.T) {
	for _, client := range []bool{true, false} {
		var left [][]byte
		w := dtls.NewWire(client, func(b []byte) error { left = append(left, b); return nil })
		write := func() {
			t.Helper()
			for _, typ := range []record.Type{record.ChangeCipherSpec, record.Alert, record.ApplicationData} {
				b := clearRecord(typ, 1, 5, binary.BigEndian.AppendUint64(nil, 7<<56))
				for _, b := range [][]byte{b, append(bytes.Clone(b), sealedFinished(6, 8)...), append(sealedFinished(7, 9), b...)} {
					if _, err := w.Write(b); err != nil || len(left) > 0 {
						t.Fatalf("client %v: %v, %x left", client, err, left)
					}
				}
			}
		}
		w.Feed(forgedHello(0, 0xfefd, 1, nil, 0xc02b))
		write()
		w.Prove(1)
		write()
		w.Linger()
		w.Release()
		write()
	}
}

// TestNumbersTellThePeer gives both ends of a handshake what has other numbers than
// the peer's records can have: it isn't taken.
func TestNumbersTellThePeer(t *testing.T) {
	var left []byte
	send := func(b []byte) error { left = bytes.Clone(b); return nil }
	number := func(w *dtls.Wire, b []byte) uint64 {
		t.Helper()
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		h, _ := record.Parse(left)
		return h.Sequence
	}
	verify := func(seq uint64) []byte {
		return clearRecord(record.Handshake, 0, seq, handshakeMessage(3, 0, append([]byte{0xfe, 0xfd, 20}, make([]byte, 20)...)))
	}
	hello := func(seq uint64) []byte { return clearRecord(record.Handshake, 0, seq, handshakeMessage(2, 1, nil)) }
	key := func(seq uint64) []byte { return clearRecord(record.Handshake, 0, seq, handshakeMessage(16, 2, nil)) }
	change := func(seq uint64) []byte { return clearRecord(record.ChangeCipherSpec, 0, seq, []byte{1}) }
	want := func(what string, w *dtls.Wire, b []byte, want bool) {
		t.Helper()
		if got := w.Hears(b); got != want {
			t.Errorf("%s: taken %v, want %v", what, got, want)
		}
	}

	client := dtls.NewWire(true, send)
	first := number(client, forgedHello(0, 0xfefd, 1, nil, 0xc02b))
	if other := number(dtls.NewWire(true, send), forgedHello(0, 0xfefd, 1, nil, 0xc02b)); other == first || first < 1<<32 {
		t.Errorf("clients begin at %d and %d", first, other)
	}
	again := number(client, forgedHello(0, 0xfefd, 1, nil, 0xc02b))
	want("an answer to no hello", client, verify(0), false)
	want("an answer to a hello that hasn't left", client, verify(again+1), false)
	want("an answer to the second hello", client, verify(again), true)
	want("a server from 0, at once", client, hello(0), false)
	for range 3 {
		again = number(client, forgedHello(0, 0xfefd, 1, nil, 0xc02b))
	}
	want("a server from 0, when no other answers", client, hello(0), true)
	want("its cookie", client, verify(0), true)
	client.Feed(verify(first))
	want("a server from 0, when another has answered", client, hello(0), false)
	want("its cookie", client, verify(0), false)
	want("a server", client, hello(again+1), true)
	want("a change of the cipher, before the client's own", client, change(again+7), false)
	number(client, sealedFinished(0, 9))
	want("a change of the cipher", client, change(again+7), true)
	want("one of anybody's", client, change(1), false)

	known := dtls.NewWire(true, send)
	known.Expect()
	for range 5 {
		number(known, forgedHello(0, 0xfefd, 1, nil, 0xc02b))
	}
	want("a server known to have cookies", known, hello(0), false)

	server := dtls.NewWire(false, send)
	server.Feed(forgedHello(0, 0xfefd, 1, nil, 0xc02b))
	server.Greet(first)
	if got := number(server, verify(0)); got != first {
		t.Errorf("hello %d is answered with number %d", first, got)
	}
	server.Prove(again)
	if got := number(server, hello(1)); got != again {
		t.Errorf("the flight for hello %d begins with number %d", again, got)
	}
	want("a key of anybody's", server, key(3), false)
	want("a key from before", server, key(first), false)
	want("the client's key", server, key(again+1), true)
	want("a change of the cipher, before the key", server, change(again+2), false)
	want("a Finished, before the key", server, sealedFinished(0, 9), false)
	server.Feed(key(again + 1))
	want("a change of the cipher", server, change(again+2), true)
	want("a Finished, before it", server, sealedFinished(0, 9), false)
	server.Feed(change(again + 2))
	want("a Finished", server, sealedFinished(0, 9), true)
}

// TestServerHearsAllBeforeTheChange: of a client with a certificate its proof comes
// before the change of the cipher, and one that has none for the server says so.
func TestServerHearsAllBeforeTheChange(t *testing.T) {
	part := func(typ byte, seq uint16, n int) []byte {
		return clearRecord(record.Handshake, 0, uint64(seq), handshakeMessage(typ, seq, make([]byte, n)))
	}
	const certificate, key, proof = 11, 16, 15
	change := clearRecord(record.ChangeCipherSpec, 0, 9, []byte{1})
	for _, c := range []struct {
		name string
		come [][]byte
		want bool
	}{
		{"the proof is missing", [][]byte{part(certificate, 2, 600), part(key, 3, 33)}, false},
		{"the certificate is missing", [][]byte{part(key, 3, 33), part(proof, 4, 70)}, false},
		{"all there", [][]byte{part(proof, 4, 70), part(certificate, 2, 600), part(key, 3, 33)}, true},
		{"no certificate", [][]byte{part(certificate, 2, 3), part(key, 3, 33)}, true},
		{"no certificate, the other way round", [][]byte{part(key, 3, 33), part(certificate, 2, 3)}, true},
		{"no certificate, and no key", [][]byte{part(certificate, 2, 3)}, false},
	} {
		w := dtls.NewVerifier(func([]byte) error { return nil })
		for _, b := range c.come {
			w.Feed(b)
		}
		if got := w.Hears(change); got != c.want {
			t.Errorf("%s: the change of the cipher is taken: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestServerPaysBack lets no more octets leave than have come, until the cookie is
// back, and the last flight not before the keys are in use, and not for ever.
func TestServerPaysBack(t *testing.T) {
	left := 0
	w := dtls.NewWire(false, func([]byte) error { left++; return nil })
	write := func(b []byte) {
		t.Helper()
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	w.Feed(forgedHello(0, 0xfefd, 1, nil, 0xc02b))
	write(make([]byte, 1000))
	if left != 0 {
		t.Error("more octets left than had come")
	}
	w.Prove(1)
	write(make([]byte, 1000))
	if left != 1 {
		t.Error("nothing leaves after the cookie")
	}
	write(sealedFinished(0, 1))
	if left != 1 {
		t.Error("the last flight has left before the keys are in use")
	}
	w.Linger()
	w.Release()
	if left != 2 {
		t.Error("the last flight hasn't left")
	}
	for i := range uint64(100) {
		write(sealedFinished(1+i, 2+i))
	}
	if left != 2+16 {
		t.Errorf("%d repetitions, want 16", left-2)
	}
}

func TestReadDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := dtls.NewWire(true, func([]byte) error { return nil })
		read := make(chan error)
		go func() {
			for range 4 {
				_, err := w.Read(make([]byte, 100))
				read <- err
			}
		}()
		want := func(what string, err error) {
			t.Helper()
			if got := <-read; got != err {
				t.Errorf("%s: %v, want %v", what, got, err)
			}
		}
		if err := w.SetReadDeadline(time.Unix(0, 1)); err != nil {
			t.Fatal(err)
		}
		want("in the past, while waiting", os.ErrDeadlineExceeded)
		want("still in the past", os.ErrDeadlineExceeded)
		if err := w.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		w.Feed(clearRecord(record.Handshake, 0, 0, handshakeMessage(2, 0, nil)))
		<-read // that of the past, or the datagram: the race is the caller's
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		<-read
	})
}
