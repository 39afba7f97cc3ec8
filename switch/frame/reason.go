package frame

import "fmt"

// Reason says why a frame, or one copy of it, went where it went. The names
// are part of the product's contract: they stand in counters, traces, capture
// comments and docs/REASONS.md, which is printed from the table below.
type Reason uint8

// Stage is where in a frame's life a reason arises.
type Stage uint8

// Stages in the order a frame meets them.
const (
	StageNone    Stage = iota
	StageTunnel        // on a tunnel, before it is a frame of ours or after it was one
	StageIngress       // classify and filter
	StageLookup        // look up and decide
	StageEgress        // one copy on its way out
	StageRouter        // routed between networks
)

// Reasons. The order groups them by stage and carries no other meaning.
const (
	ReasonNone Reason = iota

	KnownUnicast
	UnknownUnicast
	BroadcastAddr
	MulticastAddr

	TooShort
	TooLong
	BadSource
	VLANNotMember
	TagNotAccepted
	VIDReservedValue
	ReservedGroup
	PortDown
	SpoofedSource
	Storm
	Loop

	SamePort
	NoEgress
	SplitHorizon
	Isolated

	MTUExceeded
	TransmitRefused
	QueueFull
	EgressDown

	UnknownPeer
	UnknownVNI
	VNINotAllowed
	VXLANFlags
	VXLANReserved
	InnerShort
	InnerTagged
	PlaintextRefused
	NotEncryptedYet
	BadRecord
	Replayed

	TTLExceeded
	NoRoute
	Martian
	BadChecksum
	BadHeader
	NeighbourUnresolved
	FragNeeded

	// NumReasons is the length of an array indexed by Reason.
	NumReasons
)

type reasonInfo struct {
	name  string
	stage Stage
	drop  bool
	doc   string // one sentence for a person who sees the counter move
}

