package audit

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// Peer is what is known of another host's VTEP.
type Peer struct {
	ID       frame.PortID
	Name     string
	Address  netip.AddrPort
	State    string // up, down, connecting
	Since    time.Duration
	RX, TX   uint64 // frames since it is a peer
	Networks []string
}

// Refusal is a kind of datagram that the tunnel refused.
type Refusal struct {
	Peer   frame.PortID // 0 = of no peer
	From   netip.Addr   // read from the datagram; invalid when it wasn't seen
	Reason frame.Reason
	VNI    vxlan.VNI // 0 = unknown
}

// Outer reads sender and VNI of a refused datagram, which the tunnel shows with
// its outer headers. What is not there is zero.
func Outer(b []byte) (from netip.Addr, vni vxlan.VNI) {
	h, ok := frame.Parse(b)
	if !ok {
		return from, 0
	}
	ip, udp := b[h.Len:], 0
	switch {
	case h.EtherType == frame.EtherTypeIPv4 && len(ip) >= 20:
		from, udp = netip.AddrFrom4([4]byte(ip[12:16])), 20
	case h.EtherType == frame.EtherTypeIPv6 && len(ip) >= 40:
		from, udp = netip.AddrFrom16([16]byte(ip[8:24])), 40
	default:
		return from, 0
	}
	if len(ip) >= udp+8+vxlan.HeaderLen {
		vni = vxlan.VNI(binary.BigEndian.Uint32(ip[udp+8+4:]) >> 8)
	}
	return from, vni
}

// A peer that answers no probe and sends nothing hears nothing, for all that can
// be told, when oneWay frames have gone out to it and it was oneWayAfter there. One
// that answers may have nothing to say.
const (
	oneWay      = 5
	oneWayAfter = 10 * time.Second
)

// Peers compares what was heard of peers lately with what is configured here.
// refused counts the datagrams lately refused; networks names the network of a
// VNI, empty if none has it.
func Peers(peers []Peer, refused map[Refusal]uint64, network func(vxlan.VNI) string) []Finding {
	var out []Finding
	byID := map[frame.PortID]Peer{}
	told := map[frame.PortID]bool{}
	for _, p := range peers {
		byID[p.ID] = p
	}
	for _, r := range slices.SortedFunc(maps.Keys(refused), Refusal.compare) {
		told[r.Peer] = true
		r.tell(&out, byID, refused[r], network)
	}
	for _, p := range peers {
		if p.State == "connecting" && p.TX >= oneWay && p.RX == 0 && p.Since >= oneWayAfter && !told[p.ID] {
			note(&out, AreaPeer, "peer "+p.Name, "frames both ways", fmt.Sprintf("%d out, none in", p.TX),
				fmt.Sprintf("see whether %v names this host among its peers, and whether UDP port %d passes towards here: tapestry capture --port peer/%s", p.Address.Addr(), p.Address.Port(), p.Name),
				"%d frames were sent to it, and nothing has come from it, not even an answer", p.TX)
		}
	}
	return out
}

func (r Refusal) compare(o Refusal) int {
	return cmp.Or(cmp.Compare(r.Peer, o.Peer), r.From.Compare(o.From), cmp.Compare(r.Reason, o.Reason), cmp.Compare(r.VNI, o.VNI))
}

// tell says what a peer sends that is refused here, and what would mend it.
func (r Refusal) tell(out *[]Finding, peers map[frame.PortID]Peer, n uint64, network func(vxlan.VNI) string) {
	p, ok := peers[r.Peer]
	subject := "peer " + p.Name
	if !ok {
		subject = fmt.Sprintf("host %v", r.From)
		if !r.From.IsValid() {
			subject = "an unknown host"
		}
	}
	got := fmt.Sprintf("%s refused as %v", count(n, "datagram"), r.Reason)
	switch {
	case r.Reason == frame.UnknownPeer:
		hint := "look who sends: tapestry capture --drops --port tunnel/unknown"
		if r.From.IsValid() {
			hint = fmt.Sprintf("tapestry peer add NAME --address %v, if it is one of yours", r.From)
		}
		note(out, AreaPeer, subject, "a configured peer", got, hint, "it sends VXLAN datagrams here and is no peer (%s)", got)
	case r.Reason == frame.PlaintextRefused && !ok:
		note(out, AreaPeer, subject, "sealed frames of peers alone", got, "look who sends: tapestry capture --drops --port tunnel/unknown",
			"it sends frames of an encrypted network in clear and is no peer (%s)", got)
	case r.Reason == frame.UnknownVNI && r.VNI != 0:
		note(out, AreaPeer, subject, fmt.Sprintf("a network with VNI %d", r.VNI), "none", fmt.Sprintf("give a network here `vni: %d`, or correct the VNI there", r.VNI),
			"it sends VNI %d, which no network here has (%s)", r.VNI, got)
	case r.Reason == frame.VNINotAllowed && r.VNI != 0:
		name := network(r.VNI)
		note(out, AreaPeer, subject, fmt.Sprint(p.Networks), name, fmt.Sprintf("add %s to tunnel.peers.%s.networks, or take this host from its peers of that network", name, p.Name),
			"it sends VNI %d, which is network %s, and may carry %v only (%s)", r.VNI, name, p.Networks, got)
	default:
		note(out, AreaPeer, subject, "datagrams that can be taken", got, "tapestry capture --drops --port peer/"+p.Name,
			"%s: %s", got, strings.TrimSuffix(r.Reason.Doc(), "."))
	}
}
