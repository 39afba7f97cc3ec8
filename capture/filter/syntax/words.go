package syntax

import (
	"maps"
	"slices"
	"sync"
)

// Proto is the protocol that a qualifier or a load names.
type Proto uint8

// Protocols.
const (
	ProtoAny Proto = iota
	ProtoEther
	ProtoIP
	ProtoIP6
	ProtoARP
	ProtoRARP
	ProtoTCP
	ProtoUDP
	ProtoSCTP
	ProtoICMP
	ProtoICMP6
	ProtoIGMP
	ProtoPIM
	ProtoVRRP
	ProtoAH
	ProtoESP
	ProtoSTP
)

var protoWords = map[string]Proto{
	"ether": ProtoEther, "link": ProtoEther, "ip": ProtoIP, "ip6": ProtoIP6, "arp": ProtoARP, "rarp": ProtoRARP,
	"tcp": ProtoTCP, "udp": ProtoUDP, "sctp": ProtoSCTP, "icmp": ProtoICMP, "icmp6": ProtoICMP6, "igmp": ProtoIGMP,
	"pim": ProtoPIM, "vrrp": ProtoVRRP, "ah": ProtoAH, "esp": ProtoESP, "stp": ProtoSTP,
}

// ProtoNumbers are the IP protocol numbers (IANA protocol-numbers).
var ProtoNumbers = map[Proto]uint32{
	ProtoICMP: 1, ProtoIGMP: 2, ProtoTCP: 6, ProtoUDP: 17, ProtoESP: 50, ProtoAH: 51, ProtoICMP6: 58,
	ProtoPIM: 103, ProtoVRRP: 112, ProtoSCTP: 132,
}

// Only4 and Only6 are the protocols that belong to one version of IP.
var (
	Only4 = map[Proto]bool{ProtoICMP: true, ProtoIGMP: true, ProtoVRRP: true}
	Only6 = map[Proto]bool{ProtoICMP6: true}
)

// EtherTypes (IANA ieee-802-numbers).
const (
	EtherIP4  = 0x0800
	EtherARP  = 0x0806
	EtherRARP = 0x8035
	EtherIP6  = 0x86dd
)

// EtherTypes are the protocols that have one.
var EtherTypes = map[Proto]uint32{ProtoIP: EtherIP4, ProtoIP6: EtherIP6, ProtoARP: EtherARP, ProtoRARP: EtherRARP}

// STPSAP is the LLC service access point of spanning tree (IEEE 802.1D).
const STPSAP = 0x42

// Dir is the direction that a qualifier names.
type Dir uint8

// Directions.
const (
	DirAny Dir = iota // source or destination
	DirSrc
	DirDst
	DirBoth
)

// Kind is what a primitive compares.
type Kind uint8

// Kinds.
const (
	KindNone  Kind = iota // no word given: an address is a host
	KindAlone             // the protocol by itself, as in `tcp`
	KindHost
	KindNet
	KindPort
	KindRange
	KindProto
	KindBroadcast
	KindMulticast
	KindVLAN
	KindVXLAN
)

var kindWords = map[string]Kind{"host": KindHost, "net": KindNet, "port": KindPort, "portrange": KindRange, "proto": KindProto}

// numbers are the words that stand for numbers: offsets into a header and the
// values found there.
var numbers = map[string]uint32{
	"tcpflags": 13, "icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1,

	"tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32, "tcp-ece": 64, "tcp-cwr": 128,

	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8,
	"icmp-routeradvert": 9, "icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12, "icmp-tstamp": 13,
	"icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16, "icmp-maskreq": 17, "icmp-maskreply": 18,

	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4,
	"icmp6-echo": 128, "icmp6-echoreply": 129, "icmp6-multicastlistenerquery": 130,
	"icmp6-multicastlistenerreportv1": 131, "icmp6-multicastlistenerdone": 132, "icmp6-routersolicit": 133,
	"icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136, "icmp6-redirect": 137,
	"icmp6-multicastlistenerreportv2": 143,
}

// elsewhere says how to get what words of pcap-filter(7) mean that aren't known
// here.
var elsewhere = map[string]string{
	"inbound": "directions are no part of a frame: capture has --direction in", "outbound": "directions are no part of a frame: capture has --direction out",
	"protochain": "extension headers are not followed: write `ip6 proto`", "ifname": "capture has --port",
	"gateway": "write `ether host … and not host …`", "geneve": "write `udp port 6081`", "mpls": "write `ether proto 0x8847`",
	"pppoes": "write `ether proto 0x8864`", "pppoed": "write `ether proto 0x8863`", "carp": "write `ip proto 112`", "llc": "write `ether[12:2] <= 1500`",
}

// vocabulary is every keyword, sorted.
var vocabulary = sync.OnceValue(func() []string {
	w := []string{"and", "or", "not", "src", "dst", "mask", "less", "greater", "len", "broadcast", "multicast", "vlan", "vxlan"}
	w = slices.AppendSeq(w, maps.Keys(protoWords))
	w = slices.AppendSeq(w, maps.Keys(kindWords))
	w = slices.AppendSeq(w, maps.Keys(numbers))
	slices.Sort(w)
	return w
})

func known(w string) bool {
	_, ok := slices.BinarySearch(vocabulary(), w)
	return ok
}
