package tunnel_test

import (
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

// sight is what an observer has seen.
type sight struct {
	mu   sync.Mutex
	list []frame.Observation
}

func (s *sight) Observe(o *frame.Observation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := *o
	c.Frame = &frame.Frame{Data: slices.Clone(o.Frame.Data)}
	s.list = append(s.list, c)
}

func (s *sight) seen() []frame.Observation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// TestObserve: what is refused is shown with its reason, its sender and headers
// that other programs take apart; what is admitted is the switch's to show.
func TestObserve(t *testing.T) {
	for _, family := range []struct{ here, there, stranger string }{
		{"127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"},
		{"[::1]:0", "[::1]:0", "127.0.0.3:0"},
	} {
		var observers tunnel.Observers
		var eye sight
		observers.Add(&eye)
		h := newHost(t, nil, family.here, loopQueue(t), func(o *tunnel.Options) { o.Observers = &observers })
		h.apply()
		p := newVTEP(t, family.there, h.tun.Listen())
		id := h.peer(p.at())
		p.send(in(blueVNI, hello))
		p.send(in(77, hello))
		until(t, "the datagram to be shown", func() bool { return len(eye.seen()) == 1 })
		o := eye.seen()[0]
		if want := (frame.Verdict{Reason: frame.UnknownVNI}); o.In != id || o.Verdict != want || o.Time.IsZero() {
			t.Errorf("shown as %+v from port %d at %v, want %+v from %d", o.Verdict, o.In, o.Time, want, id)
		}
		checkOuter(t, o.Frame.Data, p.LocalAddr().String(), h.tun.Listen(), in(77, hello))
		if h.tun.Listen().Addr().Is4() {
			stranger := newVTEP(t, family.stranger, h.tun.Listen())
			stranger.send(in(blueVNI, hello))
			until(t, "the stranger to be shown", func() bool { return len(eye.seen()) == 2 })
			if o := eye.seen()[1]; o.In != 0 || o.Verdict.Reason != frame.UnknownPeer {
				t.Errorf("the stranger is shown as %+v from port %d", o.Verdict, o.In)
			}
		}
		observers.Remove(&eye)
		n := len(eye.seen())
		p.send(in(77, hello))
		until(t, "another to be refused", func() bool { return h.tun.Refused()[frame.UnknownVNI] == 2 })
		if got := len(eye.seen()); got != n {
			t.Errorf("an observer that was taken away is shown %d more", got-n)
		}
	}
}

// checkOuter takes b apart with gopacket, which verifies no more than lengths, so
// the checksums are computed here.
func checkOuter(t *testing.T, b []byte, from string, to netip.AddrPort, payload []byte) {
	t.Helper()
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	udp, ok := p.TransportLayer().(*layers.UDP)
	if !ok || p.ErrorLayer() != nil {
		t.Fatalf("not UDP: %v", p)
	}
	src, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Src().Raw())
	dst, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Dst().Raw())
	gotFrom := netip.AddrPortFrom(src, uint16(udp.SrcPort)).String()
	gotTo := netip.AddrPortFrom(dst, uint16(udp.DstPort))
	if gotFrom != from || gotTo != to || !slices.Equal(udp.LayerPayload(), payload) {
		t.Errorf("%s > %v with % x\nwant %s > %v with % x", gotFrom, gotTo, udp.LayerPayload(), from, to, payload)
	}
	var network gopacket.SerializableLayer
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		if ip.TTL == 0 {
			t.Error("no TTL")
		}
		_ = udp.SetNetworkLayerForChecksum(ip)
		network = ip
	case *layers.IPv6:
		if ip.HopLimit == 0 {
			t.Error("no hop limit")
		}
		_ = udp.SetNetworkLayerForChecksum(ip)
		network = ip
	}
	again := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(again, gopacket.SerializeOptions{ComputeChecksums: true, FixLengths: true},
		network, udp, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	want := again.Bytes()
	if to.Addr().Is4() {
		want[26], want[27] = 0, 0 // IPv4 may leave the checksum of UDP out
	}
	if got := b[frame.HeaderLen:]; !slices.Equal(got, want) {
		t.Errorf("packet % x\nwant % x", got, want)
	}
}
