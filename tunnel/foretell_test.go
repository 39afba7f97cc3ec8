package tunnel_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/udpio"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
	"github.com/tapestry-net/tapestry/switch/switchtest"
	"github.com/tapestry-net/tapestry/tunnel"
)

// TestExplainForetells asks, for 100,000 random frames and datagrams under random
// configurations, what would happen, then lets it happen: verdict, copies, tags
// and refusals are those foretold, and so are the headers of what leaves by
// tunnels. Ports are in memory, peers are sockets on the loopback.
func TestExplainForetells(t *testing.T) {
	want, each := 100_000, 500
	if racing {
		want, each = 5_000, 40
	}
	o := newOracle(t)
	o.echo()
	for (o.frames < want || !racing && o.unmet()) && o.frames < 10*want && !t.Failed() {
		rapid.Check(t, func(rt *rapid.T) { o.check(rt, each) })
	}
	o.conserve()
	t.Logf("%d frames and datagrams, %d configurations, %d copies by tunnels", o.frames, o.configs, o.encapsulated)
	for _, r := range foretold {
		t.Logf("%8d %v", o.seen[r], r)
		if o.seen[r] == 0 && !racing {
			t.Errorf("%v: never met", r)
		}
	}
}

// unmet reports whether a reason of foretold is still to be met.
func (o *oracle) unmet() bool {
	return slices.ContainsFunc(foretold, func(r frame.Reason) bool { return o.seen[r] == 0 })
}

// foretold are the reasons that must have been met, in verdicts or in copies.
var foretold = []frame.Reason{
	frame.KnownUnicast, frame.UnknownUnicast, frame.BroadcastAddr, frame.MulticastAddr, frame.TooShort, frame.BadSource,
	frame.VLANNotMember, frame.TagNotAccepted, frame.VIDReservedValue, frame.ReservedGroup, frame.SpoofedSource, frame.Storm,
	frame.Loop, frame.SamePort, frame.NoEgress, frame.SplitHorizon, frame.Isolated, frame.MTUExceeded, frame.TransmitRefused,
	frame.EgressDown, frame.UnknownPeer, frame.UnknownVNI, frame.VNINotAllowed, frame.VXLANFlags, frame.VXLANReserved,
	frame.InnerShort, frame.InnerTagged, frame.PlaintextRefused, frame.NotEncryptedYet, frame.BadHeader,
}

// oracle is a host whose future is asked for before it happens. Ports 1 to 5 are
// local, 6 to 8 are peers.
type oracle struct {
	t     *testing.T
	table *fdb.Table
	sw    *vswitch.Switch
	tun   *tunnel.Tunnel
	ports [5]*mem.Port
	far   [4]*remote // the last one is a stranger
	done  chan happened
	clock struct {
		sync.Mutex
		now time.Time
	}

	nets  []tunnel.Network
	peers []tunnel.PeerSpec
	up    []frame.PortID // local ports that have a queue
	last  frame.Frame
	made  map[payload][]byte

	frames, configs, encapsulated int
	seen                          [frame.NumReasons]int
}

// happened is what an observer sees of a frame.
type happened struct {
	In      frame.PortID
	Verdict frame.Verdict
	Copies  []frame.Copy
}

const firstPeer = 6

