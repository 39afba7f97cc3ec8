package udpio

import "syscall"

// Failure is one datagram that was not sent.
type Failure struct {
	Tag   int           // as given to End
	Errno syscall.Errno // EMSGSIZE: larger than the egress device takes; EAGAIN, ENOBUFS: queue full; others: refused
}

// Sender gathers datagrams and sends them.
type Sender struct{}

// NewSender makes a Sender with its arena, about 100 KB.
func NewSender() *Sender { return &Sender{} }

// Begin starts a datagram from s to d with outer TOS tos and returns n octets
// of memory, valid until Flush, for its headers; the caller fills them. It
// sends what was gathered before when there is no room, or when s is another
// socket.
//
// Hot path: no allocation.
func (s *Sender) Begin(sock *Socket, d *Dest, tos uint8, n int) []byte { return nil }

// Payload appends b to the datagram. b must stay as it is until Flush returns.
//
// Hot path: no allocation.
func (s *Sender) Payload(b []byte) {}

// End finishes the datagram. tag comes back in its Failure, if it fails; tags
// need not differ.
//
// Hot path: no allocation.
func (s *Sender) End(tag int) {}

// Flush sends what was gathered. The failures are those of all datagrams since
// the last Flush, in no order; they are valid until the next Begin.
//
// Hot path: no allocation.
func (s *Sender) Flush() (failed []Failure) { return nil }
