package audit_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/audit"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

func mac(i int) frame.MAC { return frame.MACFromUint64(0x02_0000_0000_00 + uint64(i)) }

// demand wants one finding for each text, with everything that a finding has.
func demand(t *testing.T, name string, got []audit.Finding, want ...string) {
	t.Helper()
	for _, f := range got {
		if f.Area == "" || f.Subject == "" || f.What == "" || f.Want == "" || f.Got == "" || f.Hint == "" {
			t.Errorf("%s: something is left out of %+v", name, f)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d findings, want %d:\n%+v", name, len(got), len(want), got)
		return
	}
	for i, w := range want {
		if !strings.Contains(got[i].What, w) {
			t.Errorf("%s: finding %d: %q, want %q", name, i, got[i].What, w)
		}
	}
}

// vethPort is a veth port that is as it was made, and the interfaces of the
// daemon's namespace.
func vethPort() (audit.Port, []audit.Interface) {
	addr, gw := netip.MustParsePrefix("10.1.0.2/24"), netip.MustParseAddr("10.1.0.1")
	return audit.Port{
			Name: "c1", Netns: "ns1", Device: "eth0", Index: 7, MAC: mac(1), MTU: 1450, Addresses: []netip.Prefix{addr}, Gateway: gw, HostEnd: "tpv1", Splice: "tps1",
			Inside: []audit.Interface{{Index: 1, Name: "lo"}, {Index: 7, Name: "eth0", MAC: mac(1), MTU: 1450, Up: true, Carrier: true, Addresses: []netip.Prefix{addr}, Gateways: []netip.Addr{gw}}},
		}, []audit.Interface{
			{Index: 3, Name: "tpv1", MTU: 1450, Up: true, Carrier: true, Redirect: 4}, {Index: 4, Name: "tps1", MTU: 1450, Up: true, Carrier: true, Redirect: 3},
		}
}

// TestKernel changes one thing at a time behind the switch's back.
func TestKernel(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(p *audit.Port, own *[]audit.Interface)
		want   []string
	}{
		{"nothing", func(*audit.Port, *[]audit.Interface) {}, nil},
		{"deleted", func(p *audit.Port, _ *[]audit.Interface) { p.Inside = p.Inside[:1] }, []string{"interface eth0 has gone: it is not there"}},
		{"made anew", func(p *audit.Port, _ *[]audit.Interface) { p.Inside[1].Index = 9 }, []string{"has gone: interface number 9 bears that name"}},
		{"renamed", func(p *audit.Port, _ *[]audit.Interface) { p.Inside[1].Name = "net0" }, []string{"is called net0, it was opened as eth0"}},
		{"down", func(p *audit.Port, _ *[]audit.Interface) { p.Inside[1].Up = false }, []string{"interface eth0 is set down"}},
		{"carrier", func(p *audit.Port, _ *[]audit.Interface) { p.Inside[1].Carrier = false }, []string{"has no carrier"}},
		{"MTU", func(p *audit.Port, _ *[]audit.Interface) { p.Inside[1].MTU = 1400 }, []string{"has MTU 1400, its network wants 1450"}},
		{"a larger MTU", func(p *audit.Port, _ *[]audit.Interface) { p.Inside[1].MTU = 9000 }, []string{"has MTU 9000"}},
		{"another's larger MTU", func(p *audit.Port, _ *[]audit.Interface) { p.Least = true; p.Inside[1].MTU = 9000 }, nil},
		{"MAC", func(p *audit.Port, _ *[]audit.Interface) { p.Inside[1].MAC = mac(9) }, []string{"has the address 02:00:00:00:00:09, it was given 02:00:00:00:00:01"}},
		{"address", func(p *audit.Port, _ *[]audit.Interface) { p.Inside[1].Addresses = nil }, []string{"lacks the address 10.1.0.2/24"}},
		{"route", func(p *audit.Port, _ *[]audit.Interface) { p.Inside[1].Gateways = nil }, []string{"the default route by 10.1.0.1 has gone"}},
		{"another route", func(p *audit.Port, _ *[]audit.Interface) { p.Gateway = netip.MustParseAddr("10.1.0.9") }, []string{"the default route by 10.1.0.9 has gone"}},
		{"bridge", func(p *audit.Port, _ *[]audit.Interface) {
			p.Inside[1].Master = 8
			p.Inside = append(p.Inside, audit.Interface{Index: 8, Name: "br0"})
		}, []string{"belongs to br0"}},
		{"unknown bridge", func(p *audit.Port, _ *[]audit.Interface) { p.Inside[1].Master = 8 }, []string{"belongs to interface 8"}},
		{"no filter", func(_ *audit.Port, own *[]audit.Interface) { (*own)[0].Redirect = 0 }, []string{"takes frames from tpv1 to tps1 has gone"}},
		{"a wrong filter", func(_ *audit.Port, own *[]audit.Interface) { (*own)[1].Redirect = 99 }, []string{"takes frames from tps1 to tpv1 has gone"}},
		{"host end down", func(_ *audit.Port, own *[]audit.Interface) { (*own)[0].Up = false }, []string{"interface tpv1, a part of it in the switch's namespace, is set down"}},
		{"splice gone", func(_ *audit.Port, own *[]audit.Interface) { *own = (*own)[:1] }, []string{"interface tps1, a part of it in the switch's namespace, has gone"}},
	} {
		p, own := vethPort()
		c.change(&p, &own)
		demand(t, c.name, audit.Kernel([]audit.Port{p}, own), c.want...)
	}
	for netns, want := range map[string]string{
		"": "ip link set eth0 mtu 1450", "ns1": "ip netns exec ns1 ip link", "pid:7": "nsenter -t 7 -n ip link", "/proc/7/ns/net": "nsenter --net=/proc/7/ns/net ip link",
	} {
		p, own := vethPort()
		p.Netns, p.Inside[1].MTU = netns, 9
		if got := audit.Kernel([]audit.Port{p}, own); !strings.HasPrefix(got[0].Hint, want) {
			t.Errorf("in %q: hint %q, want %q", netns, got[0].Hint, want)
		}
	}
}