func newOracle(t *testing.T) *oracle {
	o := &oracle{t: t, table: newTable(t), done: make(chan happened, 1), made: map[payload][]byte{}}
	o.clock.now = time.Now()
	fd, err := udpio.OpenReceiver(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	watchers := &tunnel.Observers{}
	watchers.Add(o)
	if o.tun, err = tunnel.New(tunnel.Options{Socket: fd, Open: udpio.OpenSender, Ticks: make(chan time.Time), Observers: watchers}); err != nil {
		t.Fatal(err)
	}
	if err := o.tun.OpenAll(); err != nil {
		t.Fatal(err)
	}
	o.tun.Hush() // there is no tick
	if o.sw, err = vswitch.New(vswitch.Options{FDB: o.table, Loops: 2, Now: o.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		o.sw.Close()
		o.tun.Close()
	})
	for i := range o.ports {
		can := ^frame.Offloads(0)
		if i%2 == 1 {
			can = 0
		}
		if o.ports[i], err = mem.New(mem.Options{Offloads: can, Discard: true}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { o.ports[i].Close() })
	}
	for i := range o.far {
		o.far[i] = newRemote(t, [4]byte{127, 0, 0, byte(2 + i)}, o.tun.Listen())
	}
	o.sw.Observe(o)
	return o
}

func (o *oracle) now() time.Time {
	o.clock.Lock()
	defer o.clock.Unlock()
	return o.clock.now
}

func (o *oracle) wait(d time.Duration) {
	o.clock.Lock()
	defer o.clock.Unlock()
	o.clock.now = o.clock.now.Add(d)
}

// Observe implements vswitch.Observer and tunnel.Observer. What nobody takes, as
// happens in a check that has failed, is left, so that the switch goes on.
func (o *oracle) Observe(x *frame.Observation) {
	select {
	case o.done <- happened{x.In, x.Verdict, slices.Clone(x.Copies)}:
	case <-time.After(patience):
	}
}

// clear takes the configuration away, what it has taught, and what a check that
// has failed left.
func (o *oracle) clear(t rapid.TB) {
	if err := o.sw.Apply(vswitch.Spec{}); err != nil {
		t.Fatal(err)
	}
	o.table.Flush(fdb.Filter{})
	for k := range o.statics() {
		o.table.Delete(k)
	}
	select {
	case <-o.done:
	default:
	}
	for _, far := range o.far {
		far.drain(false)
	}
}

// echo has the same broadcast come in by two guarded ports in turns, as it does
// in a loop, until the guard cuts one.
func (o *oracle) echo() {
	o.clear(o.t)
	s := vswitch.Spec{Networks: []vswitch.Network{{Name: "n10", VID: 10}}}
	for i := range 3 {
		s.Ports = append(s.Ports, vswitch.Port{ID: frame.PortID(i + 1), Name: fmt.Sprint("p", i+1), Queue: o.ports[i], Native: 10, LoopGuard: true})
	}
	if err := o.sw.Apply(s); err != nil {
		o.t.Fatal(err)
	}
	f := frame.Frame{Data: switchtest.Padded(switchtest.ARPFrame(switchtest.Station4(1), switchtest.Station4(2).Addr))}
	for i := 0; i < 60 && o.seen[frame.Loop] == 0; i++ {
		o.wait(20 * time.Millisecond)
		o.send(o.t, frame.PortID(1+i%2), f)
		o.frames++
	}
	if o.seen[frame.Loop] == 0 {
		o.t.Error("no port is cut for a loop")
	}
}

// check draws a configuration and sends frames under it.
func (o *oracle) check(t *rapid.T, frames int) {
	o.clear(t)
	o.configure(t)
	o.configs++
	for i := range rapid.IntRange(1, 2*frames).Draw(t, "frames") {
		d := throw(rapid.Uint64().Draw(t, "frame"), i)
		o.wait(time.Duration(d.pick(16)) * time.Millisecond)
		if d.pick(4) == 0 || len(o.up) == 0 {
			o.datagram(t, &d)
		} else {
			o.frame(t, &d)
		}
		o.frames++
	}
}

// statics are the entries that a flush leaves.
func (o *oracle) statics() map[fdb.Key]bool {
	keys := map[fdb.Key]bool{}
	o.table.Walk(func(e fdb.Entry) bool { keys[fdb.MakeKey(e.VID, e.MAC)] = true; return true })
	return keys
}

// frame asks what a local port's frame would lead to, and sends it.
func (o *oracle) frame(t *rapid.T, d *dice) {
	in := o.up[d.pick(len(o.up))]
	o.send(t, in, o.draw(d))
}

func (o *oracle) send(t rapid.TB, in frame.PortID, f frame.Frame) {
	x := o.sw.Explain(in, f)
	if o.ports[in-1].InjectFrames(f) != 1 {
		t.Fatalf("port %d takes no frame of %d octets", in, len(f.Data))
	}
	o.compare(t, in, &f, x)
}

// datagram asks what a peer's datagram would lead to, and sends it.
func (o *oracle) datagram(t *rapid.T, d *dice) {
	from := o.far[d.pick(len(o.far))]
	b := o.drawDatagram(d)
	tos := uint8([]int{0, 0, 1, 3}[d.pick(4)])
	x := o.tun.Explain(from.addr, b, tos, false)
	if x.Refused == frame.ReasonNone {
		y := o.sw.Explain(x.Frame.In, x.Frame)
		from.send(t, b, tos)
		o.compare(t, x.Frame.In, &x.Frame, y)
		return
	}
	from.send(t, b, tos)
	if got := o.next(t, b); got.Verdict.Reason != x.Refused {
		t.Fatalf("datagram %x with TOS %d from %v: explained %v, refused as %v", b, tos, from.addr, x.Refused, got.Verdict.Reason)
	}
	o.seen[x.Refused]++
}

// next is what happens next.
func (o *oracle) next(t rapid.TB, b []byte) (got happened) {
	select {
	case got = <-o.done:
	case <-time.After(patience):
		t.Fatalf("nothing happens to %x", b[:min(len(b), 64)])
	}
	return got
}

// compare waits for a frame and holds what became of it to the explanation.
func (o *oracle) compare(t rapid.TB, in frame.PortID, f *frame.Frame, x vswitch.Explanation) {
	want := happened{in, x.Verdict, x.Copies}
	got := o.next(t, f.Data)
	if len(got.Copies) == 0 {
		got.Copies = nil
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("frame %x (%d octets, %+v) at port %d: explained (-), happened (+):\n%s\n%+v", f.Data[:min(len(f.Data), 64)], len(f.Data), f.GSO, in, diff, x.Steps)
	}
	o.seen[got.Verdict.Reason]++
	var legs [len(o.far)]bool
	for _, c := range got.Copies {
		if c.Refused != frame.ReasonNone {
			o.seen[c.Refused]++
			continue
		}
		if c.Port >= firstPeer {
			o.encapsulated++
			legs[c.Port-firstPeer] = true
		}
	}
	for i, far := range o.far {
		outer, n := far.drain(legs[i])
		if n > 0 && !legs[i] && f.GSO.Type != frame.GSONone {
			continue // the last segment may fit where the first does not
		}
		if (n > 0) != legs[i] {
			t.Fatalf("peer %d hears %d datagrams of %+v", firstPeer+i, n, got)
		}
		if n == 0 {
			continue
		}
		said := x.Outer[frame.PortID(firstPeer+i)]
		if said != outer {
			t.Fatalf("frame %x to peer %d: explained %+v, sent %+v", f.Data[:min(len(f.Data), 64)], firstPeer+i, said, outer)
		}
	}
}

// conserve demands that nothing vanished without a name.
func (o *oracle) conserve() {
	if err := o.sw.Apply(vswitch.Spec{}); err != nil { // the loops have counted by then
		o.t.Fatal(err)
	}
	s := o.sw.Stats()
	var verdicts, drops uint64
	for _, n := range s.Verdicts {
		verdicts += n
	}
	for _, n := range s.Drops {
		drops += n
	}
	if s.RxFrames != verdicts || s.Decided != s.Sent+s.Refused || drops != s.Verdicts[frame.Drop]+s.Refused {
		o.t.Errorf("the switch doesn't conserve: %+v", s)
	}
}

// remote is a bare socket in the place of a VTEP.
type remote struct {
	fd       int
	addr     netip.Addr
	at       netip.AddrPort
	to       unix.SockaddrInet4
	tos      uint8
	data, cm []byte
}

func newRemote(t *testing.T, addr [4]byte, to netip.AddrPort) *remote {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: addr}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	for _, opt := range []int{unix.IP_RECVTOS, unix.IP_RECVTTL} {
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, opt, 1); err != nil {
			t.Fatal(err)
		}
	}
	r := &remote{fd: fd, addr: netip.AddrFrom4(addr), to: unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}}
	r.at = netip.AddrPortFrom(r.addr, uint16(name.(*unix.SockaddrInet4).Port))
	r.data, r.cm = make([]byte, 1<<16), make([]byte, 256)
	return r
}

