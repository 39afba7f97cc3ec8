package dtls

import "net/netip"

// Wire is the wire of one handshake, for tests of what it lets leave.
type Wire = conn

// NewWire makes a client's or a server's.
func NewWire(client bool, send func([]byte) error) *Wire {
	return newConn(client, netip.AddrPort{}, send)
}

// Prove, Linger, Release and Feed are what a link tells a handshake's wire.
func (c *conn) Prove()        { c.prove() }
func (c *conn) Linger()       { c.linger() }
func (c *conn) Release()      { c.release() }
func (c *conn) Feed(b []byte) { c.feed(b) }
