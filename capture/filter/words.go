package filter

import (
	"maps"
	"slices"
	"sync"
)

// proto is the protocol that a qualifier or a load names.
type proto uint8

const (
	protoAny proto = iota
	protoEther
	protoIP
	protoIP6
	protoARP
	protoRARP
	protoTCP
	protoUDP
	protoSCTP
	protoICMP
	protoICMP6
	protoIGMP
	protoPIM
	protoVRRP
	protoAH
	protoESP
	protoSTP
)

var protoWords = map[string]proto{
	"ether": protoEther, "link": protoEther, "ip": protoIP, "ip6": protoIP6, "arp": protoARP, "rarp": protoRARP,
	"tcp": protoTCP, "udp": protoUDP, "sctp": protoSCTP, "icmp": protoICMP, "icmp6": protoICMP6, "igmp": protoIGMP,
	"pim": protoPIM, "vrrp": protoVRRP, "ah": protoAH, "esp": protoESP, "stp": protoSTP,
}

// protoNumbers are the IP protocol numbers (IANA protocol-numbers).
var protoNumbers = map[proto]uint32{
	protoICMP: 1, protoIGMP: 2, protoTCP: 6, protoUDP: 17, protoESP: 50, protoAH: 51, protoICMP6: 58,
	protoPIM: 103, protoVRRP: 112, protoSCTP: 132,
}

// only4 and only6 are the protocols that belong to one version of IP.
var (
	only4 = map[proto]bool{protoICMP: true, protoIGMP: true, protoVRRP: true}
	only6 = map[proto]bool{protoICMP6: true}
)

const (
	etherIP4  = 0x0800
	etherARP  = 0x0806
	etherRARP = 0x8035
	etherIP6  = 0x86dd
)

var etherTypes = map[proto]uint32{protoIP: etherIP4, protoIP6: etherIP6, protoARP: etherARP, protoRARP: etherRARP}

// stpSAP is the LLC service access point of spanning tree (IEEE 802.1D).
const stpSAP = 0x42

// dir is the direction that a qualifier names.
type dir uint8

const (
	dirAny dir = iota // source or destination
	dirSrc
	dirDst
	dirBoth
)

// kind is what a primitive compares.
type kind uint8

const (
	kindNone  kind = iota // no word given: an address is a host
	kindAlone             // the protocol by itself, as in `tcp`
	kindHost
	kindNet
	kindPort
	kindRange
	kindProto
	kindBroadcast
	kindMulticast
	kindVLAN
	kindVXLAN
)

var kindWords = map[string]kind{"host": kindHost, "net": kindNet, "port": kindPort, "portrange": kindRange, "proto": kindProto}

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

// services are the ports that people know by name; they serve the hint only.
var services = map[string]int{"ssh": 22, "domain": 53, "dns": 53, "bootps": 67, "bootpc": 68, "http": 80, "ntp": 123, "https": 443, "vxlan": 4789}

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
