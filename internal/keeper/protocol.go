package keeper

import (
	"net/netip"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Kinds of port.
const (
	KindTap    = "tap"
	KindVeth   = "veth"
	KindDevice = "device"
	KindHost   = "host"
)

// PortRequest asks the keeper to make, or find again, one port's interfaces and
// to open the descriptor that its frames move through. Opening a port that the
// keeper already holds with the same request returns the held descriptor; when
// only MAC, MTU, addresses or gateway differ they are set first.
type PortRequest struct {
	Name string `json:"name"` // the port's name, of the contract's pattern
	Kind string `json:"kind"`

	Netns   string `json:"netns,omitempty"`    // tap, veth: name, absolute path or pid:N
	NetnsID uint64 `json:"netns_id,omitempty"` // inode the namespace must have; 0 = any
	Ifname  string `json:"ifname,omitempty"`   // tap, veth, host: interface name in its namespace
	Adopt   string `json:"adopt,omitempty"`    // veth: host end to take over instead
	Device  string `json:"device,omitempty"`   // device: existing interface

	MAC       frame.MAC      `json:"mac"` // zero = the keeper derives one from instance and port name
	MTU       int            `json:"mtu"` // octets of L3 packet
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Gateway   netip.Addr     `json:"gateway"`          // zero = none
	NoGSO     bool           `json:"no_gso,omitempty"` // plain frames only

	// Reopen lets go of a held descriptor first, as a port needs whose
	// interface has been deleted or renamed under it.
	Reopen bool `json:"reopen,omitempty"`
}

// PortReply describes the opened port; its descriptor travels beside it.
type PortReply struct {
	Name       string         `json:"name"`
	Kind       string         `json:"kind"`
	Device     string         `json:"device"`             // the container's or host's interface
	Ifindex    int            `json:"ifindex"`            // in its namespace
	Splice     string         `json:"splice,omitempty"`   // veth: the TAP in the daemon's namespace that it is spliced to
	HostEnd    string         `json:"host_end,omitempty"` // veth: the end in the daemon's namespace
	NetnsID    uint64         `json:"netns_id"`           // inode of its namespace
	MAC        frame.MAC      `json:"mac"`
	MTU        int            `json:"mtu"`
	VNetHdr    int            `json:"vnet_hdr"` // octets of virtio header on the descriptor, 0 = none
	Packet     bool           `json:"packet"`   // an AF_PACKET socket, not a TAP queue
	Offloads   frame.Offloads `json:"offloads"`
	Reattached bool           `json:"reattached"` // the interface was there already and was ours
}

// SetRequest changes a held port in place. A zero field leaves what is.
type SetRequest struct {
	Name string    `json:"name"`
	MAC  frame.MAC `json:"mac"`
	MTU  int       `json:"mtu,omitempty"`
	// Addresses replace all addresses that the keeper has set; nil leaves them
	// and the gateway, an empty list removes them.
	Addresses []netip.Prefix `json:"addresses"`
	Gateway   netip.Addr     `json:"gateway"` // read with Addresses only; zero = none
	Up        *bool          `json:"up,omitempty"`
}

// Held is one port in the keeper's hands.
type Held struct {
	Request PortRequest `json:"request"`
	Reply   PortReply   `json:"reply"`
	// FD is the descriptor of the port's frames. It is non-blocking and belongs
	// to the receiver; it is a plain number so that the runtime's poller never
	// hears of it.
	FD int `json:"-"`
}

// Code classes an error, so that the other side can branch on it.
type Code string

// Codes, each with the contract's exit code.
const (
	CodeFailed       Code = "failed"        // 1
	CodeInvalid      Code = "invalid"       // 2
	CodeNotPermitted Code = "not_permitted" // 4
	CodeNotFound     Code = "not_found"     // 5
	CodeConflict     Code = "conflict"      // 6
)

// Error is what the keeper answers with, and what Run returns when the reason
// has an exit code of its own.
type Error struct {
	Code Code   `json:"code"`
	Msg  string `json:"error"`
	Hint string `json:"hint,omitempty"` // the likely mend; may be empty
}

// Error implements error.
func (e *Error) Error() string { return e.Msg }

// ExitCode is the contract's exit code of e.
func (e *Error) ExitCode() int {
	switch e.Code {
	case CodeInvalid:
		return 2
	case CodeNotPermitted:
		return 4
	case CodeNotFound:
		return 5
	case CodeConflict:
		return 6
	}
	return 1
}
