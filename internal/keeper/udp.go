package keeper

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/udpio"
)

// UDPRequest asks for one of the tunnel's sockets. The receiving ones are held
// until a worker that has others in use says so: what arrives waits in them while
// no worker runs. Sending ones are the worker's alone.
type UDPRequest struct {
	Listen netip.AddrPort `json:"listen"`          // valid: a receiving socket; else a sending one
	DTLS   bool           `json:"dtls,omitempty"`  // the receiving socket of encrypted links, which sends too
	Early  bool           `json:"early,omitempty"` // no interface need have the address yet

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

// maxListening bounds the receiving sockets. A worker that changes both holds
// four, and its successor, should it die over that, asks for no others.
const maxListening = 8

// udpSocket is a receiving socket that outlives workers.
type udpSocket struct {
	fd     int
	listen netip.AddrPort
	dtls   bool
}

// keepUDP closes the receiving sockets that are none of the two.
func (k *keeper) keepUDP(u *UDPKeep) {
	k.udp = slices.DeleteFunc(k.udp, func(s udpSocket) bool {
		if u != nil && (s.dtls && s.listen == u.DTLS || !s.dtls && s.listen == u.Tunnel) {
			return false
		}
		closeAll([]int{s.fd})
		return true
	})
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
		fd, err := udpio.OpenSender(udpio.SenderOptions{
			Local: r.Local, Slot: r.Slot, NoChecksum: r.NoChecksum,
			Early: slices.ContainsFunc(k.udp, func(s udpSocket) bool { return s.listen.Addr() == r.Local }),
		})
		if err != nil {
			return reply{}, nil, err
		}
		k.passing = append(k.passing, fd)
		return reply{}, []int{fd}, nil
	}
	return k.listenUDP(w, r)
}

// listenUDP opens a receiving socket, or finds it. Those that are held stay, at
// the same port too if need be, until the worker says which it keeps.
func (k *keeper) listenUDP(w *worker, r *UDPRequest) (reply, []int, error) {
	var fds []int
	for _, s := range k.udp {
		if s.listen == r.Listen && s.dtls == r.DTLS {
			return reply{}, []int{s.fd}, nil
		}
		fds = append(fds, s.fd)
	}
	if w != k.cur {
		return reply{}, nil, conflict("a worker that hasn't taken over can't listen on %v", r.Listen)
	}
	if len(k.udp) >= maxListening {
		return reply{}, nil, invalid("open udp: %d sockets listen already", len(k.udp))
	}
	fd, err := udpio.Open(udpio.ReceiverOptions{Listen: r.Listen, Sends: r.DTLS, Early: r.Early, Beside: fds})
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
	k.udp = append(k.udp, udpSocket{fd: fd, listen: r.Listen, dtls: r.DTLS})
	what := "tunnel listens"
	if r.DTLS {
		what = "encrypted links listen"
	}
	k.log.Info(what, "address", r.Listen)
	return reply{}, []int{fd}, nil
}

// OpenUDP returns a socket of the tunnel. A receiving one that the keeper holds at
// that address is returned again; another one is opened beside those that it
// holds, until KeepUDP.
// The code of a refusal is CodeConflict when another program has the address and
// CodeNotFound when no interface has it.
func (c *Client) OpenUDP(r UDPRequest) (fd int, err error) {
	a, err := c.call(request{Op: opUDP, UDP: &r}, 1)
	if err != nil {
		return -1, err
	}
	return a.fds[0], nil
}

// UDPKeep is where the tunnel and encrypted links listen; invalid = not at all.
type UDPKeep struct {
	Tunnel netip.AddrPort `json:"tunnel"`
	DTLS   netip.AddrPort `json:"dtls"`
}

// KeepUDP has the keeper close all receiving sockets but those.
func (c *Client) KeepUDP(u UDPKeep) error {
	_, err := c.call(request{Op: opKeepUDP, Keep: &u}, 0)
	return err
}
