package frame

import "net/netip"

// Step is one stage of an explanation, for a person.
type Step struct {
	Stage  string // a word, such as classify or tunnel
	What   string // what was looked at
	Result string // what came of it
}

// Outer is what a tunnel puts around a frame (RFC 7348 clause 5).
type Outer struct {
	VNI uint32
	// Source has the unspecified address when the route chooses it.
	Source, Destination netip.AddrPort
	TTL                 uint8 // or hop limit
	TOS                 uint8 // or traffic class: DSCP and ECN
	Len                 int   // octets of the outer packet, its IP header included
}

// Fate is what a queue would do with a frame.
type Fate struct {
	Refused Reason // ReasonNone when it would send it
	Steps   []Step
	Outer   *Outer // nil when it leaves as it is, or not at all
}
