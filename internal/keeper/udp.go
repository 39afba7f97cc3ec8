package keeper

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/udpio"
)

// UDPRequest asks for one of the tunnel's sockets. The receiving ones are kept as
// long as they are asked for at the same address: what arrives waits in them while no
// worker runs. Sending ones are the worker's alone.
type UDPRequest struct {
	Listen netip.AddrPort `json:"listen"`         // valid: a receiving socket; else a sending one
	DTLS   bool           `json:"dtls,omitempty"` // the receiving socket of encrypted links, which sends too

	Local      netip.Addr `json:"local"`                 // source address; 0.0.0.0 or :: = by route
	Slot       int        `json:"slot"`                  // of the source port; see udpio.SenderOptions
	NoChecksum bool       `json:"no_checksum,omitempty"` // outer checksum 0, IPv4 only
}

func (r *UDPRequest) validate() error {
	a := r.Local
	if r.Listen.IsValid() {
		a = r.Listen.Addr()
		if r.Listen.Port() == 0 {
			return invalid("open udp: listen %v: want a port of 1 to 65535", r.Listen)
		}
	}
	switch {
	case !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsMulticast():
		return invalid("open udp: address %v: want an IPv4 or IPv6 unicast address without zone", a)
	case r.Slot < 0 || r.Slot >= udpio.Slots:
		return invalid("open udp: slot %d: want 0 to %d", r.Slot, udpio.Slots-1)
	case r.NoChecksum && !a.Is4():
		return invalid("open udp: no checksum over IPv6: only IPv4 allows it")
	}
	return nil
}

// udpSocket is a receiving socket that outlives workers.
type udpSocket struct {
	fd     int
	listen netip.AddrPort
}

var noSocket = udpSocket{fd: -1}

func (s *udpSocket) close() {
	if s.fd >= 0 {
		closeAll([]int{s.fd})
	}
	*s = noSocket
}

// openUDP opens a socket, or finds the receiving one that is held.
func (k *keeper) openUDP(w *worker, r *UDPRequest) (reply, []int, error) {
	if r == nil {
		return reply{}, nil, invalid("open udp: no socket given")
	}
	if err := r.validate(); err != nil {
		return reply{}, nil, err
	}
	if !r.Listen.IsValid() {
		fd, err := udpio.OpenSender(udpio.SenderOptions{Local: r.Local, Slot: r.Slot, NoChecksum: r.NoChecksum})
		if err != nil {
			return reply{}, nil, err
		}
		k.passing = append(k.passing, fd)
		return reply{}, []int{fd}, nil
	}
	held, open, what := &k.udp, udpio.OpenReceiver, "tunnel listens"
	if r.DTLS {
		held, open, what = &k.dtls, udpio.OpenBoth, "encrypted links listen"
	}
	if held.fd >= 0 && held.listen == r.Listen {
		return reply{}, []int{held.fd}, nil
	}
	if w != k.cur {
		return reply{}, nil, conflict("a worker that hasn't taken over can't listen on %v", r.Listen)
	}
	fd, err := open(r.Listen)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return reply{}, nil, &Error{
			Code: CodeConflict, Msg: err.Error(),
			Hint: fmt.Sprintf("another program listens there (`ss -ulpn 'sport = :%d'`), perhaps the kernel's own VXLAN device: choose another port", r.Listen.Port()),
		}
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return reply{}, nil, &Error{Code: CodeNotFound, Msg: err.Error(), Hint: "no interface of this host has that address"}
	case err != nil:
		return reply{}, nil, err
	}
	held.close()
	*held = udpSocket{fd: fd, listen: r.Listen}
	k.log.Info(what, "address", r.Listen)
	return reply{}, []int{fd}, nil
}

// OpenUDP returns a socket of the tunnel. Unless listening is asked for again at
// the same address, a receiving socket replaces the one of its kind that the
// keeper holds.
// The code of a refusal is CodeConflict when another program has the address and
// CodeNotFound when no interface has it.
func (c *Client) OpenUDP(r UDPRequest) (fd int, err error) {
	a, err := c.call(request{Op: opUDP, UDP: &r}, 1)
	if err != nil {
		return -1, err
	}
	return a.fds[0], nil
}

// CloseUDP says that no encrypted links listen any more, or, with tunnel, that
// nothing does.
func (c *Client) CloseUDP(tunnel bool) error {
	_, err := c.call(request{Op: opCloseUDP, UDP: &UDPRequest{DTLS: !tunnel}}, 0)
	return err
}
