package tunnel_test

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/udpio"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

// TestSegmentationIsTriedAgain has the underlay refuse UDP_SEGMENT for a while.
func TestSegmentationIsTriedAgain(t *testing.T) {
	var sockets []int
	ticks := make(chan time.Time)
	h, q := loopHost(t, func(o *tunnel.Options) {
		o.Ticks = ticks
		o.Open = func(so udpio.SenderOptions) (int, error) {
			fd, err := udpio.OpenSender(so)
			sockets = append(sockets, fd)
			return fd, err
		}
	})
	p := newVTEP(t, "127.0.0.2:0", h.tun.Listen())
	id := h.peer(p.at())
	if err := h.tun.OpenAll(); err != nil {
		t.Fatal(err)
	}
	can := func(yes int) {
		for _, fd := range sockets {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1-yes); err != nil {
				t.Fatal(err)
			}
		}
	}
	now := time.Unix(1e9, 0)
	pass := func(seconds int) {
		for range 5 * seconds {
			now = now.Add(time.Second / 5)
			ticks <- now
			ticks <- now // taken when the first is done with
		}
	}
	pass(10) // the first look
	can(0)
	until(t, "UDP_SEGMENT to be refused", func() bool {
		q.InjectFrames(frame.Frame{Data: hello}, frame.Frame{Data: hello}, frame.Frame{Data: hello})
		return !h.tun.Segments(id)
	})
	can(1)
	if pass(20); h.tun.Segments(id) {
		t.Error("tried again within ten seconds")
	}
	if pass(400); !h.tun.Segments(id) {
		t.Error("UDP_SEGMENT isn't tried again when the path is looked at anew")
	}
}

// TestSocketsAreClosed counts the sending sockets that a tunnel opens, and those
// that are left when it is closed.
func TestSocketsAreClosed(t *testing.T) {
	for range 20 {
		var mu sync.Mutex
		opened := map[string]bool{}
		o := tunnel.Options{Ticks: make(chan time.Time), Open: func(so udpio.SenderOptions) (int, error) {
			fd, err := udpio.OpenSender(so)
			mu.Lock()
			defer mu.Unlock()
			opened[socketName(t, fd)] = true
			return fd, err
		}}
		var err error
		if o.Socket, err = udpio.OpenReceiver(netip.MustParseAddrPort("[::]:0")); err != nil {
			t.Fatal(err)
		}
		tun, err := tunnel.New(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := tun.Apply(tunnel.Spec{Networks: []tunnel.Network{{VID: blue, VNI: blueVNI}}, Peers: []tunnel.PeerSpec{
			{ID: 2, Name: "four", Address: netip.MustParseAddrPort("127.0.0.2:4789"), VIDs: []frame.VID{blue}},
			{ID: 3, Name: "six", Address: netip.MustParseAddrPort("[::1]:4789"), VIDs: []frame.VID{blue}},
		}}); err != nil {
			t.Fatal(err)
		}
		if err := tun.Close(); err != nil {
			t.Error(err)
		}
		left := 0
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && opened[name] {
				left++
			}
		}
		if len(opened) != 2 || left != 0 {
			t.Fatalf("%d sockets opened for two families, %d left open", len(opened), left)
		}
	}
}

// socketName is what the kernel calls a descriptor's socket.
func socketName(t *testing.T, fd int) string {
	t.Helper()
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		t.Error(err)
	}
	return name
}
