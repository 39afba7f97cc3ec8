package audit

import (
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

// A peer that answers no probe and sends nothing hears nothing, for all that can
// be told, when oneWay frames have gone out to it and it was oneWayAfter there. One
// that answers may have nothing to say.
const (
	oneWay      = 5
	oneWayAfter = 10 * time.Second
)

// Peers compares what was heard of peers lately with what is configured here.
// seen are the datagrams lately refused; network names the network of a
// VNI, empty if none has it.
func Peers(peers []Peer, seen *Refusals, network func(vxlan.VNI) string) []Finding {
	var out list
	byID := map[frame.PortID]Peer{}
	told := map[frame.PortID]bool{}
	for _, p := range peers {
		byID[p.ID] = p
	}
	for _, r := range slices.SortedFunc(maps.Keys(seen.kinds), Refusal.compare) {
		r.tell(&out, byID, seen.kinds[r], network)
	}
	for _, as := range slices.SortedFunc(maps.Keys(seen.of), refusedAs.compare) {
		told[as.peer] = true
		if n := seen.of[as].rest; n > 0 {
			as.tell(&out, byID[as.peer], n)
		}
	}
	for _, p := range peers {
		if p.State == "connecting" && p.TX >= oneWay && p.RX == 0 && p.Since >= oneWayAfter && !told[p.ID] {
			out.note(AreaPeer, "peer "+p.Name, "frames both ways", fmt.Sprintf("%d out, none in", p.TX),
				fmt.Sprintf("see whether %v names this host among its peers, and whether UDP port %d passes towards here: tapestry capture --port peer/%s", p.Address.Addr(), p.Address.Port(), p.Name),
				"%d frames were sent to it, and nothing has come from it, not even an answer", p.TX)
		}
	}
	return out.told()
}

// tell says that there are more datagrams than those of the kinds that were told.
func (as refusedAs) tell(out *list, p Peer, n uint64) {
	subject, port := "peer "+p.Name, "peer/"+p.Name
	if p.ID == 0 {
		subject, port = "other hosts", "tunnel/unknown"
	}
	got := fmt.Sprintf("%s refused as %v", count(n, "datagram"), as.reason)
	out.note(AreaPeer, subject, "datagrams that can be taken", got, "tapestry capture --drops --port "+port,
		"%s, besides those told: more kinds than are told apart", got)
}

// tell says what a peer sends that is refused here, and what would mend it.
func (r Refusal) tell(out *list, peers map[frame.PortID]Peer, n uint64, network func(vxlan.VNI) string) {
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
		out.note(AreaPeer, subject, "a configured peer", got, hint, "it sends VXLAN datagrams here and is no peer (%s)", got)
	case r.Reason == frame.PlaintextRefused && !ok:
		out.note(AreaPeer, subject, "sealed frames of peers alone", got, "look who sends: tapestry capture --drops --port tunnel/unknown",
			"it sends frames of an encrypted network in clear and is no peer (%s)", got)
	case r.Reason == frame.UnknownVNI && r.VNI != 0:
		out.note(AreaPeer, subject, fmt.Sprintf("a network with VNI %d", r.VNI), "none", fmt.Sprintf("give a network here `vni: %d`, or correct the VNI there", r.VNI),
			"it sends VNI %d, which no network here has (%s)", r.VNI, got)
	case r.Reason == frame.VNINotAllowed && r.VNI != 0:
		name := network(r.VNI)
		out.note(AreaPeer, subject, fmt.Sprint(p.Networks), name, fmt.Sprintf("add %s to tunnel.peers.%s.networks, or take this host from its peers of that network", name, p.Name),
			"it sends VNI %d, which is network %s, and may carry %v only (%s)", r.VNI, name, p.Networks, got)
	default:
		out.note(AreaPeer, subject, "datagrams that can be taken", got, "tapestry capture --drops --port peer/"+p.Name,
			"%s: %s", got, strings.TrimSuffix(r.Reason.Doc(), "."))
	}
}
