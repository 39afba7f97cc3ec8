package dtls

import (
	"net/netip"
	"time"
)

// State is what a link is doing.
type State uint8

// States.
const (
	Waiting     State = iota // no keys, and none on the way yet
	Handshaking              // no keys yet
	Established              // keys
	Rekeying                 // keys, and new ones on the way
	Closed                   // not one of the peers any more
)

// String returns the word for s in outputs.
func (s State) String() string {
	return [...]string{"waiting", "handshaking", "established", "rekeying", "closed"}[min(s, Closed)]
}

// Failure is why a handshake failed or a link ended.
type Failure struct {
	Time   time.Time
	Reason Reason
	Detail string // may hold what the peer sent: clean it before it reaches a terminal
}

// Status is a link as it is.
type Status struct {
	Peer    string
	Address netip.AddrPort // where the peer is
	State   State
	// The following are of the keys in use, zero without.
	Cipher      string
	Epoch       uint16    // on the wire; every handshake begins anew
	Generation  uint64    // counts the handshakes of this link
	Established time.Time // when the keys were made
	Sealed      uint64    // records
	Left        uint64    // records that may still be sealed
	RekeyAt     uint64    // of Sealed
	Taken       bool      // a former process has made them, and handed them over
	// The following are of the link.
	Handshakes    uint64 // that ended well
	LastHandshake time.Time
	Older         int // former keys that still open
	Failure       Failure
}

// Event is a link's change of state, or a new reason for a failure.
type Event struct {
	Time time.Time
	Status
}

// Encrypted reports whether frames leave and are taken.
func (s State) Encrypted() bool { return s == Established || s == Rekeying }

// Status is the link as it is.
func (l *Link) Status() Status {
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	return l.status()
}

// status is called with Endpoint.mu held.
func (l *Link) status() Status {
	s := Status{
		Peer: l.name, Address: l.remote, State: l.state(), Failure: l.failure,
		Handshakes: l.counted.handshakes, LastHandshake: l.counted.lastHandshake,
	}
	if a := l.sealing.Load(); a != nil {
		s.Cipher, s.Epoch, s.Generation, s.Established = a.suite.String(), a.seal.Epoch(), a.generation, a.made
		s.Sealed, s.Left, s.RekeyAt = a.seal.Sealed(), a.seal.Left(), l.e.o.RekeyRecords
		s.Taken = !a.taken.IsZero()
		s.Older = len(l.associations()) - 1
	}
	return s
}

// state is called with Endpoint.mu held.
func (l *Link) state() State {
	under := l.client != nil || l.server != nil
	switch {
	case l.closed:
		return Closed
	case l.sealing.Load() != nil && under:
		return Rekeying
	case l.sealing.Load() != nil:
		return Established
	case under || len(l.associations()) > 0:
		return Handshaking
	}
	return Waiting
}