// wanted has the ports a and b in VLAN 10, c in 20, and the peer h in both.
func wanted() *audit.Wanted {
	return &audit.Wanted{
		Members: map[frame.PortID]audit.Member{
			1: {Name: "a", VIDs: []frame.VID{10}, MAC: mac(0xa)},
			2: {Name: "b", VIDs: []frame.VID{10}, MAC: mac(0xb)},
			3: {Name: "c", VIDs: []frame.VID{20}, Reason: "its namespace has gone"},
			9: {Name: "peer/h", VIDs: []frame.VID{10, 20}},
		},
		Static:  map[audit.Key]frame.PortID{key(10, 50): 1},
		Network: func(v frame.VID) string { return map[frame.VID]string{10: "blue", 20: "red"}[v] },
		Ageing:  func(frame.VID) string { return "5m0s" },
	}
}

func key(v frame.VID, i int) audit.Key { return audit.Key{VID: v, MAC: mac(i)} }

func TestTable(t *testing.T) {
	good := []audit.Entry{
		{Key: key(10, 50), Port: 1, Static: true}, {Key: key(10, 0xa), Port: 1}, {Key: key(20, 0xa), Port: 9}, {Key: key(10, 1), Port: 9},
	}
	for _, c := range []struct {
		name string
		more []audit.Entry
		want []string
	}{
		{"good", nil, nil},
		{"port gone", []audit.Entry{{Key: key(10, 1), Port: 7}}, []string{"the entry of 02:00:00:00:00:01 of port #7: there is no port or peer"}},
		{"port down", []audit.Entry{{Key: key(20, 1), Port: 3}, {Key: key(20, 2), Port: 3}}, []string{"2 entries of port c: the port is down (its namespace has gone)"}},
		{"no member", []audit.Entry{{Key: key(20, 1), Port: 1}}, []string{"is no member of network red"}},
		{"an interface's address", []audit.Entry{{Key: key(10, 0xb), Port: 1}}, []string{"belongs to the interface of port b, the table has it behind port a"}},
		{"unwanted static", []audit.Entry{{Key: key(10, 1), Port: 1, Static: true}}, []string{"a static entry for port a that is not configured"}},
	} {
		demand(t, c.name, audit.Table(slices.Values(append(slices.Clone(good), c.more...)), wanted()), c.want...)
	}
	demand(t, "no static entry", audit.Table(slices.Values(good[1:]), wanted()), "a static entry for port a is configured, the table has none")
	demand(t, "dynamic instead", audit.Table(slices.Values([]audit.Entry{{Key: key(10, 50), Port: 2}}), wanted()), "the table has a dynamic one for port b")
}

