package tunnel_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
	"github.com/tapestry-net/tapestry/switch/switchtest"
	"github.com/tapestry-net/tapestry/tunnel"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// vtep is a bare socket on the loopback, in the place of a remote VTEP.
type vtep struct {
	t testing.TB
	*net.UDPConn
	to netip.AddrPort
}

func newVTEP(t testing.TB, addr string, to netip.AddrPort) *vtep {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &vtep{t, c, to}
}

func (v *vtep) at() string { return v.LocalAddr().String() }

func (v *vtep) send(b []byte) {
	v.t.Helper()
	if _, err := v.WriteToUDPAddrPort(b, v.to); err != nil {
		v.t.Fatal(err)
	}
}

// hear returns the next datagram that is no message.
func (v *vtep) hear() ([]byte, netip.AddrPort) {
	v.t.Helper()
	b := make([]byte, 1<<16)
	_ = v.SetReadDeadline(time.Now().Add(patience)) // for all the messages in between
	for {
		n, from, err := v.ReadFromUDPAddrPort(b)
		if err != nil {
			v.t.Fatal(err)
		}
		if _, ok := tunnel.ParseMessage(b[:n]); !ok {
			return b[:n], from
		}
	}
}

// in is inner frame b in VXLAN.
func in(vni vxlan.VNI, b []byte) []byte {
	d := make([]byte, vxlan.HeaderLen, vxlan.HeaderLen+len(b))
	vxlan.Put(d, vni)
	return append(d, b...)
}

// loopHost is a host on the loopback with a local port in memory and peers that
// are bare sockets.
func loopHost(t testing.TB, edit func(*tunnel.Options)) (*host, *mem.Port) {
	t.Helper()
	return loopHostAt(t, "127.0.0.1:0", edit)
}

// loopHostAt is loopHost on another address.
func loopHostAt(t testing.TB, at string, edit func(*tunnel.Options)) (*host, *mem.Port) {
	t.Helper()
	q := loopQueue(t)
	h := newHost(t, nil, at, q, edit)
	h.apply()
	return h, q
}

