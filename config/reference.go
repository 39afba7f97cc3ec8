package config

import (
	"fmt"
	"io"
	"strings"
)

// Key is one row of the reference: a key of the file.
type Key struct {
	Path    string // with * for a name and [] for each item of a list
	Type    string
	Default string
	Unit    string
	Doc     string
	Choices []string // the only values, if any
	// Min and Max bound a number when Max is not 0.
	Min, Max uint64
}

const (
	maxMTU      = 65535
	minMTU      = 68 // RFC 791: every IPv4 link carries 68 octets
	maxVNI      = 1<<24 - 1
	maxFDBLimit = 1 << 24
)

var (
	modes    = []string{"bridge", "vepa", "private", "passthru"}
	profiles = []string{"strict", "lab"}
)

// Keys is every key of the file, in the order of the reference.
var Keys = buildKeys()

func buildKeys() []Key {
	keys := append([]Key{
		{Path: "host", Type: "name", Default: "the hostname", Doc: "How other hosts and traces name this one."},
		{Path: "profile", Type: "choice", Default: "strict", Choices: profiles, Doc: "strict: guards on. lab: every reserved group address is relayed, guards and coalescing are off."},
	}, offloadKeys("offload", "on; coalesce off in lab", "")...)
	keys = append(keys,
		Key{Path: "offload.spin", Type: "duration", Default: "20us", Doc: "How long a loop polls before it sleeps, 0s to 1ms; 0s = never. Up to five times that while its waits are that short."},
		Key{Path: "ageing", Type: "duration", Default: "300s", Doc: "FDB ageing time; 0s = never."},
		Key{Path: "fdb_limit", Type: "number", Default: "1048576", Unit: "entries", Min: 1, Max: maxFDBLimit, Doc: "FDB entries in all."},
		Key{Path: "networks", Type: "map by name", Doc: "The broadcast domains."})
	keys = append(keys, networkKeys...)
	keys = append(keys, policyKeys("networks.*", "Default of the network's ports: ", "the profile's")...)
	keys = append(keys, Key{Path: "ports", Type: "map by name", Doc: "The attachment points; each has one of tap, veth, device, host."})
	keys = append(keys, interfaceKeys("tap", "A TAP put into a container's namespace as its interface.", "eth0")...)
	keys = append(keys, interfaceKeys("veth", "A veth pair, one end in the container's namespace, the other spliced to the switch.", "eth0")...)
	keys = append(keys,
		Key{Path: "ports.*.veth.adopt", Type: "interface name", Doc: "The host end of a veth made by someone else, instead of netns and ifname."},
		Key{Path: "ports.*.device", Type: "map", Doc: "An existing interface, read by AF_PACKET."},
		Key{Path: "ports.*.device.name", Type: "interface name", Default: "required", Doc: "The interface in the daemon's namespace."})
	keys = append(keys, interfaceKeys("host", "A TAP in the daemon's own namespace.", "tap-PORT, cut to 15 characters")...)
	keys = append(keys, portKeys...)
	keys = append(keys, policyKeys("ports.*", "", "the network's, else the profile's")...)
	keys = append(keys, offloadKeys("ports.*.offload", "the host's", " of this port")...)
	return append(append(keys, tunnelKeys...), routerKeys...)
}

func offloadKeys(path, def, of string) []Key {
	return []Key{
		{Path: path, Type: "map", Doc: "Offloads" + of + "."},
		{Path: path + ".gso", Type: "on|off", Default: def, Doc: "Carry GSO frames whole."},
		{Path: path + ".coalesce", Type: "on|off", Default: def, Doc: "Join segments of one flow into a GSO frame at egress."},
	}
}

func policyKeys(path, lead, def string) []Key {
	rate := func(name, strict string) Key {
		return Key{Path: path + ".storm." + name, Type: "rate", Default: def + " (strict " + strict + ", lab off)", Unit: "frames/s", Doc: "Limit, such as 1000/s, or off."}
	}
	return []Key{
		{Path: path + ".mode", Type: "choice", Default: map[bool]string{true: "bridge", false: "the network's"}[lead != ""], Choices: modes, Doc: lead + "How siblings are treated."},
		{Path: path + ".loop_guard", Type: "on|off", Default: def + " (strict on, lab off)", Doc: lead + "Cut a port that hears the switch's own frames come back."},
		{Path: path + ".storm", Type: "map", Doc: lead + "Floods above the rate are dropped as `storm`."},
		rate("broadcast", "1000/s"), rate("unknown", "1000/s"), rate("multicast", "5000/s"),
	}
}

