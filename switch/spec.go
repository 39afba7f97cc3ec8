package vswitch

import (
	"net/netip"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Spec is everything the switch is told: its networks and ports as they shall
// be. It is compiled into an immutable view that replaces the former one as a
// whole. The switch keeps no reference to the slices.
type Spec struct {
	Networks []Network
	Ports    []Port
	// Receivers hear the frames of ports whose queues only transmit.
	Receivers []Receiver
	// Lab relays every reserved group address and switches the loop guard and
	// storm control off, as `profile: lab` does.
	Lab bool
}

// Network is one broadcast domain.
type Network struct {
	Name string
	VID  frame.VID // its 802.1Q VLAN, unique, 1 to 4094
	MTU  int       // octets of L3 packet; 0 = no limit
	// Ageing is how long a silent address stays; 0 = for ever.
	Ageing time.Duration
	// ForwardReserved has bit n set when 01:80:C2:00:00:0n is relayed.
	ForwardReserved uint16
}

// Mode is one of macvlan's four ways of treating siblings.
type Mode uint8

// Modes. Siblings are the ports of a network that are no uplink.
const (
	ModeBridge   Mode = iota // siblings talk directly
	ModeVEPA                 // every frame leaves by the uplink; siblings hear each other when it is reflected
	ModePrivate              // as VEPA, and reflected frames of siblings are dropped
	ModePassthru             // one port alone with the uplink
)

// Port is one attachment point and its policy.
type Port struct {
	ID   frame.PortID
	Name string
	// Queue moves the frames; nil while the port is down.
	Queue Queue
	// MTU is the port's own limit in octets of L3 packet; 0 = the network's.
	MTU int
	// OwnMTU leaves it to the queue to refuse what is too long: no limit is
	// checked, not even the network's.
	OwnMTU bool
	// Bare says that the tag of a copy only tells the queue its network, and the
	// frame leaves without. Observers see it so.
	Bare bool

	// Native is the VID of the network whose frames are untagged on this port;
	// 0 = untagged frames are refused. An access port has Native and no Tagged.
	Native frame.VID
	// Tagged are the networks whose frames are tagged on this port. A port with
	// none is an access port and refuses tagged frames; any other takes those of
	// its native network tagged as well, and sends them untagged.
	Tagged []frame.VID

	Isolated bool
	Hairpin  bool
	Mode     Mode
	Uplink   bool
	// Group is a split-horizon group: ports of one group other than 0 never
	// forward to each other.
	Group uint8

	// MACPin, when set, is the only source address accepted.
	MACPin frame.MAC
	// Sources, when not empty, are the only IPv4 and IPv6 sources accepted, in
	// ARP and neighbour discovery too. IPv6 link-local addresses derived by the
	// port's own station must be listed as well.
	Sources []netip.Addr

	LoopGuard bool
	Storm     Storm
	// FDBLimit bounds the dynamic entries that the port may own; 0 = none.
	FDBLimit int
	// NoCoalesce keeps frames as they came, one write each.
	NoCoalesce bool
}

// Storm limits floods that enter by a port, in frames a second; 0 = no limit.
type Storm struct {
	Broadcast, Unknown, Multicast uint32
}
