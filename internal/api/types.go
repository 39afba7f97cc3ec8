package api

import (
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// The JSON documents of the control API. Field names are part of the contract:
// fields may be added, none may be renamed or removed.

// Counter is a number of frames and their octets, without FCS.
type Counter struct {
	Frames uint64 `json:"frames"`
	Bytes  uint64 `json:"bytes"`
}

// Drops counts frames or copies by the name of the reason; zeros are left out.
type Drops map[string]uint64

// Port is one row of `port ls`.
type Port struct {
	Name      string       `json:"name"`
	ID        frame.PortID `json:"id"`
	Kind      string       `json:"kind"`         // tap, veth, device, host
	Device    string       `json:"device"`       // the interface, as its namespace names it
	Netns     string       `json:"netns"`        // as configured; empty = the daemon's own
	State     string       `json:"state"`        // up, down
	Reason    string       `json:"reason"`       // why it is down; empty when up
	Network   string       `json:"network"`      // the untagged network, if any
	Trunk     []string     `json:"trunk"`        // tagged networks
	Native    string       `json:"native"`       // untagged network of a trunk
	MTU       int          `json:"mtu"`          // octets of L3 packet
	MAC       string       `json:"mac"`          // of the container's interface
	Addresses []string     `json:"addresses"`    // CIDR
	Origin    string       `json:"origin"`       // config or attach
	Offloads  []string     `json:"offloads"`     // what the port carries: csum tso4 tso6 uso4 uso6
	Entries   int          `json:"fdb_entries"`  // dynamic FDB entries it owns
	Moves     uint64       `json:"fdb_moves"`    // stations that moved to it
	RX        Counter      `json:"rx"`           // into the switch
	TX        Counter      `json:"tx"`           // out of the switch
	Drops     Drops        `json:"drops"`        // at ingress and lookup of its frames, and of copies it should have sent
	Restarts  uint64       `json:"restarts"`     // how often the port healed
	Missed    uint64       `json:"kernel_drops"` // frames that the kernel dropped because the switch did not read them in time; device ports only
	Since     time.Time    `json:"since"`        // of the state
}

// Network is one row of `network ls`.
type Network struct {
	Name    string   `json:"name"`
	VLAN    int      `json:"vlan"`
	VNI     uint32   `json:"vni"`     // 0 = stays on this host
	MTU     int      `json:"mtu"`     // octets of L3 packet
	Encrypt string   `json:"encrypt"` // required, or empty
	Ageing  int      `json:"ageing_s"`
	Ports   []string `json:"ports"`
	Peers   []string `json:"peers"`
	Entries int      `json:"fdb_entries"`
}

// Peer is one row of `peer ls`: another host's VTEP.
type Peer struct {
	Name        string       `json:"name"`
	ID          frame.PortID `json:"id"`
	Address     string       `json:"address"`    // with the UDP port
	State       string       `json:"state"`      // up, down, connecting
	Passive     bool         `json:"passive"`    // up, and answers no probe, as the kernel's VTEP
	Since       time.Time    `json:"since"`      // of the state
	Encryption  string       `json:"encryption"` // none, dtls
	Cipher      string       `json:"cipher"`
	Epoch       uint64       `json:"epoch"`                // of the link's keys: counts its handshakes
	Established int64        `json:"established_s"`        // seconds since it came up, or the age of the link's keys; 0 unless it is up
	Link        *Link        `json:"link,omitempty"`       // the encrypted link, when a network of the peer's demands one
	Networks    []string     `json:"networks"`             // that it may carry
	MTU         int          `json:"mtu"`                  // longest inner packet that the path carries; of a peer that answers no probe, that leaves this host
	SealedMTU   int          `json:"sealed_mtu,omitempty"` // and by the link
	Entries     int          `json:"fdb_entries"`          // dynamic FDB entries it owns
	Moves       uint64       `json:"fdb_moves"`            // stations that moved to it
	RX          Counter      `json:"rx"`                   // into the switch
	TX          Counter      `json:"tx"`                   // out of the switch
	Drops       Drops        `json:"drops"`                // also what it sent and the tunnel refused
}

// Link is an encrypted link.
type Link struct {
	State         string    `json:"state"` // waiting, handshaking, established, rekeying
	Address       string    `json:"address"`
	KeyAge        int64     `json:"key_age_s"`
	RecordEpoch   int       `json:"record_epoch"` // as it stands in records
	Sealed        uint64    `json:"records_sealed"`
	Left          uint64    `json:"records_left"`
	RekeyAt       uint64    `json:"rekey_at_records"`
	Handshakes    uint64    `json:"handshakes"` // that ended well
	LastHandshake time.Time `json:"last_handshake,omitzero"`
	OlderKeys     int       `json:"older_keys"` // that still open what is under way
	Reason        string    `json:"reason"`     // of the last failure, empty = none
	Detail        string    `json:"detail"`
	FailedAt      time.Time `json:"failed_at,omitzero"`
}

// Up reports whether frames leave and are taken.
func (l *Link) Up() bool { return l.State == "established" || l.State == "rekeying" }

// Entry is one row of `fdb ls`.
type Entry struct {
	Network string    `json:"network"`
	VLAN    int       `json:"vlan"`
	MAC     frame.MAC `json:"mac"`
	Port    string    `json:"port"`
	Peer    string    `json:"peer"`
	Kind    string    `json:"kind"` // dynamic, static
	AgeS    int       `json:"age_s"`
	Moves   int       `json:"moves"`
}

// Stats is the answer to `stats`.
type Stats struct {
	Host       string            `json:"host"`
	PID        int               `json:"pid"`
	UptimeS    int64             `json:"uptime_s"`
	Generation uint64            `json:"generation"` // workers started since the keeper did
	RxFrames   uint64            `json:"rx_frames"`
	Own        uint64            `json:"rx_own"`   // of RxFrames: this host's ICMP errors, received by no port or peer
	Verdicts   map[string]uint64 `json:"verdicts"` // forward, flood, drop, local
	Copies     Copies            `json:"copies"`
	Drops      Drops             `json:"drops"`          // Refused included
	Refused    uint64            `json:"tunnel_refused"` // datagrams of peers and strangers that never became a frame
	// Missed counts datagrams that the kernel dropped because the switch did not
	// read them in time, or for a wrong checksum. They never reached the switch,
	// so no other number includes them.
	Missed uint64    `json:"tunnel_kernel_drops"`
	Loop   LoopStats `json:"loop"`
}

// Copies counts forwarded copies before coalescing.
type Copies struct {
	Sent    uint64 `json:"sent"`
	Refused uint64 `json:"refused"`
}

// LoopStats tells what the forwarding loops cost.
type LoopStats struct {
	Loops     int    `json:"loops"`
	Wakeups   uint64 `json:"wakeups"`
	Spins     uint64 `json:"spins"`       // empty polls before sleeping
	Writes    uint64 `json:"writes"`      // frames handed to ports after coalescing
	Coalesced uint64 `json:"coalesced"`   // copies that left inside another's GSO frame
	Segmented uint64 `json:"segmented"`   // GSO frames cut for an egress that carries none
	Moves     uint64 `json:"fdb_moves"`   // station moves
	Evicted   uint64 `json:"fdb_evicted"` // entries taken by the table limit
}

// Status is the answer to `status`.
type Status struct {
	Host     string    `json:"host"`
	Version  string    `json:"version"`
	Ready    bool      `json:"ready"`
	Ports    UpDown    `json:"ports"`
	Networks int       `json:"networks"`
	Revision uint64    `json:"revision"` // of the configuration: how often it has changed
	Peers    PeerCount `json:"peers"`
	FDB      FDBStatus `json:"fdb"`
	Problems []Problem `json:"problems"`
}

// UpDown counts things by state.
type UpDown struct {
	Up   int `json:"up"`
	Down int `json:"down"`
}

// PeerCount counts peers by state.
type PeerCount struct {
	Up         int `json:"up"`
	Down       int `json:"down"`
	Connecting int `json:"connecting"` // nothing heard yet
}

// FDBStatus is the fill of the filtering database.
type FDBStatus struct {
	Entries  int `json:"entries"`
	Limit    int `json:"limit"`
	Flapping int `json:"flapping"` // stations that move to and fro
}

// Problem is something a person should mend.
type Problem struct {
	What string `json:"what"`
	Hint string `json:"hint"`
}

// ApplyRequest carries a whole configuration file.
type ApplyRequest struct {
	File   string `json:"file"`    // its name, for error positions only
	YAML   string `json:"yaml"`    // its text
	DryRun bool   `json:"dry_run"` // validate and diff, touch nothing
}

// ApplyReply is what changed, or would.
type ApplyReply struct {
	Changes []string `json:"changes"` // one line each; empty = no change
}

// ItemRequest adds, changes or removes one network, port or static FDB entry.
type ItemRequest struct {
	Op   string `json:"op"`   // add, set, rm
	Kind string `json:"kind"` // network, port, fdb, peer
	Name string `json:"name"` // of the network, port or peer
	YAML string `json:"yaml"` // the value as it would stand in the file; for set only the keys that change
}

// AttachRequest gives a namespace a port.
type AttachRequest struct {
	Netns     string   `json:"netns"` // name, path or pid:N; the client resolves containers
	Label     string   `json:"label"` // what the user called it; default port name derives from it
	Network   string   `json:"network"`
	Port      string   `json:"port"`
	Ifname    string   `json:"ifname"`
	Addresses []string `json:"addresses"`
	Gateway   string   `json:"gateway"`
	MAC       string   `json:"mac"`
	Via       string   `json:"via"` // tap, veth
}

// DetachRequest takes a port away from a namespace.
type DetachRequest struct {
	Netns   string `json:"netns"`
	Label   string `json:"label"`              // what attach was called with, if the client knows
	NetnsID uint64 `json:"netns_id,omitempty"` // inode of the namespace, if the client could read it
	Ifname  string `json:"ifname"`             // default eth0
}

// FlushRequest removes dynamic FDB entries; empty fields match all.
type FlushRequest struct {
	Network string `json:"network"`
	Port    string `json:"port"`
	MAC     string `json:"mac"`
}

// FlushReply tells how many entries went.
type FlushReply struct {
	Removed int `json:"removed"`
}

// ExplainRequest asks what would happen to a frame.
type ExplainRequest struct {
	In  string `json:"in"`  // port, peer/NAME, or the address of whoever sends a datagram
	Hex string `json:"hex"` // the frame's octets; the client builds them
	// Segment is how much payload each segment has, where the frame is a GSO
	// frame; 0 = it is a plain one.
	Segment int `json:"segment,omitempty"`
	// VNI is the network that a peer's frame comes in; 0 = the only one that it
	// carries.
	VNI uint32 `json:"vni,omitempty"`
	// Datagram says that Hex begins with a VXLAN header.
	Datagram bool  `json:"datagram,omitempty"`
	OuterTOS uint8 `json:"outer_tos,omitempty"` // of a peer's datagram
}

// Step is one stage of an explanation.
type Step struct {
	Stage  string `json:"stage"` // tunnel, classify, filter, learn, lookup, mode, guard, storm, forward|flood|drop, tunnel, verdict
	What   string `json:"what"`
	Result string `json:"result"`
}

// ExplainReply is the switch's own decision, by the code of its loop.
type ExplainReply struct {
	Steps  []Step       `json:"steps"`
	Action frame.Action `json:"action"`
	Reason frame.Reason `json:"reason"`
	VLAN   int          `json:"vlan"`  // 0 = of no network
	Fresh  bool         `json:"fresh"` // the source is learned, or moves
	Out    []Egress     `json:"out"`
}

// Egress is one copy of an explained frame.
type Egress struct {
	Port   string `json:"port"`
	Tag    string `json:"tag"`             // untagged, or "tagged VID pcp N"; a tunnel has its VNI instead
	Reason string `json:"reason"`          // why this copy is refused; empty = sent
	Outer  *Outer `json:"outer,omitempty"` // what a tunnel puts around it
}

// Outer is the outside of a frame in a tunnel.
type Outer struct {
	VNI         uint32 `json:"vni"`
	Source      string `json:"source"`      // with the UDP port; the address is 0.0.0.0 or [::] when the route chooses it
	Destination string `json:"destination"` // with the UDP port
	TTL         int    `json:"ttl"`         // or hop limit
	DSCP        int    `json:"dscp"`
	ECN         int    `json:"ecn"`
	Length      int    `json:"length"` // octets of the packet, its IP header included
}

// Event is one line of the event stream.
type Event struct {
	Time    time.Time      `json:"time"`
	Kind    string         `json:"kind"` // port, peer, network, fdb, loop, storm, worker, config, frame
	What    string         `json:"what"` // one sentence
	Port    string         `json:"port,omitempty"`
	Peer    string         `json:"peer,omitempty"`
	Network string         `json:"network,omitempty"`
	MAC     string         `json:"mac,omitempty"`
	Fields  map[string]any `json:"fields,omitempty"`
}

// UpgradeReply names the worker that took over. The server leaves NewPID 0 where
// the worker that answers is the old one; the client fills it in.
type UpgradeReply struct {
	OldPID     int    `json:"old_pid"`
	NewPID     int    `json:"new_pid"`
	Generation uint64 `json:"generation"`
	Version    string `json:"version"`
}
