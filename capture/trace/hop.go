package trace

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Directions of a hop.
const (
	Request = "request"
	Answer  = "answer"
	Live    = "live" // a packet that nobody has marked
)

// Kinds of hop.
const (
	Ingress = "ingress" // a port of the switch received it
	Decide  = "decide"  // what the switch decided
	Egress  = "egress"  // a port of the switch sent a copy, or refused to
	Encap   = "encap"   // a copy went into the tunnel
	Decap   = "decap"   // it came out of the tunnel
	Route   = "route"   // a kernel forwarded it and took one from its TTL
	Wire    = "wire"    // an interface of a kernel received or sent it
)

// Hop is one step of a packet.
type Hop struct {
	Trace     ID        `json:"trace"`
	Hop       int       `json:"hop"` // from 1, the answer's behind the request's
	Direction string    `json:"direction"`
	Host      string    `json:"host"`
	Port      string    `json:"port"`            // of the switch; of a route or wire the interface
	Netns     string    `json:"netns,omitempty"` // of a route or wire: whose interface it is; empty = the host's own
	Far       string    `json:"far,omitempty"`   // of a route or wire: the port of the switch at its other end
	At        string    `json:"at"`
	Time      time.Time `json:"time"`     // by the clock of the host that was asked
	SinceUS   int64     `json:"since_us"` // since the hop before, never negative
	SrcMAC    string    `json:"src_mac"`
	DstMAC    string    `json:"dst_mac"`
	Network   string    `json:"network,omitempty"`
	VLAN      int       `json:"vlan"` // the tag on the wire; of a decision the network's
	VNI       int       `json:"vni"`
	Encrypted bool      `json:"encrypted,omitempty"` // of an encapsulation, either way: inside DTLS
	TTLIn     int       `json:"ttl_in"`
	TTLOut    int       `json:"ttl_out"`
	Action    string    `json:"action"` // receive, forward, flood, drop, local, send, refuse, encapsulate, decapsulate, route, ignore
	Reason    string    `json:"reason"`
	Entry     string    `json:"entry"`               // of the filtering database, that was found
	TaughtBy  string    `json:"taught_by,omitempty"` // the frame that taught it
	Next      string    `json:"next"`                // where it goes: ports, a peer, an interface
	Packet    string    `json:"packet"`              // what it is: probe, echo reply, time exceeded …
	From      string    `json:"from,omitempty"`      // the packet's addresses
	To        string    `json:"to,omitempty"`
	NAT       string    `json:"nat,omitempty"` // which of them a router put another in place of
	reached   bool
}

// Reached reports whether the packet is an answer of the destination itself.
func (h *Hop) Reached() bool { return h.reached }

// Drops reports whether the packet ended here, as far as this hop shows.
func (h *Hop) Drops() bool { return h.Action == "drop" || h.Action == "refuse" }

// unfold makes hops of ordered events. A router's hop stands where the TTL falls,
// behind what others heard of the packet before.
func unfold(events []sighting) []Hop {
	var hops, routes []Hop
	out := pairs(events)
	for i := range events {
		e := &events[i]
		if len(routes) > 0 && int(e.TTL) < routes[0].TTLIn {
			hops, routes = append(hops, routes...), nil
		}
		switch {
		case e.At == AtSwitch:
			hops = append(hops, e.switched()...)
		case out[i] > i:
			routes = append(routes, e.routes(&events[out[i]]))
		case out[i] < 0:
			hops = append(hops, e.heard())
		}
	}
	return append(hops, routes...)
}

// pairs finds for each event the other side of the kernel that forwarded the
// packet, -1 for none.
func pairs(events []sighting) []int {
	out := slices.Repeat([]int{-1}, len(events))
	for j := range events {
		for i := j - 1; i >= 0; i-- {
			if out[i] < 0 && routed(&events[i], &events[j]) {
				out[i], out[j] = j, i
				break
			}
		}
	}
	return out
}

// routed reports whether a and b are the two sides of one kernel that forwards.
func routed(a, b *sighting) bool {
	return a.Received() && b.At == AtOut && a.host == b.host && a.Netns == b.Netns && a.TTL == b.TTL+1
}

// routes is the hop of a kernel that received s and sent it as b.
func (s *sighting) routes(b *sighting) Hop {
	h := b.hop(Route, s.Port)
	h.TTLIn, h.Action, h.Next, h.Far, h.NAT = int(s.TTL), "route", b.Port, s.Far, translated(&s.Event, &b.Event)
	return h
}

// heard is the hop of an interface of a kernel.
func (s *sighting) heard() Hop {
	h := s.hop(Wire, s.Port)
	h.Far = s.Far
	switch {
	case s.At == AtOut:
		h.Action = "send"
	case s.Other:
		h.Action = "ignore"
	default:
		h.Action = "receive"
	}
	return h
}

// translated says which addresses of a packet were others before: NAT put new
// ones in their place.
func translated(before, after *Event) string {
	var s []string
	if before.From != after.From {
		s = append(s, fmt.Sprintf("source %s became %s", before.From, after.From))
	}
	if before.To != after.To {
		s = append(s, fmt.Sprintf("destination %s became %s", before.To, after.To))
	}
	return strings.Join(s, ", ")
}

// hop is a hop with everything that an event of any place tells.
func (s *sighting) hop(at, port string) Hop {
	h := Hop{
		Direction: Request, Host: s.host, Port: port, Netns: s.Netns, At: at, Time: s.time, Network: s.Network,
		TTLIn: int(s.TTL), TTLOut: int(s.TTL), Packet: s.What.text(s.Code, s.v6()), From: s.From, To: s.To,
		reached: s.Event.Reached(),
	}
	if s.Answer() {
		h.Direction = Answer
	}
	if !s.Src.IsZero() || !s.Dst.IsZero() {
		h.SrcMAC, h.DstMAC = s.Src.String(), s.Dst.String()
	}
	return h
}

// switched are the hops of one decision: where it came in, what was decided,
// and each copy.
func (s *sighting) switched() []Hop {
	in := s.hop(Ingress, s.Port)
	in.Action, in.VLAN = "receive", s.Tag
	if s.Peer {
		in.At, in.Action, in.VNI, in.Encrypted = Decap, "decapsulate", s.VNI, s.Sealed
	}
	decide := s.hop(Decide, s.Port)
	decide.Action, decide.Reason, decide.Entry, decide.TaughtBy, decide.VLAN = s.Action, s.Reason, s.Entry, s.Taught, s.VLAN
	var next []string
	for _, x := range s.Exits {
		next = append(next, x.Port)
	}
	if s.More > 0 {
		next = append(next, fmt.Sprintf("%d more", s.More))
	}
	decide.Next = strings.Join(next, ",")
	hops := []Hop{in, decide}
	for _, x := range s.Exits {
		h := s.hop(Egress, x.Port)
		h.Action, h.Reason, h.VLAN = "send", x.Refused, x.VLAN
		if x.Peer {
			h.At, h.Action, h.VNI, h.Encrypted, h.Next = Encap, "encapsulate", x.VNI, x.Sealed, x.Port
		}
		if x.Refused != "" {
			h.Action = "refuse"
		}
		hops = append(hops, h)
	}
	return hops
}
