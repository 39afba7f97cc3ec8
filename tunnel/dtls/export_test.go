package dtls

import "net/netip"

// Wire is the wire of one handshake, for tests of what it lets leave.
type Wire = conn

// NewWire makes a client's or a server's.
func NewWire(client bool, send func([]byte) error) *Wire {
	return newConn(client, clientKeyExchange, netip.AddrPort{}, send)
}

// NewVerifier makes that of a server that wants a certificate.
func NewVerifier(send func([]byte) error) *Wire {
	return newConn(false, certificateVerify, netip.AddrPort{}, send)
}

// What a link tells a handshake's wire, and asks it.
func (c *conn) Greet(number uint64) { c.greet(number) }
func (c *conn) Prove(number uint64) { c.prove(number) }
func (c *conn) Expect()             { c.expect() }
func (c *conn) Linger()             { c.linger() }
func (c *conn) Release()            { c.release() }
func (c *conn) Feed(b []byte)       { c.feed(b) }
func (c *conn) Hears(b []byte) bool { return c.hears(b) }