func TestTraffic(t *testing.T) {
	w := wanted()
	table := map[audit.Key]audit.Entry{
		key(10, 1): {Key: key(10, 1), Port: 1}, key(10, 2): {Key: key(10, 2), Port: 2, Static: true}, key(10, 3): {Key: key(10, 3), Port: 2},
	}
	look := func(k audit.Key) (audit.Entry, bool) { e, ok := table[k]; return e, ok }
	past := func(k audit.Key) string {
		if k == key(10, 77) {
			return "aged out at 10:02:31, behind port b"
		}
		return ""
	}
	sent := func(n int, in frame.PortID, why frame.Reason, src, dst int) *audit.Traffic {
		tr := audit.NewTraffic()
		for range n {
			tr.Add(in, frame.Verdict{VID: 10, Reason: why}, frame.Header{Src: mac(src), Dst: mac(dst)})
		}
		return tr
	}
	moving := sent(3, 1, frame.KnownUnicast, 3, 1)
	moving.Add(2, frame.Verdict{VID: 10, Reason: frame.KnownUnicast}, frame.Header{Src: mac(3), Dst: mac(1)})
	for _, c := range []struct {
		name string
		tr   *audit.Traffic
		want []string
	}{
		{"as it should be", sent(9, 1, frame.KnownUnicast, 1, 2), nil},
		{"another port", sent(9, 1, frame.KnownUnicast, 3, 1), []string{"it speaks on port a (9 frames), the table has it behind port b"}},
		{"moving", moving, nil},
		{"static elsewhere", sent(9, 1, frame.KnownUnicast, 2, 1), []string{"its static entry names port b, it speaks on port a"}},
		{"not learned", sent(9, 1, frame.BroadcastAddr, 8, 0xff), []string{"it speaks on port a (9 frames) and is not in the table"}},
		{"dropped before", sent(9, 1, frame.SpoofedSource, 8, 0xff), nil},
		{"a few floods", sent(2, 1, frame.UnknownUnicast, 1, 77), nil},
		{"never heard of", sent(9, 1, frame.UnknownUnicast, 1, 78), nil},
		{"aged", sent(9, 1, frame.UnknownUnicast, 1, 77), []string{"9 frames for it from port a were flooded; it was aged out at 10:02:31, behind port b"}},
		{"an interface", sent(9, 1, frame.UnknownUnicast, 1, 0xb), []string{"it is the interface of port b"}},
		{"answered meanwhile", sent(9, 1, frame.UnknownUnicast, 1, 3), nil},
	} {
		demand(t, c.name, c.tr.Findings(w, look, past), c.want...)
	}
}

func refusals(kinds map[audit.Refusal]uint64) *audit.Refusals {
	r := audit.NewRefusals()
	for k, n := range kinds {
		r.Add(k, n)
	}
	return r
}