func interfaceKeys(kind, doc, ifname string) []Key {
	p := "ports.*." + kind
	keys := []Key{{Path: p, Type: "map", Doc: doc}}
	if kind != "host" {
		keys = append(keys, Key{Path: p + ".netns", Type: "namespace", Default: "required", Doc: "The namespace: a name of `ip netns`, an absolute path, or pid:N."})
	}
	return append(keys,
		Key{Path: p + ".ifname", Type: "interface name", Default: ifname, Doc: "Name of the interface where it is put."},
		Key{Path: p + ".address[]", Type: "list of addresses with prefix length", Doc: "Addresses of the interface, such as 10.1.0.2/24."},
		Key{Path: p + ".gateway", Type: "address", Doc: "Default route's next hop, inside one of the subnets."},
		Key{Path: p + ".mac", Type: "MAC address", Default: "the kernel's choice", Doc: "The interface's own address."})
}

var networkKeys = []Key{
	{Path: "networks.*", Type: "map", Doc: "One network."},
	{Path: "networks.*.vlan", Type: "number", Default: "chosen, stable", Min: 1, Max: 4094, Doc: "802.1Q VLAN identifier."},
	{Path: "networks.*.vni", Type: "number", Default: "stays on this host", Min: 1, Max: maxVNI, Doc: "VXLAN network identifier."},
	{Path: "networks.*.mtu", Type: "number", Default: "1500; with a vni what the underlay carries, 1450 if unknown", Unit: "octets", Min: minMTU, Max: maxMTU, Doc: "Largest layer 3 packet."},
	{Path: "networks.*.encrypt", Type: "choice", Default: "plain VXLAN", Choices: []string{"required"}, Doc: "required: frames leave by an established DTLS link only."},
	{Path: "networks.*.ageing", Type: "duration", Default: "the host's", Doc: "FDB ageing time; 0s = never."},
	{Path: "networks.*.forward_reserved", Type: "list of protocols", Default: "none; lab all", Doc: "Relayed reserved group addresses: stp pause lacp eapol (802.1x) lldp …, or the last octet, 00 to 0f."},
}

var portKeys = []Key{
	{Path: "ports.*", Type: "map", Doc: "One port."},
	{Path: "ports.*.access", Type: "network", Doc: "Untagged member of this one network."},
	{Path: "ports.*.trunk[]", Type: "list of networks", Doc: "Tagged member of these networks."},
	{Path: "ports.*.native", Type: "network", Doc: "The trunk's untagged network."},
	{Path: "ports.*.isolated", Type: "on|off", Default: "off", Doc: "Talk to non-isolated ports only."},
	{Path: "ports.*.uplink", Type: "on|off", Default: "off", Doc: "The port that leads out, for the modes vepa, private and passthru."},
	{Path: "ports.*.hairpin", Type: "on|off", Default: "off", Doc: "A frame may leave where it came in."},
	{Path: "ports.*.mac_pin", Type: "true, false or MAC address", Default: "off", Doc: "The only source MAC address accepted; true = the interface's own."},
	{Path: "ports.*.sources[]", Type: "list of addresses", Default: "any", Doc: "The only IP source addresses accepted."},
	{Path: "ports.*.fdb_limit", Type: "number", Default: "0 = the host's", Unit: "entries", Max: maxFDBLimit, Doc: "Dynamic FDB entries of this port."},
	{Path: "ports.*.mtu", Type: "number", Default: "the network's", Unit: "octets", Min: minMTU, Max: maxMTU, Doc: "Largest layer 3 packet on this port."},
	{Path: "fdb[]", Type: "list", Doc: "Static FDB entries."},
	{Path: "fdb[].network", Type: "network", Default: "required", Doc: "The network."},
	{Path: "fdb[].mac", Type: "MAC address", Default: "required", Doc: "The station's unicast address."},
	{Path: "fdb[].port", Type: "port", Default: "required", Doc: "Where the station is."},
}

