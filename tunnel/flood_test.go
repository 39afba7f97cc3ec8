package tunnel_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// TestFloodIsEncapsulatedOnce floods broadcasts that wait together and whose
// checksums are partial, as a TAP delivers them: each is completed and
// encapsulated once, and every peer hears all of them, in order and complete.
func TestFloodIsEncapsulatedOnce(t *testing.T) {
	h, q := loopHost(t, nil)
	var peers []*vtep
	for i := range 5 {
		v := newVTEP(t, fmt.Sprintf("127.0.0.%d:0", i+2), h.tun.Listen())
		h.peer(v.at())
		peers = append(peers, v)
	}
	everybody := switchtest.Station{MAC: frame.Broadcast, Addr: netip.MustParseAddr("10.1.0.255"), Port: 4000}
	var want [][]byte
	var frames []frame.Frame
	for i := range 3 {
		b := switchtest.UDPFrame(alice, everybody, switchtest.Pattern(100+i))
		want = append(want, in(blueVNI, b))
		frames = append(frames, switchtest.Partial(b))
	}
	plain := switchtest.Padded(switchtest.ARPFrame(alice, bob.Addr))
	want = append(want, in(blueVNI, plain))
	frames = append(frames, frame.Frame{Data: plain})
	clear(h.tun.Arena())
	if n := q.InjectFrames(frames...); n != len(frames) {
		t.Fatalf("%d of %d frames taken", n, len(frames))
	}
	until(t, "the frames to be forwarded", func() bool { return h.sw.Stats().RxFrames >= uint64(len(frames)) })
	for i, b := range want {
		for _, v := range peers {
			if got, _ := v.hear(); !bytes.Equal(got, b) {
				t.Errorf("%v hears as datagram %d\n%x, want\n%x", v.at(), i, got, b)
			}
		}
		if n := bytes.Count(h.tun.Arena(), b); n != 1 {
			t.Errorf("datagram %d was made %d times for %d peers, want once", i, n, len(peers))
		}
	}
	h.conserve()
}