// loopQueue is a port in memory with every offload.
func loopQueue(t testing.TB) *mem.Port {
	t.Helper()
	q, err := mem.New(mem.Options{Offloads: ^frame.Offloads(0)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

var (
	alice = switchtest.Station4(1)
	bob   = switchtest.Station4(2)
	hello = switchtest.Padded(switchtest.UDPFrame(bob, alice, []byte("hello")))
)

// TestAdmission tells, for each kind of datagram, whether it becomes a frame, and
// under which reason it is counted when it doesn't.
func TestAdmission(t *testing.T) {
	const red, redVNI = 20, 10020
	const green, greenVNI = 30, 10030
	const gold, goldVNI = 40, 10040
	tagged := switchtest.Tagged(blue, 3, hello)
	bad := func(bit int) []byte {
		b := in(blueVNI, hello)
		b[bit/8] ^= 0x80 >> (bit % 8)
		return b
	}
	type row struct {
		name string
		b    []byte
		want frame.Reason
	}
	rows := []row{
		{"good", in(blueVNI, hello), frame.ReasonNone},
		{"stacked S-tag", in(blueVNI, switchtest.STagged(5, 0, hello)), frame.ReasonNone},
		{"I flag clear", bad(4), frame.VXLANFlags},
		{"unknown VNI", in(77, hello), frame.UnknownVNI},
		{"VNI 0, no message", in(0, hello), frame.UnknownVNI},
		{"VNI of a network that the peer may not carry", in(redVNI, hello), frame.VNINotAllowed},
		{"encrypted network", in(greenVNI, hello), frame.PlaintextRefused},
		{"encrypted network that the peer may not carry", in(goldVNI, hello), frame.PlaintextRefused},
		{"encrypted network, tagged", in(greenVNI, tagged), frame.PlaintextRefused},
		{"tagged", in(blueVNI, tagged), frame.InnerTagged},
		{"priority tag", in(blueVNI, switchtest.Tagged(0, 3, hello)), frame.InnerTagged},
		{"empty", nil, frame.InnerShort},
		{"half a header", in(blueVNI, nil)[:4], frame.InnerShort},
		{"no inner frame", in(blueVNI, nil), frame.InnerShort},
		{"half an inner header", in(blueVNI, hello[:13]), frame.InnerShort},
	}
	for bit := range 64 {
		if bit == 4 || bit >= 32 && bit < 56 {
			continue // the I flag, the VNI
		}
		rows = append(rows, row{fmt.Sprintf("reserved bit %d", bit), bad(bit), frame.VXLANReserved})
	}
	for _, mode := range []vxlan.Mode{vxlan.DropReserved, vxlan.IgnoreReserved} {
		t.Run(fmt.Sprint("mode ", mode), func(t *testing.T) {
			h, q := loopHost(t, nil)
			h.reserved = mode
			h.nets = append(h.nets, tunnel.Network{VID: red, VNI: redVNI}, tunnel.Network{VID: green, VNI: greenVNI, Encrypt: true}, tunnel.Network{VID: gold, VNI: goldVNI, Encrypt: true})
			p := newVTEP(t, "127.0.0.2:0", h.tun.Listen())
			h.peer(p.at(), blue, green)
			for _, r := range rows {
				if mode == vxlan.IgnoreReserved && r.want == frame.VXLANReserved {
					r.want = frame.ReasonNone
				}
				h.table.Flush(fdb.Filter{})
				before, heard := h.tun.Status()[0].Drops, h.sw.Stats().RxFrames
				p.send(r.b)
				if r.want == frame.ReasonNone {
					until(t, r.name+" to be forwarded", func() bool { return h.sw.Stats().RxFrames == heard+1 })
					if got := q.Drain(); len(got) != 1 {
						t.Errorf("%s: %d frames delivered, want 1", r.name, len(got))
					}
					continue
				}
				before[r.want]++
				until(t, r.name+" to be counted", func() bool { return h.tun.Status()[0].Drops == before })
				if n := h.table.Len(); n != 0 {
					t.Errorf("%s: taught %d addresses", r.name, n)
				}
			}
			stranger := newVTEP(t, "127.0.0.3:0", h.tun.Listen())
			for i, b := range [][]byte{in(blueVNI, hello), in(77, hello), bad(4), in(greenVNI, nil), nil} {
				stranger.send(b)
				until(t, "the stranger to be counted", func() bool { return h.tun.Refused()[frame.UnknownPeer] == uint64(i+1) })
			}
			before := h.tun.Refused()[frame.PlaintextRefused]
			stranger.send(in(greenVNI, hello))
			until(t, "a stranger's frame of an encrypted network", func() bool { return h.tun.Refused()[frame.PlaintextRefused] == before+1 })
			if s := h.tun.Strangers(); s[frame.PlaintextRefused] != 1 || s[frame.UnknownPeer] != 5 {
				t.Errorf("of strangers refused: %v", s)
			}
			if got := q.Drain(); len(got) != 0 {
				t.Errorf("%d frames of a stranger delivered", len(got))
			}
			h.conserve()
		})
	}
}

// TestEgress holds what is sent to RFC 7348: the header, the source port, the
// frame without the tag that told its network.
func TestEgress(t *testing.T) {
	h, q := loopHost(t, nil)
	h.nets = append(h.nets, tunnel.Network{VID: 30, VNI: 10030, Encrypt: true})
	p := newVTEP(t, "127.0.0.2:0", h.tun.Listen())
	id := h.peer(p.at(), blue, 30)
	h.local.Native, h.local.Tagged = blue, []frame.VID{30}
	h.apply()

	q.Inject(hello)
	got, from := p.hear()
	if want := in(blueVNI, hello); !slices.Equal(got, want) {
		t.Errorf("sent % x\nwant % x", got, want)
	}
	if from.Port() < 49152 {
		t.Errorf("source port %d, want 49152 to 65535", from.Port())
	}
	q.Inject(switchtest.Tagged(blue, 5, hello))
	if got, _ := p.hear(); !slices.Equal(got, in(blueVNI, hello)) {
		t.Errorf("a tagged frame leaves as % x", got)
	}
	q.Inject(switchtest.Tagged(0, 5, hello))
	if got, _ := p.hear(); !slices.Equal(got, in(blueVNI, hello)) {
		t.Errorf("a priority-tagged frame leaves as % x", got)
	}
	q.Inject(switchtest.Tagged(30, 0, hello))
	until(t, "a frame of the encrypted network to be refused", func() bool {
		st, _ := h.sw.PortStats(id)
		return st.Drops[frame.NotEncryptedYet] == 1
	})
	q.Inject(switchtest.Tagged(blue, 0, switchtest.Tagged(99, 0, hello)))
	until(t, "a frame with a second tag to be refused", func() bool {
		st, _ := h.sw.PortStats(id)
		return st.Drops[frame.InnerTagged] == 1
	})
	h.conserve()
}

// TestSourcePorts sends 64 flows, each often: a flow keeps its port once its
// socket is open, and the flows have at least 48 ports among them.
func TestSourcePorts(t *testing.T) {
	h, q := loopHost(t, nil)
	p := newVTEP(t, "127.0.0.2:0", h.tun.Listen())
	h.peer(p.at())
	ports := make(map[uint16]bool)
	flows := make([]uint16, 64)
	settled := 0
	for round := 0; settled < len(flows); round++ {
		if round == 50 {
			t.Fatalf("%d flows keep their port after %d rounds", settled, round)
		}
		settled = 0
		clear(ports)
		for i := range flows {
			a := alice
			a.Port = uint16(5000 + i)
			q.Inject(switchtest.Padded(switchtest.UDPFrame(a, bob, []byte{byte(i)})))
			if _, from := p.hear(); from.Port() == flows[i] {
				settled++
			} else {
				flows[i] = from.Port()
			}
			ports[flows[i]] = true
		}
		if len(ports) < 48 {
			settled = 0
		}
	}
	t.Logf("%d ports", len(ports))
}

// TestFloodAndReturn floods to three peers once each, answers by unicast, and
// never sends from peer to peer.
func TestFloodAndReturn(t *testing.T) {
	h, q := loopHost(t, nil)
	var peers []*vtep
	for i := range 3 {
		p := newVTEP(t, fmt.Sprintf("127.0.0.%d:0", i+2), h.tun.Listen())
		h.peer(p.at())
		peers = append(peers, p)
	}
	arp := switchtest.Padded(switchtest.ARPFrame(alice, bob.Addr))
	q.Inject(arp)
	for i, p := range peers {
		if got, _ := p.hear(); !slices.Equal(got, in(blueVNI, arp)) {
			t.Errorf("peer %d hears % x", i, got)
		}
	}
	peers[1].send(in(blueVNI, hello))
	until(t, "bob to be heard", func() bool { return len(q.Drain()) == 1 })
	q.Inject(switchtest.Padded(switchtest.UDPFrame(alice, bob, []byte("to bob"))))
	peers[1].hear()
	peers[0].send(in(blueVNI, switchtest.Padded(switchtest.ARPFrame(switchtest.Station4(3), alice.Addr))))
	until(t, "a flood of a peer to arrive", func() bool { return len(q.Drain()) == 1 })
	last := switchtest.Padded(switchtest.ARPFrame(alice, switchtest.Station4(9).Addr))
	q.Inject(last)
	for i, p := range peers {
		if got, _ := p.hear(); !slices.Equal(got, in(blueVNI, last)) {
			t.Errorf("peer %d hears % x before what was flooded last", i, got)
		}
	}
	h.conserve()
}

// TestSuperFrames sends a GSO frame to one peer as datagrams of its segments,
// and a run of datagrams arrives as one GSO frame.
func TestSuperFrames(t *testing.T) {
	a, qa := loopHost(t, nil)
	q, err := mem.New(mem.Options{Offloads: ^frame.Offloads(0)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	b := newHost(t, nil, "127.0.0.2:0", q, nil)
	a.peer(b.tun.Listen().String())
	b.peer(a.tun.Listen().String())
	payload := switchtest.Pattern(30000)
	f := switchtest.Super(switchtest.TCPFrame(alice, bob, switchtest.Segment{Seq: 1, Ack: 1}, payload), 1000)
	qa.InjectFrames(f)
	var got []frame.Frame
	octets := 0
	until(t, "all segments", func() bool {
		for _, f := range q.Drain() {
			got = append(got, f)
			octets += len(f.Data) - 54
		}
		return octets >= len(payload)
	})
	if len(got) > 2 || got[0].GSO.Type != frame.GSOTCPv4 || got[0].GSO.Size != 1000 {
		t.Errorf("%d frames arrive, the first with %+v; want one or two of segments of 1000", len(got), got[0].GSO)
	}
	a.conserve()
	b.conserve()
}

// TestECNAndTOS holds the outer header to the inner one.
func TestECNAndTOS(t *testing.T) {
	h, q := loopHost(t, nil)
	p := newVTEP(t, "127.0.0.2:0", h.tun.Listen())
	h.peer(p.at())
	raw, err := p.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVTOS, 1) }); err != nil {
		t.Fatal(err)
	}
	f := slices.Clone(hello)
	f[15] = 0xb8 | 2 // EF, ECT(0)
	binary.BigEndian.PutUint16(f[24:], 0)
	q.Inject(f)
	b, oob := make([]byte, 2048), make([]byte, 128)
	for {
		_ = p.SetReadDeadline(time.Now().Add(patience))
		n, k, _, _, err := p.ReadMsgUDP(b, oob)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := tunnel.ParseMessage(b[:n]); ok {
			continue
		}
		m, err := unix.ParseSocketControlMessage(oob[:k])
		if err != nil || len(m) != 1 || m[0].Data[0] != 0xba {
			t.Errorf("outer TOS %v, %v; want 0xba", m, err)
		}
		return
	}
}