var reasons = [NumReasons]reasonInfo{
	ReasonNone: {"none", StageNone, false, "No decision has been made."},

	KnownUnicast:   {"known_unicast", StageLookup, false, "The destination is in the FDB: one copy, to the port it was learned on."},
	UnknownUnicast: {"unknown_unicast", StageLookup, false, "The destination is not in the FDB: a copy to every other member of the network."},
	BroadcastAddr:  {"broadcast", StageLookup, false, "The destination is ff:ff:ff:ff:ff:ff: a copy to every other member of the network."},
	MulticastAddr:  {"multicast", StageLookup, false, "The destination is a group address: a copy to every other member of the network."},

	TooShort:         {"too_short", StageIngress, true, "The frame ends before its Ethernet header and tag do."},
	TooLong:          {"too_long", StageIngress, true, "The frame, or one segment of it, is longer than any network's MTU can be."},
	BadSource:        {"bad_source", StageIngress, true, "The source is a group address or zero, which no station may use."},
	VLANNotMember:    {"vlan_not_member", StageIngress, true, "The tag names a VLAN that this port is not a member of, or the port takes no untagged frames."},
	TagNotAccepted:   {"tag_not_accepted", StageIngress, true, "The frame is tagged and the port is an access port."},
	VIDReservedValue: {"vid_reserved", StageIngress, true, "The tag carries VID 4095, which is never used on the wire."},
	ReservedGroup:    {"reserved_group", StageIngress, true, "The destination is one of 01:80:C2:00:00:00 to 0F, which a bridge does not relay unless forward_reserved or profile lab says so."},
	PortDown:         {"port_down", StageIngress, true, "The port was switched off while the frame was on its way in."},
	SpoofedSource:    {"spoofed_source", StageIngress, true, "The source MAC or address is not one that mac_pin or sources allows on this port."},
	Storm:            {"storm", StageIngress, true, "The port floods faster than its storm limit."},
	Loop:             {"loop", StageIngress, true, "The loop guard has cut this port because the switch heard its own frames come back on it."},

	SamePort:     {"same_port", StageLookup, true, "The destination is behind the port the frame came from."},
	NoEgress:     {"no_egress", StageLookup, true, "No other port is a member of the network."},
	SplitHorizon: {"split_horizon", StageLookup, true, "The frame came from a tunnel and would leave by a tunnel, or would go from sibling to sibling against the macvlan mode."},
	Isolated:     {"isolated", StageLookup, true, "The frame came from an isolated port and would leave by an isolated port."},

	MTUExceeded:     {"mtu_exceeded", StageEgress, true, "The frame is larger than the network's or the port's MTU."},
	TransmitRefused: {"transmit_refused", StageEgress, true, "The kernel refused the frame; the port's state says why."},
	QueueFull:       {"queue_full", StageEgress, true, "The receiver does not read fast enough and its queue is full."},
	EgressDown:      {"egress_down", StageEgress, true, "The port that the copy should leave by is down."},

	UnknownPeer:      {"unknown_peer", StageTunnel, true, "A datagram from an address that is no configured peer."},
	UnknownVNI:       {"unknown_vni", StageTunnel, true, "A VNI that no network has."},
	VNINotAllowed:    {"vni_not_allowed", StageTunnel, true, "A VNI that this peer may not carry."},
	VXLANFlags:       {"vxlan_flags", StageTunnel, true, "The VXLAN header's I flag is clear."},
	VXLANReserved:    {"vxlan_reserved", StageTunnel, true, "Reserved bits of the VXLAN header are set; vxlan_reserved: ignore accepts them."},
	InnerShort:       {"inner_short", StageTunnel, true, "The inner frame ends before its Ethernet header does."},
	InnerTagged:      {"inner_tagged", StageTunnel, true, "The inner frame is tagged and the network is not carried as a trunk."},
	PlaintextRefused: {"plaintext_refused", StageTunnel, true, "A frame of an encrypted network arrived outside its DTLS link."},
	NotEncryptedYet:  {"not_encrypted_yet", StageTunnel, true, "A frame of an encrypted network, and no DTLS link established to carry it."},
	BadRecord:        {"bad_record", StageTunnel, true, "A DTLS record that does not authenticate."},
	Replayed:         {"replayed", StageTunnel, true, "A DTLS record seen before, or older than the replay window."},

	TTLExceeded:         {"ttl_exceeded", StageRouter, true, "The TTL or hop limit reached zero at a router."},
	NoRoute:             {"no_route", StageRouter, true, "The router has no route to the destination."},
	Martian:             {"martian", StageRouter, true, "A source or destination that is never routed."},
	BadChecksum:         {"bad_checksum", StageRouter, true, "The IPv4 header checksum is wrong."},
	BadHeader:           {"bad_header", StageRouter, true, "The IP header contradicts itself or the frame's length."},
	NeighbourUnresolved: {"neighbour_unresolved", StageRouter, true, "The next hop does not answer ARP or neighbour discovery."},
	FragNeeded:          {"frag_needed", StageRouter, true, "The packet must not be fragmented and does not fit the next link."},
}

// String returns the contract's name, such as unknown_unicast.
func (r Reason) String() string {
	if r < NumReasons {
		return reasons[r].name
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Doc is one sentence that explains the reason to a person.
func (r Reason) Doc() string {
	if r < NumReasons {
		return reasons[r].doc
	}
	return ""
}

// Stage is where the reason arises.
func (r Reason) Stage() Stage {
	if r < NumReasons {
		return reasons[r].stage
	}
	return StageNone
}

// IsDrop reports whether the reason counts among a port's drops.
func (r Reason) IsDrop() bool { return r < NumReasons && reasons[r].drop }

// MarshalText implements encoding.TextMarshaler with the name.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Reason) UnmarshalText(b []byte) error {
	for i, in := range reasons {
		if in.name == string(b) {
			*r = Reason(i)
			return nil
		}
	}
	return fmt.Errorf("unknown reason %q", clip(string(b)))
}

// String names the stage as docs/REASONS.md does.
func (s Stage) String() string {
	return [...]string{"none", "tunnel", "ingress", "lookup", "egress", "router"}[s]
}
