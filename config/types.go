package config

import (
	"net/netip"
	"path/filepath"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Config is one configuration file. A zero value or nil means that the key is
// absent. Keys documents each field.
type Config struct {
	Host     string              `yaml:"host"`
	Profile  Profile             `yaml:"profile"`
	Offload  Offload             `yaml:"offload"`
	Ageing   *Duration           `yaml:"ageing"`
	FDBLimit int                 `yaml:"fdb_limit"`
	Networks map[string]*Network `yaml:"networks"`
	Ports    map[string]*Port    `yaml:"ports"`
	FDB      []FDBEntry          `yaml:"fdb"`
	Tunnel   *Tunnel             `yaml:"tunnel"`
	Routers  map[string]*Router  `yaml:"routers"`
}

// Profile chooses the defaults of guards and coalescing.
type Profile string

// Profiles.
const (
	Strict Profile = "strict" // guards on
	Lab    Profile = "lab"    // relays every reserved group address, guards and coalescing off
)

// Mode is one of macvlan's four ways of treating siblings.
type Mode string

// Modes.
const (
	Bridge   Mode = "bridge"
	VEPA     Mode = "vepa"
	Private  Mode = "private"
	Passthru Mode = "passthru"
)

// Encryption is `required`, or empty for none.
type Encryption string

// EncryptRequired lets a network's frames leave by DTLS links only.
const EncryptRequired Encryption = "required"

// Reserved names what to do with set reserved bits of a VXLAN header.
type Reserved string

// What to do with set reserved bits.
const (
	ReservedDrop   Reserved = "drop"
	ReservedIgnore Reserved = "ignore" // as RFC 7348 clause 5 says
)

// Duration is a time.Duration that is written as text, such as 300s.
type Duration time.Duration

// String returns the shortest text that Parse reads back, such as 12h.
func (d Duration) String() string { return shortDuration(time.Duration(d)) }

// Rate is a number of frames a second, written `1000/s`; 0 is written `off`.
type Rate uint32

// GroupMask has bit n set when 01:80:C2:00:00:0n is relayed.
type GroupMask uint16

// MACPin says which source address a port may use. On with a zero MAC means
// the interface's own.
type MACPin struct {
	On  bool
	MAC frame.MAC
}

// Offload tunes the way of frames through the host, for all ports or one.
type Offload struct {
	GSO      *bool     `yaml:"gso"`
	Coalesce *bool     `yaml:"coalesce"`
	Spin     *Duration `yaml:"spin"` // of the whole switch only
}

// Network is one broadcast domain.
type Network struct {
	VLAN            frame.VID  `yaml:"vlan"`
	VNI             uint32     `yaml:"vni"` // 0 = stays on this host
	MTU             int        `yaml:"mtu"` // octets of L3 packet
	Encrypt         Encryption `yaml:"encrypt"`
	Ageing          *Duration  `yaml:"ageing"` // 0 = for ever
	ForwardReserved GroupMask  `yaml:"forward_reserved"`
	Mode            Mode       `yaml:"mode"`
	LoopGuard       *bool      `yaml:"loop_guard"`
	Storm           *Storm     `yaml:"storm"`
}

// Storm limits floods that enter by a port, in frames a second; nil is
// inherited, 0 is no limit.
type Storm struct {
	Broadcast *Rate `yaml:"broadcast"`
	Unknown   *Rate `yaml:"unknown"`
	Multicast *Rate `yaml:"multicast"`
}

// Port is one attachment point: exactly one kind, a membership and a policy.
type Port struct {
	Tap    *Interface `yaml:"tap"`
	Veth   *Interface `yaml:"veth"`
	Device *Device    `yaml:"device"`
	HostIf *Interface `yaml:"host"`

	Access string   `yaml:"access"`
	Trunk  []string `yaml:"trunk"`
	Native string   `yaml:"native"`

	Isolated  bool         `yaml:"isolated"`
	Mode      Mode         `yaml:"mode"`
	Uplink    bool         `yaml:"uplink"`
	LoopGuard *bool        `yaml:"loop_guard"`
	Storm     *Storm       `yaml:"storm"`
	Hairpin   bool         `yaml:"hairpin"`
	MACPin    MACPin       `yaml:"mac_pin"`
	Sources   []netip.Addr `yaml:"sources"`
	FDBLimit  int          `yaml:"fdb_limit"` // dynamic entries; 0 = none
	Offload   Offload      `yaml:"offload"`
	MTU       int          `yaml:"mtu"` // octets of L3 packet; 0 = the network's
}

// Interface is a network interface that the switch makes for a port.
type Interface struct {
	Netns   string         `yaml:"netns"`  // name, absolute path or pid:N
	Ifname  string         `yaml:"ifname"` // inside the namespace
	Adopt   string         `yaml:"adopt"`  // host end of a veth made by someone else
	Address []netip.Prefix `yaml:"address"`
	Gateway netip.Addr     `yaml:"gateway"`
	MAC     frame.MAC      `yaml:"mac"`
}

// Device is an existing interface of the daemon's namespace.
type Device struct {
	Name string `yaml:"name"`
}

// FDBEntry is one static entry.
type FDBEntry struct {
	Network string    `yaml:"network"`
	MAC     frame.MAC `yaml:"mac"`
	Port    string    `yaml:"port"`
}

// Tunnel is the VXLAN side of the switch.
type Tunnel struct {
	Listen        netip.AddrPort   `yaml:"listen"`
	VXLANReserved Reserved         `yaml:"vxlan_reserved"`
	UDPChecksum   *bool            `yaml:"udp_checksum"`
	Peers         map[string]*Peer `yaml:"peers"`
	DTLS          *DTLS            `yaml:"dtls"`
}

// Peer is another host's switch.
type Peer struct {
	Address  PeerAddr `yaml:"address"`
	Networks []string `yaml:"networks"` // none = every network that has a VNI
	DTLSPort uint16   `yaml:"dtls_port"`
}

// PeerAddr is a peer's address with an optional UDP port; port 0 means that
// none was written.
type PeerAddr netip.AddrPort

// AddrPort returns a as a netip.AddrPort with def for an absent port.
func (a PeerAddr) AddrPort(def uint16) netip.AddrPort {
	ap := netip.AddrPort(a)
	if ap.Port() == 0 {
		return netip.AddrPortFrom(ap.Addr(), def)
	}
	return ap
}

// DTLS is the encrypted side of the tunnel.
type DTLS struct {
	Listen  netip.AddrPort `yaml:"listen"`
	Cert    string         `yaml:"cert"`
	Key     string         `yaml:"key"`
	CA      string         `yaml:"ca"`
	CRL     string         `yaml:"crl"`
	PSKFile string         `yaml:"psk_file"`
	Rekey   Rekey          `yaml:"rekey"`
}

// Anchor makes the files that c names by relative paths lie in dir.
func (c *Config) Anchor(dir string) {
	if c.Tunnel == nil || c.Tunnel.DTLS == nil {
		return
	}
	d := c.Tunnel.DTLS
	for _, path := range []*string{&d.Cert, &d.Key, &d.CA, &d.CRL, &d.PSKFile} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
}

// Rekey bounds the life of a link's keys.
type Rekey struct {
	Records uint64    `yaml:"records"`
	After   *Duration `yaml:"after"`
}

// Router joins networks at layer 3.
type Router struct {
	Interfaces map[string]*RouterInterface `yaml:"interfaces"` // by network
	Routes     []Route                     `yaml:"routes"`
	Forward    *bool                       `yaml:"forward"`
}

// RouterInterface is a router's foot in one network.
type RouterInterface struct {
	Address []netip.Prefix `yaml:"address"`
}

// Route is one static route.
type Route struct {
	To  netip.Prefix `yaml:"to"`
	Via netip.Addr   `yaml:"via"`
}

// Kind returns tap, veth, device or host, or "" when no kind is set.
func (p *Port) Kind() string {
	switch {
	case p.Tap != nil:
		return "tap"
	case p.Veth != nil:
		return "veth"
	case p.Device != nil:
		return "device"
	case p.HostIf != nil:
		return "host"
	}
	return ""
}

// Interface returns the interface that the switch makes, nil for a device. The
// result is the port's own, no copy.
func (p *Port) Interface() *Interface {
	switch {
	case p.Tap != nil:
		return p.Tap
	case p.Veth != nil:
		return p.Veth
	}
	return p.HostIf
}

// Untagged returns the network whose frames are untagged on p, or "".
func (p *Port) Untagged() string {
	if p.Access != "" {
		return p.Access
	}
	return p.Native
}

// Networks returns every network that p is a member of, untagged first, each
// once.
func (p *Port) Networks() []string {
	var out []string
	if u := p.Untagged(); u != "" {
		out = append(out, u)
	}
	for _, n := range p.Trunk {
		if n != p.Untagged() {
			out = append(out, n)
		}
	}
	return out
}