var tunnelKeys = []Key{
	{Path: "tunnel", Type: "map", Doc: "VXLAN to other hosts; absent = none."},
	{Path: "tunnel.listen", Type: "address:port", Default: "0.0.0.0:4789", Doc: "Where VXLAN arrives; [::]:4789 for IPv6."},
	{Path: "tunnel.vxlan_reserved", Type: "choice", Default: "drop", Choices: []string{"drop", "ignore"}, Doc: "Headers with reserved bits set; ignore is RFC 7348's way."},
	{Path: "tunnel.udp_checksum", Type: "on|off", Default: "on", Doc: "off sends checksum 0 on IPv4; slower, UDP_SEGMENT needs it."},
	{Path: "tunnel.peers", Type: "map by name", Doc: "The other hosts."},
	{Path: "tunnel.peers.*", Type: "map", Doc: "One other host."},
	{Path: "tunnel.peers.*.address", Type: "address, with :port if not 4789", Default: "required", Doc: "Where it listens."},
	{Path: "tunnel.peers.*.networks[]", Type: "list of networks", Default: "every network with a vni", Doc: "Networks shared with it."},
	{Path: "tunnel.peers.*.dtls_port", Type: "number", Default: "4788", Min: 1, Max: 65535, Doc: "Its DTLS port."},
	{Path: "tunnel.dtls", Type: "map", Doc: "Encrypted links; absent = none."},
	{Path: "tunnel.dtls.listen", Type: "address:port", Default: "0.0.0.0:4788", Doc: "Where DTLS arrives."},
	{Path: "tunnel.dtls.cert", Type: "file", Doc: "Own certificate, PEM."},
	{Path: "tunnel.dtls.key", Type: "file", Doc: "Own private key, PEM; refused when others can read it."},
	{Path: "tunnel.dtls.ca", Type: "file", Doc: "Certificates of the CA, PEM."},
	{Path: "tunnel.dtls.crl", Type: "file", Default: "none", Doc: "Revoked certificates, PEM."},
	{Path: "tunnel.dtls.psk_file", Type: "file", Doc: "Shared key instead of certificates: 32 or more random bytes, base64."},
	{Path: "tunnel.dtls.rekey", Type: "map", Doc: "When a link changes its keys."},
	{Path: "tunnel.dtls.rekey.records", Type: "number", Default: "1073741824", Unit: "records", Min: 1, Max: 1 << 31, Doc: "After so many records; a key seals at most 2^32, and the other host may ask later."},
	{Path: "tunnel.dtls.rekey.after", Type: "duration", Default: "12h", Doc: "After so long, 10s to 168h."},
}

var routerKeys = []Key{
	{Path: "routers", Type: "map by name", Doc: "Routers between networks."},
	{Path: "routers.*", Type: "map", Doc: "One router."},
	{Path: "routers.*.interfaces", Type: "map by network", Default: "required", Doc: "Its interfaces."},
	{Path: "routers.*.interfaces.*", Type: "map", Doc: "Its interface in one network."},
	{Path: "routers.*.interfaces.*.address[]", Type: "list of addresses with prefix length", Default: "required", Doc: "Its addresses there."},
	{Path: "routers.*.routes[]", Type: "list", Doc: "Static routes."},
	{Path: "routers.*.routes[].to", Type: "prefix", Default: "required", Doc: "Destination, such as 172.18.0.0/16."},
	{Path: "routers.*.routes[].via", Type: "address", Default: "required", Doc: "Next hop, inside a subnet of an interface."},
	{Path: "routers.*.forward", Type: "on|off", Default: "on", Doc: "off: what ip_forward=0 does, counted and traced."},
}

// keyByPath and children index the table: children holds the names below a
// path in the order of the table.
var keyByPath, children = index(Keys)

func index(keys []Key) (map[string]Key, map[string][]string) {
	by, kids := make(map[string]Key), make(map[string][]string)
	for _, k := range keys {
		by[k.Path] = k
		p := strings.TrimSuffix(k.Path, "[]")
		dot := strings.LastIndexByte(p, '.')
		parent, name := "", p
		if dot >= 0 {
			parent, name = p[:dot], p[dot+1:]
		}
		if name != "*" {
			kids[parent] = append(kids[parent], name)
		}
	}
	return by, kids
}

// WriteReference prints the reference of every key in Markdown.
func WriteReference(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Configuration reference\n\nThe file is YAML (JSON is accepted). `*` stands for a name, `[]` for each item of a list.\nNames match `" + namePattern + "`. An unknown key is an error.\n\n")
	b.WriteString("| key | type | default | meaning |\n|---|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`)
	for _, k := range Keys {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Path, cell.Replace(k.typeText()), cell.Replace(k.Default), cell.Replace(k.Doc))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// typeText is the type with its choices, bounds and unit.
func (k Key) typeText() string {
	t := k.Type
	if len(k.Choices) > 0 {
		t = strings.Join(k.Choices, " or ")
	}
	if k.Max > 0 {
		t += fmt.Sprintf(" %d to %d", k.Min, k.Max)
	}
	if k.Unit != "" {
		t += " (" + k.Unit + ")"
	}
	return t
}