func TestPeers(t *testing.T) {
	h := audit.Peer{ID: 9, Name: "h", Address: netip.MustParseAddrPort("192.0.2.1:4789"), State: "up", Since: time.Minute, RX: 7, TX: 70, Networks: []string{"blue"}}
	from := h.Address.Addr()
	network := func(v vxlan.VNI) string { return map[vxlan.VNI]string{10020: "red"}[v] }
	deaf, young, down := h, h, h
	deaf.RX, young.RX, young.Since, down.RX, down.State = 0, 0, time.Second, 0, "down"
	quiet := deaf
	deaf.State, young.State = "connecting", "connecting"
	for _, c := range []struct {
		name    string
		peer    audit.Peer
		refused map[audit.Refusal]uint64
		want    []string
	}{
		{"good", h, nil, nil},
		{"one way", deaf, nil, []string{"peer h: 70 frames were sent to it, and nothing has come from it"}},
		{"answers, and is silent", quiet, nil, nil},
		{"young", young, nil, nil},
		{"down", down, nil, nil},
		{"unknown VNI", deaf, map[audit.Refusal]uint64{{Peer: 9, From: from, Reason: frame.UnknownVNI, VNI: 10030}: 4},
			[]string{"peer h: it sends VNI 10030, which no network here has (4 datagrams refused as unknown_vni)"}},
		{"VNI not allowed", h, map[audit.Refusal]uint64{{Peer: 9, From: from, Reason: frame.VNINotAllowed, VNI: 10020}: 4},
			[]string{"it sends VNI 10020, which is network red, and may carry [blue] only"}},
		{"something else", h, map[audit.Refusal]uint64{{Peer: 9, Reason: frame.InnerTagged}: 4}, []string{"4 datagrams refused as inner_tagged"}},
		{"unseen VNI", h, map[audit.Refusal]uint64{{Peer: 9, Reason: frame.UnknownVNI}: 4}, []string{"4 datagrams refused as unknown_vni"}},
		{"stranger", h, map[audit.Refusal]uint64{{From: netip.MustParseAddr("192.0.2.66"), Reason: frame.UnknownPeer}: 4}, []string{"host 192.0.2.66: it sends VXLAN datagrams here and is no peer"}},
		{"stranger in clear", h, map[audit.Refusal]uint64{{From: netip.MustParseAddr("192.0.2.66"), Reason: frame.PlaintextRefused}: 4}, []string{"host 192.0.2.66: it sends frames of an encrypted network in clear and is no peer"}},
		{"unseen stranger", h, map[audit.Refusal]uint64{{Reason: frame.UnknownPeer}: 4}, []string{"an unknown host: it sends"}},
	} {
		demand(t, c.name, audit.Peers([]audit.Peer{c.peer}, refusals(c.refused), network), c.want...)
	}
}

func TestConservation(t *testing.T) {
	var good audit.Counters
	good.RxFrames, good.Verdicts[frame.Flood], good.Verdicts[frame.Drop] = 10, 7, 3
	good.Decided, good.Sent, good.Refused = 20, 18, 2
	good.Drops[frame.Storm], good.Drops[frame.QueueFull] = 3, 2
	ahead, lost := good, good
	ahead.RxFrames, ahead.Decided = 12, 21
	lost.RxFrames, lost.Decided, lost.Drops[frame.Storm] = 11, 21, 4
	demand(t, "nothing read", audit.Conservation(nil))
	demand(t, "good", audit.Conservation([]audit.Counters{ahead, good}))
	demand(t, "lost", audit.Conservation([]audit.Counters{lost, lost}), "1 more frames were received than have a verdict", "1 more copies were decided", "-1 more frames and copies were dropped")
}

// FuzzOuter: whatever a datagram holds, reading its sender and VNI ends well.
func FuzzOuter(f *testing.F) {
	f.Add(append(append(make([]byte, 12), 8, 0, 0x45), make([]byte, 60)...))
	f.Add(append(append(make([]byte, 12), 0x86, 0xdd, 0x60), make([]byte, 60)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		from, vni := audit.Outer(b)
		if vni > vxlan.MaxVNI || vni != 0 && !from.IsValid() {
			t.Errorf("%v, VNI %d", from, vni)
		}
	})
}

func TestOuter(t *testing.T) {
	v4 := append(append(make([]byte, 12), 8, 0, 0x45), make([]byte, 11)...)
	v4 = append(v4, 192, 0, 2, 1, 0, 0, 0, 0)
	v4 = append(append(v4, make([]byte, 8)...), 8, 0, 0, 0, 0, 0x27, 0x1a, 0)
	if from, vni := audit.Outer(v4); from.String() != "192.0.2.1" || vni != 10010 {
		t.Errorf("got %v, VNI %d", from, vni)
	}
	if from, vni := audit.Outer(v4[:40]); from.String() != "192.0.2.1" || vni != 0 {
		t.Errorf("of a part: %v, VNI %d", from, vni)
	}
}
