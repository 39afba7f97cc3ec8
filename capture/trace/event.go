package trace

import (
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Place is what saw a packet.
type Place string

// Places.
const (
	AtSwitch Place = "switch" // the switch has decided about it
	AtIn     Place = "in"     // an interface has received it for its kernel
	AtOut    Place = "out"    // an interface has sent it for its kernel
)

// Exit is one copy that a switch sent, or refused to.
type Exit struct {
	Port    string `json:"port"`           // its name; of a tunnel peer the peer's
	Peer    bool   `json:"peer,omitempty"` // it left by the tunnel
	VLAN    int    `json:"vlan,omitempty"` // the tag that it carries; 0 = none
	VNI     int    `json:"vni,omitempty"`
	Sealed  bool   `json:"sealed,omitempty"`  // it left by an encrypted link
	Refused string `json:"refused,omitempty"` // the reason why it did not leave
}

// Event is one packet of a trace at one place of one host. It travels between
// hosts: names in it are the host's own.
type Event struct {
	At   Place `json:"at"`
	Time int64 `json:"t"` // nanoseconds since 1970, by the host's clock
	What What  `json:"w,omitempty"`
	Code uint8 `json:"c,omitempty"` // of an ICMP error
	TTL  uint8 `json:"ttl"`
	// Src and Dst are the frame's addresses; an interface without Ethernet has none.
	Src  frame.MAC `json:"src"`
	Dst  frame.MAC `json:"dst"`
	From string    `json:"from,omitempty"` // the packet's own addresses
	To   string    `json:"to,omitempty"`

	Port string `json:"port"`           // AtSwitch: where it came in; else the interface
	Peer bool   `json:"peer,omitempty"` // AtSwitch: it came in by the tunnel, from the peer Port
	// Far is the port of the switch whose other end the interface is.
	Far string `json:"far,omitempty"`
	// Netns is whose interface it is; empty = the host's own.
	Netns string `json:"ns,omitempty"`
	// Other is of AtIn: the frame is for another station, and the kernel takes no
	// notice of the packet, though a bridge above the interface may.
	Other bool `json:"other,omitempty"`

	// Of the switch only.
	Network string `json:"net,omitempty"`
	VLAN    int    `json:"vlan,omitempty"`   // the network's
	Tag     int    `json:"tag,omitempty"`    // as it came in; 0 = untagged
	VNI     int    `json:"vni,omitempty"`    // as it came in
	Sealed  bool   `json:"sealed,omitempty"` // it came in by an encrypted link
	Action  string `json:"act,omitempty"`
	Reason  string `json:"why,omitempty"`
	Entry   string `json:"fdb,omitempty"`    // of the filtering database, that was found
	Taught  string `json:"taught,omitempty"` // by which frame
	Exits   []Exit `json:"out,omitempty"`
	More    int    `json:"more,omitempty"` // copies beyond Exits
}

func (e *Event) v6() bool { return strings.Contains(e.From, ":") }

// Received reports whether a kernel has received the packet for itself.
func (e *Event) Received() bool { return e.At == AtIn && !e.Other }

// Reached reports whether the packet is an answer of the destination itself.
func (e *Event) Reached() bool { return e.What.reached(e.Code, e.v6()) }

// Answer reports whether the packet goes back.
func (e *Event) Answer() bool { return e.What != Probe }

// Account is what one host has seen of a trace.
type Account struct {
	Host string
	// Offset is how far the host's clock is ahead of ours.
	Offset time.Duration
	Events []Event
}

// Offset is how far another host's clock is ahead, from one question and its
// answer: asked and answered by our clock, heard and told by theirs. It is wrong
// by half the round trip at most (RFC 5905 clause 8). The round trip is what
// the answer did not take at the other end.
func Offset(asked, heard, told, answered time.Time) (offset, roundTrip time.Duration) {
	return (heard.Sub(asked) + told.Sub(answered)) / 2, answered.Sub(asked) - told.Sub(heard)
}
