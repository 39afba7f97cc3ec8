package udpio

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Features is what this kernel does, found by doing it over the loopback. What
// stands on the way to a peer may still refuse UDP_SEGMENT; a Sender finds that
// out by itself, and Dest.GSO tells.
type Features struct {
	Segment bool // one UDP_SEGMENT send arrives as its datagrams
	GRO     bool // datagrams arrive together
}

// probeDatagrams and probeSize make the run that Probe sends.
const (
	probeDatagrams = 4
	probeSize      = 100
)

// Probe sends a run of datagrams to itself. It needs no privilege, and a
// loopback that is up. It waits a second at most.
func Probe() (Features, error) {
	f, err := probe()
	if err != nil {
		return Features{}, fmt.Errorf("probe udp offloads: %w", err)
	}
	return f, nil
}

func probe() (f Features, err error) {
	lo := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	fd, err := OpenReceiver(netip.AddrPortFrom(lo, 0))
	if err != nil {
		return f, err
	}
	r, err := NewReceiver(fd)
	if err != nil {
		return f, err
	}
	defer r.Close()
	if fd, err = OpenSender(SenderOptions{Local: lo}); err != nil {
		return f, err
	}
	sock, err := NewSocket(fd)
	if err != nil {
		return f, err
	}
	defer sock.Close()

	d := NewDest(r.Addr())
	s := NewSender()
	for range probeDatagrams {
		s.Begin(sock, d, 0, probeSize)
		s.End(0)
	}
	if failed := s.Flush(); len(failed) > 0 {
		return f, failed[0].Errno
	}
	f.Segment = d.GSO() && !sock.plain
	for got := 0; got < probeDatagrams; {
		in, err := r.Receive()
		if err != nil {
			return f, err
		}
		for i := range in {
			got += in[i].Segments()
			f.GRO = f.GRO || in[i].Segments() > 1
		}
		if len(in) > 0 {
			continue
		}
		p := []unix.PollFd{{Fd: int32(r.FD()), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 1000); n == 0 && err == nil {
			return f, errors.New("the loopback did not deliver")
		}
	}
	return f, nil
}
