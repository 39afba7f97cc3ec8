package dtls

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/gob"
	"fmt"
	"time"

	piondtls "github.com/pion/dtls/v2"
	"github.com/pion/logging"

	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// This file is all that knows the library. What it is asked for is two things:
// a handshake, and what came of it.

const (
	// handshakeMTU is the longest datagram of a handshake.
	handshakeMTU = 1200
	// retransmit is after how long a flight is repeated (RFC 6347 clause 4.2.4.1).
	retransmit = time.Second
	// firstNumber is by how much the first sequence number of ours is above the
	// last that the library used: it may repeat its Finished maxLinger times.
	firstNumber = 2 * maxLinger
)

// parties is who shakes hands.
type parties struct {
	cred       *Credentials
	host, peer string
}

// agreed is what came of a handshake.
type agreed struct {
	secrets      record.Secrets
	next         uint64    // first sequence number that is ours
	certificates [][]byte  // the peer's, as they came
	expires      time.Time // when they do, zero with a shared key
	// end lets go of a server's memory of its last flight.
	end func()
}

// forget clears the secret, which no key is made of any more.
func (a *agreed) forget() { clear(a.secrets.Master) }

// shake does the handshake over c, until ctx ends. A client's conn is done with
// afterwards. A server's goes on answering a client that has missed the last
// flight, until end is called.
func shake(ctx context.Context, c *conn, p parties) (*agreed, error) {
	begin := piondtls.ServerWithContext
	if c.client {
		begin = piondtls.ClientWithContext
	}
	var expires time.Time
	d, err := begin(ctx, c, p.config(c.client, &expires))
	if err != nil {
		c.mute()
		_ = c.Close()
		return nil, err
	}
	if c.client {
		c.mute() // its close_notify would have a sequence number of ours
	} else {
		c.linger()
	}
	a, err := export(d)
	if err == nil {
		a.expires = expires
	}
	if err != nil || c.client {
		c.mute()
		_ = d.Close()
		_ = c.Close()
		return a, err
	}
	a.end = func() {
		c.mute()
		_ = d.Close()
	}
	return a, nil
}

// config is what we ask of a peer. No suite with ECDHE_PSK is ever among them: a
// malformed key exchange of it ends the process (CVE-2026-54908). When the peer's
// certificates expire is left in expires.
func (p parties) config(client bool, expires *time.Time) *piondtls.Config {
	c := &piondtls.Config{
		ExtendedMasterSecret: piondtls.RequireExtendedMasterSecret, // the keys depend on all that was said
		MTU:                  handshakeMTU,
		FlightInterval:       retransmit,
		LoggerFactory:        quiet{},
	}
	if p.cred.key != nil {
		c.CipherSuites = []piondtls.CipherSuiteID{piondtls.CipherSuiteID(record.PSKWithAES128GCM)}
		c.PSKIdentityHint = []byte(p.host)
		c.PSK = func(identity []byte) ([]byte, error) {
			// A client names itself always, a server may.
			if string(identity) == p.peer || client && len(identity) == 0 {
				return p.cred.key, nil
			}
			return nil, refusal{WrongName, fmt.Sprintf("it calls itself %q, and the peer is %q", identity, p.peer)}
		}
		return c
	}
	c.CipherSuites = []piondtls.CipherSuiteID{
		piondtls.CipherSuiteID(record.ECDHEWithAES128GCM), piondtls.CipherSuiteID(record.ECDHEWithAES256GCM),
	}
	c.SignatureSchemes = []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
	c.Certificates = []tls.Certificate{p.cred.cert}
	c.ClientAuth = piondtls.RequireAndVerifyClientCert
	c.RootCAs, c.ClientCAs = p.cred.roots, p.cred.roots
	c.VerifyConnection = func(s *piondtls.State) (err error) {
		*expires, err = p.cred.verify(s.PeerCertificates, p.peer, time.Now())
		return err
	}
	return c
}

// exported is the library's serialised state, by the names of its fields.
type exported struct {
	LocalEpoch, RemoteEpoch   uint16
	LocalRandom, RemoteRandom [32]byte
	CipherSuiteID             uint16
	MasterSecret              []byte
	SequenceNumber            uint64
	PeerCertificates          [][]byte
	IsClient                  bool
}

// export takes the secrets out of a finished handshake.
func export(d *piondtls.Conn) (*agreed, error) {
	state := d.ConnectionState()
	b, err := state.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("export handshake: %w", err)
	}
	var x exported
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&x); err != nil {
		return nil, fmt.Errorf("export handshake: %w", err)
	}
	clear(b)
	if x.LocalEpoch != x.RemoteEpoch {
		return nil, fmt.Errorf("export handshake: epochs %d and %d differ", x.LocalEpoch, x.RemoteEpoch)
	}
	s := record.Secrets{
		Suite: record.Suite(x.CipherSuiteID), Master: x.MasterSecret,
		ClientRandom: x.LocalRandom, ServerRandom: x.RemoteRandom, Client: x.IsClient, Epoch: x.LocalEpoch,
	}
	if !x.IsClient {
		s.ClientRandom, s.ServerRandom = x.RemoteRandom, x.LocalRandom
	}
	return &agreed{secrets: s, next: x.SequenceNumber + firstNumber, certificates: x.PeerCertificates, end: func() {}}, nil
}

// quiet is a logger of the library that says nothing: its own would write to
// standard output whatever the environment asks for.
type quiet struct{}

func (quiet) NewLogger(string) logging.LeveledLogger { return quiet{} }

func (quiet) Trace(string)          {}
func (quiet) Tracef(string, ...any) {}
func (quiet) Debug(string)          {}
func (quiet) Debugf(string, ...any) {}
func (quiet) Info(string)           {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Warn(string)           {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Error(string)          {}
func (quiet) Errorf(string, ...any) {}
