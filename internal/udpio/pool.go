package udpio

import "net/netip"

// Socket is a sending socket.
type Socket struct{ fd int }

// NewSocket takes over a socket that OpenSender made.
func NewSocket(fd int) (*Socket, error) { return &Socket{fd: fd}, nil }

// Port is the source port.
func (s *Socket) Port() uint16 { return 0 }

// Close closes the socket. It is idempotent.
func (s *Socket) Close() error { return nil }

// Pool holds the sending sockets of one address family by slot.
type Pool struct{}

// NewPool returns an empty pool.
func NewPool() *Pool { return &Pool{} }

// Pick returns the socket for a flow's hash. While that slot is empty it marks
// it as wanted and returns another slot's socket; nil when the pool is empty.
//
// Hot path: no allocation, no lock.
func (p *Pool) Pick(hash uint32) *Socket { return nil }

// Wanted signals that TakeWanted has something new.
func (p *Pool) Wanted() <-chan struct{} { return nil }

// TakeWanted returns the slots that flows have asked for and that are empty,
// and forgets them.
func (p *Pool) TakeWanted() []int { return nil }

// Put fills a slot.
func (p *Pool) Put(slot int, s *Socket) {}

// Close closes all sockets. Nobody may be sending any more.
func (p *Pool) Close() error { return nil }

// Dest is where datagrams go: a socket address prepared once a peer, and what
// was found out about the way there.
type Dest struct{ to netip.AddrPort }

// NewDest prepares an address.
func NewDest(to netip.AddrPort) *Dest { return &Dest{to: to} }

// Addr is the address.
func (d *Dest) Addr() netip.AddrPort { return d.to }

// IPv6 reports which Pool's sockets reach d.
func (d *Dest) IPv6() bool { return d.to.Addr().Is6() }

// GSO reports whether UDP_SEGMENT is believed to work on the way to d.
func (d *Dest) GSO() bool { return true }

// Reprobe forgets that UDP_SEGMENT failed: the next run tries it again.
func (d *Dest) Reprobe() {}
