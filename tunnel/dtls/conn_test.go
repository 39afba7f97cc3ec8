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
		w.Prove()
		write()
		w.Linger()
		w.Release()
		write()
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
	w.Prove()
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
