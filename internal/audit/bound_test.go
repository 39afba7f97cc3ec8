package audit_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/audit"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// TestRefusalsAreBounded: who sends every VNI from every address makes a few
// findings, and hides no peer's.
func TestRefusalsAreBounded(t *testing.T) {
	const spoofed, honest = 10000, 7
	peers := []audit.Peer{{ID: 8, Name: "g", Networks: []string{"blue"}}, {ID: 9, Name: "h", Networks: []string{"blue"}}}
	seen := audit.NewRefusals()
	for i := range spoofed {
		from := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(i))))
		seen.Add(audit.Refusal{From: from, Reason: frame.UnknownPeer, VNI: vxlan.VNI(i)}, 1)
		seen.Add(audit.Refusal{Peer: 9, From: from, Reason: frame.UnknownVNI, VNI: vxlan.VNI(i + 1)}, 1)
	}
	seen.Add(audit.Refusal{Peer: 8, Reason: frame.UnknownVNI, VNI: 10030}, honest)
	got := audit.Peers(peers, seen, func(vxlan.VNI) string { return "" })
	for _, c := range []struct {
		what string
		want int
	}{
		{"peer g: it sends VNI 10030, which no network here has (7 datagrams refused as unknown_vni)", 1},
		{"peer h: it sends VNI", audit.KindsOfPeer},
		{fmt.Sprintf("peer h: %d datagrams refused as unknown_vni, besides those told", spoofed-audit.KindsOfPeer), 1},
		{"it sends VXLAN datagrams here and is no peer (1 datagram refused", audit.KindsOfStrangers},
		{fmt.Sprintf("other hosts: %d datagrams refused as unknown_peer, besides those told", spoofed-audit.KindsOfStrangers), 1},
	} {
		if n := told(got, c.what); n != c.want {
			t.Errorf("%d findings %q, want %d", n, c.what, c.want)
		}
	}
	if want := 3 + audit.KindsOfPeer + audit.KindsOfStrangers; len(got) != want {
		t.Errorf("%d findings, want %d", len(got), want)
	}
}

// TestStrangersAreToldOnce: a stranger is one, whatever VNIs it sends.
func TestStrangersAreToldOnce(t *testing.T) {
	seen := audit.NewRefusals()
	for i := range 1000 {
		seen.Add(audit.Refusal{From: netip.MustParseAddr("192.0.2.66"), Reason: frame.UnknownPeer, VNI: vxlan.VNI(i)}, 1)
	}
	demand(t, "many VNIs", audit.Peers(nil, seen, nil), "host 192.0.2.66: it sends VXLAN datagrams here and is no peer (1000 datagrams")
}

// TestTrafficIsBounded: of more stations than it remembers, a Traffic counts the
// frames.
func TestTrafficIsBounded(t *testing.T) {
	tr := audit.NewTraffic()
	const more = 100
	for i := range audit.MaxStations + more {
		tr.Add(1, frame.Verdict{VID: 10, Reason: frame.BroadcastAddr}, frame.Header{Src: mac(i), Dst: mac(0xff)})
	}
	if tr.Frames != audit.MaxStations+more || tr.Left != more {
		t.Errorf("%d frames, %d of them left; want %d left", tr.Frames, tr.Left, more)
	}
	tr.Add(2, frame.Verdict{VID: 10, Reason: frame.BroadcastAddr}, frame.Header{Src: mac(1), Dst: mac(0xff)})
	if tr.Left != more {
		t.Error("a station that is remembered counts as left")
	}
	for i := range audit.MaxStations + more {
		tr.Add(1, frame.Verdict{VID: 10, Reason: frame.UnknownUnicast}, frame.Header{Src: mac(1), Dst: mac(i)})
	}
	if tr.Left != 2*more {
		t.Errorf("%d left, want %d: of as many unknown destinations", tr.Left, 2*more)
	}
}

// TestFindingsAreBounded: each comparison tells so many, and how many more there are.
func TestFindingsAreBounded(t *testing.T) {
	const more = 23
	w := wanted()
	none := func(audit.Key) (audit.Entry, bool) { return audit.Entry{}, false }
	tr := audit.NewTraffic()
	var entries []audit.Entry
	var ports []audit.Port
	for i := range audit.MaxTold + more {
		tr.Add(1, frame.Verdict{VID: 10, Reason: frame.BroadcastAddr}, frame.Header{Src: mac(i), Dst: mac(0xff)})
		entries = append(entries, audit.Entry{Key: key(20, i), Port: 9, Static: true})
		ports = append(ports, audit.Port{Name: fmt.Sprint("p", i), Index: 1})
	}
	delete(w.Static, key(10, 50))
	for area, got := range map[string][]audit.Finding{
		audit.AreaTraffic: tr.Findings(w, none, func(audit.Key) string { return "" }),
		audit.AreaFDB:     audit.Table(slices.Values(entries), w),
		audit.AreaKernel:  audit.Kernel(ports, nil),
	} {
		if len(got) != audit.MaxTold+1 {
			t.Errorf("%s: %d findings, want %d and one that there are more", area, len(got), audit.MaxTold)
			continue
		}
		last := got[audit.MaxTold]
		demand(t, area, got[audit.MaxTold:], fmt.Sprintf("and %d more like these", more))
		if last.Area != area {
			t.Errorf("%s: the last is of %s", area, last.Area)
		}
	}
}

// told counts findings whose sentence holds what.
func told(found []audit.Finding, what string) (n int) {
	for _, f := range found {
		if strings.Contains(f.What, what) {
			n++
		}
	}
	return n
}
