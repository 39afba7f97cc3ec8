package keeper_test

import (
	"net/netip"
	"testing"

	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/udpio"
	"golang.org/x/sys/unix"
)

// otherAddresses has the worker ask for other addresses than at, whose socket is
// first: it is held until the worker says that it is not wanted any more.
func (b *bed) otherAddresses(w *worker, at netip.AddrPort, first uint64) {
	t := b.t
	t.Helper()
	open := func(r keeper.UDPRequest) uint64 {
		t.Helper()
		fd, err := w.OpenUDP(r)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		defer unix.Close(fd)
		return inode(t, fd)
	}
	for _, other := range []string{"127.0.0.1:47891", "0.0.0.0:47890", "[::]:47890"} {
		to := netip.MustParseAddrPort(other)
		second := open(keeper.UDPRequest{Listen: to})
		if second == first || open(keeper.UDPRequest{Listen: at}) != first {
			t.Errorf("%v: want another socket, and the first to be held", to)
		}
		if dtls := open(keeper.UDPRequest{Listen: to, DTLS: true}); dtls == second {
			t.Errorf("%v: encrypted links got the tunnel's socket", to)
		}
		if err := w.KeepUDP(keeper.UDPKeep{Tunnel: to}); err != nil {
			t.Fatal(err)
		}
		if open(keeper.UDPRequest{Listen: to}) != second {
			t.Errorf("%v: the socket that was to be kept has gone", to)
		}
		if first = open(keeper.UDPRequest{Listen: at}); first == second {
			t.Errorf("%v: still at %v", at, to)
		}
		if taken, err := udpio.OpenReceiver(at); err == nil {
			unix.Close(taken)
			t.Errorf("%v: another program can listen there too", at)
		}
		if err := w.KeepUDP(keeper.UDPKeep{Tunnel: at}); err != nil {
			t.Fatal(err)
		}
	}
	absent := netip.MustParseAddrPort("192.0.2.77:47890")
	if early := open(keeper.UDPRequest{Listen: absent, Early: true}); open(keeper.UDPRequest{Listen: absent}) != early {
		t.Error("an address that may come later: want the same socket again")
	}
	open(keeper.UDPRequest{Local: absent.Addr()})
	if _, err := w.OpenUDP(keeper.UDPRequest{Local: absent.Addr().Next()}); err == nil {
		t.Error("a sender at an address that nobody has, and where the tunnel doesn't listen")
	}
	if err := w.KeepUDP(keeper.UDPKeep{}); err != nil {
		t.Error(err)
	}
}

func TestUDP(t *testing.T) {
	b := newBed(t)
	w := b.run()
	at := netip.MustParseAddrPort("127.0.0.1:47890")
	listen := func(w *worker, at netip.AddrPort) (uint64, error) {
		fd, err := w.OpenUDP(keeper.UDPRequest{Listen: at})
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		return inode(t, fd), nil
	}
	first, err := listen(w, at)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := listen(w, at); err != nil || again != first {
		t.Errorf("asked for again: %v, %v, want the same socket", again, err)
	}

	t.Run("outlives the worker", func(t *testing.T) {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(c)
		w.kill()
		if err := unix.Sendto(c, []byte("meanwhile"), 0, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
			t.Fatal(err)
		}
		w = b.next()
		fd, err := w.OpenUDP(keeper.UDPRequest{Listen: at})
		if err != nil {
			t.Fatal(err)
		}
		r, err := udpio.NewReceiver(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		in, err := r.Receive()
		if err != nil || len(in) != 1 || string(in[0].Data) != "meanwhile" || inode(t, fd) != first {
			t.Errorf("got %d datagrams, %v, want the one that came while no worker ran", len(in), err)
		}
	})
	t.Run("encrypted links", func(t *testing.T) {
		links := netip.MustParseAddrPort("127.0.0.1:47880")
		open := func() uint64 {
			t.Helper()
			fd, err := w.OpenUDP(keeper.UDPRequest{Listen: links, DTLS: true})
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			return inode(t, fd)
		}
		held := open()
		if again, err := listen(w, at); err != nil || again != first || open() != held {
			t.Errorf("the two sockets stand in each other's way: %v, %v", again, err)
		}
		if err := w.KeepUDP(keeper.UDPKeep{Tunnel: at}); err != nil {
			t.Fatal(err)
		}
		if again, err := listen(w, at); err != nil || again != first || open() == held {
			t.Errorf("only the socket of encrypted links is to be closed: %v, %v", again, err)
		}
	})
	t.Run("sender", func(t *testing.T) {
		fd, err := w.OpenUDP(keeper.UDPRequest{Local: at.Addr(), Slot: 5})
		if err != nil {
			t.Fatal(err)
		}
		s, err := udpio.NewSocket(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if p := s.Addr().Port(); p < 49152+5*64 || p >= 49152+6*64 {
			t.Errorf("source port %d, want one of slot 5", p)
		}
	})
	t.Run("another address", func(t *testing.T) { b.otherAddresses(w, at, first) })
	t.Run("refused", func(t *testing.T) {
		taken, err := udpio.OpenReceiver(at)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(taken)
		if _, err := listen(w, at); code(err) != keeper.CodeConflict {
			t.Errorf("a port that is taken: %v, want a conflict", err)
		}
		if _, err := listen(w, netip.MustParseAddrPort("192.0.2.77:4789")); code(err) != keeper.CodeNotFound {
			t.Errorf("an address of nobody: %v, want not found", err)
		}
		for _, r := range []keeper.UDPRequest{
			{}, {Listen: netip.MustParseAddrPort("127.0.0.1:0")}, {Listen: netip.MustParseAddrPort("224.0.0.1:4789")},
			{Listen: netip.MustParseAddrPort("[::ffff:10.0.0.1]:4789")}, {Local: netip.MustParseAddr("fe80::1%lo")},
			{Local: at.Addr(), Slot: 256}, {Local: at.Addr(), Slot: -1}, {Local: netip.IPv6Unspecified(), NoChecksum: true},
		} {
			if _, err := w.OpenUDP(r); code(err) != keeper.CodeInvalid {
				t.Errorf("%+v: %v, want %s", r, err, keeper.CodeInvalid)
			}
		}
	})
}