func (r *remote) send(t *rapid.T, b []byte, tos uint8) {
	if tos != r.tos {
		if err := unix.SetsockoptInt(r.fd, unix.SOL_IP, unix.IP_TOS, int(tos)); err != nil {
			t.Fatal(err)
		}
		r.tos = tos
	}
	if err := unix.Sendto(r.fd, b, 0, &r.to); err != nil {
		t.Fatal(err)
	}
}

// drain takes all datagrams and returns the outside of the first. One that is
// expected is waited for.
func (r *remote) drain(expected bool) (o frame.Outer, n int) {
	if expected {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	}
	for ; ; n++ {
		size, cms, _, from, err := unix.Recvmsg(r.fd, r.data, r.cm, 0)
		if err != nil {
			return o, n
		}
		if n > 0 {
			continue
		}
		src := from.(*unix.SockaddrInet4)
		o = frame.Outer{
			Source: netip.AddrPortFrom(netip.AddrFrom4(src.Addr), uint16(src.Port)), Destination: r.at,
			Len: size + 28, VNI: binary.BigEndian.Uint32(r.data[4:]) >> 8,
		}
		list, _ := unix.ParseSocketControlMessage(r.cm[:cms])
		for _, m := range list {
			switch m.Header.Type {
			case unix.IP_TOS:
				o.TOS = m.Data[0]
			case unix.IP_TTL:
				o.TTL = uint8(binary.NativeEndian.Uint32(m.Data))
			}
		}
	}
}

// dice are choices made of one number.
type dice uint64

// throw spreads the small numbers that rapid prefers. Frame i of a configuration
// is another one than an earlier one with the same number.
func throw(n uint64, i int) dice {
	n += uint64(i) * 0x9e3779b97f4a7c15 // splitmix64
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return dice(n ^ n>>31)
}

func (d *dice) pick(n int) int {
	x := int(*d % dice(n))
	*d /= dice(n)
	return x
}
