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
// keeper already holds with the same request returns the held descriptor.
type PortRequest struct {
	Name string `json:"name"` // the port's name, of the contract's pattern
	Kind string `json:"kind"`

	Netns   string `json:"netns,omitempty"`    // tap, veth: name, absolute path or pid:N
	NetnsID uint64 `json:"netns_id,omitempty"` // inode the namespace must have; 0 = any
	Ifname  string `json:"ifname,omitempty"`   // tap, veth, host: interface name in its namespace
	Adopt   string `json:"adopt,omitempty"`    // veth: host end to take over instead
	Device  string `json:"device,omitempty"`   // device: existing interface

	MAC       frame.MAC      `json:"mac"` // zero = the keeper derives one from host and port name
	MTU       int            `json:"mtu"` // octets of L3 packet
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Gateway   netip.Addr     `json:"gateway"`          // zero = none
	NoGSO     bool           `json:"no_gso,omitempty"` // plain frames only
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
