package nftrace

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// form is how an operand's values are written.
type form uint8

const (
	asHex form = iota
	asNumber
	asHost    // number in the order of the machine's octets
	asAddress // IPv4 or IPv6, perhaps only its first octets
	asMAC
	asProtocol // of IP
	asICMP     // type of ICMP
	asICMPv6
	asName  // of an interface
	asState // of a connection
	asEther // EtherType
	asFamily
)

// operand is what a register holds.
type operand struct {
	words string // as `ip saddr`
	form  form
	width int // octets of the whole field, 0 = as many as are compared
	mask  []byte
}

// writer turns the expressions of a rule, a program for registers, into words.
type writer struct {
	words  []string
	loaded map[uint32]operand
	proto  string // the protocol that the rule has asked for
}

func (w *writer) add(format string, a ...any) { w.words = append(w.words, fmt.Sprintf(format, a...)) }

func (w *writer) expression(kind string, d []byte) {
	switch kind {
	case "meta":
		w.meta(d)
	case "payload":
		w.payload(d)
	case "ct":
		w.conntrack(d)
	case "bitwise":
		w.bitwise(d)
	case "cmp":
		w.compare(d)
	case "range":
		from, to := find(find(d, unix.NFTA_RANGE_FROM_DATA), unix.NFTA_DATA_VALUE), find(find(d, unix.NFTA_RANGE_TO_DATA), unix.NFTA_DATA_VALUE)
		o := w.operand(u32(find(d, unix.NFTA_RANGE_SREG)))
		w.match(o, "%s%s%s-%s", o.words, operator(u32(find(d, unix.NFTA_RANGE_OP))), o.value(from), o.value(to))
	case "lookup":
		w.lookup(d)
	case "immediate":
		w.immediate(d)
	case "counter":
		w.add("counter packets %d bytes %d", u64(find(d, unix.NFTA_COUNTER_PACKETS)), u64(find(d, unix.NFTA_COUNTER_BYTES)))
	case "log":
		w.log(d)
	case "limit":
		w.add("limit rate %d per %v", u64(find(d, unix.NFTA_LIMIT_RATE)), unit(u64(find(d, unix.NFTA_LIMIT_UNIT))))
	case "match":
		w.add("xt match %q", name(find(d, unix.NFTA_MATCH_NAME)))
	case "target":
		w.add("xt target %q", name(find(d, unix.NFTA_TARGET_NAME)))
	case "masq":
		w.add("masquerade")
	case "reject", "notrack", "synproxy":
		w.add("%s", kind)
	default:
		w.add("<%s>", kind)
	}
}

func unit(seconds uint64) string {
	if s, ok := map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}[seconds]; ok {
		return s
	}
	return fmt.Sprintf("%d seconds", seconds)
}

func operator(op uint32) string {
	if ops := [...]string{" ", " != ", " < ", " <= ", " > ", " >= "}; int(op) < len(ops) {
		return ops[op]
	}
	return " ? "
}

func (w *writer) operand(reg uint32) operand {
	if o, ok := w.loaded[reg]; ok {
		return o
	}
	return operand{words: fmt.Sprintf("<register %d>", reg)}
}

var metas = map[uint32]operand{
	unix.NFT_META_LEN: {words: "meta length", form: asHost}, unix.NFT_META_PROTOCOL: {words: "meta protocol", form: asEther},
	unix.NFT_META_PRIORITY: {words: "meta priority", form: asHost}, unix.NFT_META_MARK: {words: "meta mark", form: asHost},
	unix.NFT_META_IIF: {words: "iif", form: asHost}, unix.NFT_META_OIF: {words: "oif", form: asHost},
	unix.NFT_META_IIFTYPE: {words: "meta iiftype", form: asHost},
	unix.NFT_META_IIFNAME: {words: "iifname", form: asName}, unix.NFT_META_OIFNAME: {words: "oifname", form: asName},
	unix.NFT_META_L4PROTO: {words: "meta l4proto", form: asProtocol}, unix.NFT_META_NFPROTO: {words: "meta nfproto", form: asFamily},
	unix.NFT_META_SKUID: {words: "meta skuid", form: asHost}, unix.NFT_META_PKTTYPE: {words: "meta pkttype", form: asNumber},
	unix.NFT_META_NFTRACE: {words: "meta nftrace", form: asHost},
}

func (w *writer) meta(d []byte) {
	key := u32(find(d, unix.NFTA_META_KEY))
	o, ok := metas[key]
	if !ok {
		o.words = fmt.Sprintf("meta <%d>", key)
	}
	if set := find(d, unix.NFTA_META_SREG); set != nil {
		w.add("%s set %s", o.words, w.source(u32(set), o))
		return
	}
	w.loaded[u32(find(d, unix.NFTA_META_DREG))] = o
}

// source is what is assigned to o from a register.
func (w *writer) source(reg uint32, o operand) string {
	from := w.operand(reg)
	if from.mask != nil && from.words == "" { // an immediate value
		return o.value(from.mask)
	}
	return from.words
}

// payloads are the fields of headers: base, offset, and octets.
var payloads = map[[3]uint32]operand{
	{0, 0, 6}: {words: "ether daddr", form: asMAC}, {0, 6, 6}: {words: "ether saddr", form: asMAC}, {0, 12, 2}: {words: "ether type", form: asEther},
	{1, 9, 1}: {words: "ip protocol", form: asProtocol}, {1, 6, 1}: {words: "ip6 nexthdr", form: asProtocol},
	{1, 8, 1}: {words: "ip ttl", form: asNumber}, {1, 7, 1}: {words: "ip6 hoplimit", form: asNumber},
	{1, 2, 2}: {words: "ip length", form: asNumber}, {1, 4, 2}: {words: "ip id", form: asNumber}, {1, 6, 2}: {words: "ip frag-off"},
}

func (w *writer) payload(d []byte) {
	base, offset, n := u32(find(d, unix.NFTA_PAYLOAD_BASE)), u32(find(d, unix.NFTA_PAYLOAD_OFFSET)), u32(find(d, unix.NFTA_PAYLOAD_LEN))
	o, ok := payloads[[3]uint32{base, offset, n}]
	switch {
	case ok:
	case base == unix.NFT_PAYLOAD_NETWORK_HEADER && n > 0:
		o = address(offset, n)
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		o = w.transport(offset, n)
	}
	if o.words == "" {
		o.words = fmt.Sprintf("@%s,%d,%d", map[uint32]string{0: "ll", 1: "nh", 2: "th"}[base], 8*uint64(offset), 8*uint64(n))
	}
	if set := find(d, unix.NFTA_PAYLOAD_SREG); set != nil {
		w.add("%s set %s", o.words, w.source(u32(set), o))
		return
	}
	w.loaded[u32(find(d, unix.NFTA_PAYLOAD_DREG))] = o
}

// address is an address or the first n octets of one: nft compares no more
// than a prefix of whole octets needs.
func address(offset, n uint32) operand {
	for _, a := range []struct {
		words string
		at    uint32
		width uint32
	}{{"ip saddr", src4, 4}, {"ip daddr", dst4, 4}, {"ip6 saddr", src6, 16}, {"ip6 daddr", dst6, 16}} {
		if offset == a.at && n <= a.width {
			return operand{words: a.words, form: asAddress, width: int(a.width)}
		}
	}
	return operand{}
}

// transport is a field of the protocol that the rule has asked for before.
func (w *writer) transport(offset, n uint32) operand {
	proto := w.proto
	if proto == "" {
		proto = "th"
	}
	switch {
	case (w.proto == "icmp" || w.proto == "icmpv6") && n == 1 && offset < 2:
		o := operand{words: proto + " code", form: asNumber}
		if offset == 0 {
			o = operand{words: proto + " type", form: map[string]form{"icmp": asICMP, "icmpv6": asICMPv6}[proto]}
		}
		return o
	case (w.proto == "icmp" || w.proto == "icmpv6") && n == 2 && offset == echoID:
		return operand{words: proto + " id", form: asNumber}
	case n == 2 && offset == srcPortAt:
		return operand{words: proto + " sport", form: asNumber}
	case n == 2 && offset == dstPortAt:
		return operand{words: proto + " dport", form: asNumber}
	case w.proto == "tcp" && n == 1 && offset == 13:
		return operand{words: "tcp flags"}
	}
	return operand{}
}

func (w *writer) conntrack(d []byte) {
	keys := map[uint32]operand{
		unix.NFT_CT_STATE: {words: "ct state", form: asState}, unix.NFT_CT_MARK: {words: "ct mark", form: asHost}, unix.NFT_CT_STATUS: {words: "ct status", form: asHost},
	}
	key := u32(find(d, unix.NFTA_CT_KEY))
	o, ok := keys[key]
	if !ok {
		o.words = fmt.Sprintf("ct <%d>", key)
	}
	if set := find(d, unix.NFTA_CT_SREG); set != nil {
		w.add("%s set %s", o.words, w.source(u32(set), o))
		return
	}
	w.loaded[u32(find(d, unix.NFTA_CT_DREG))] = o
}

func (w *writer) bitwise(d []byte) {
	o := w.operand(u32(find(d, unix.NFTA_BITWISE_SREG)))
	o.mask = find(find(d, unix.NFTA_BITWISE_MASK), unix.NFTA_DATA_VALUE)
	w.loaded[u32(find(d, unix.NFTA_BITWISE_DREG))] = o
}

func (w *writer) compare(d []byte) {
	o, op := w.operand(u32(find(d, unix.NFTA_CMP_SREG))), u32(find(d, unix.NFTA_CMP_OP))
	v := find(find(d, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
	if o.form == asProtocol && op == unix.NFT_CMP_EQ && len(v) == 1 {
		w.proto = protocol(v[0])
	}
	zero := strings.Trim(string(v), "\x00") == ""
	switch from, ok := w.lower(o); {
	case ok && op == unix.NFT_CMP_LTE:
		w.words[len(w.words)-1] = o.words + " " + from + "-" + o.value(v)
	case o.mask == nil:
		w.match(o, "%s%s%s", o.words, operator(op), o.value(v))
	case o.form == asAddress && prefixLen(o.mask) >= 0:
		w.match(o, "%s%s%s/%d", o.words, operator(op), o.value(v), prefixLen(o.mask))
	case zero && op == unix.NFT_CMP_NEQ: // one of the bits
		w.match(o, "%s %s", o.words, o.value(o.mask))
	default:
		w.match(o, "%s & %s%s%s", o.words, o.value(o.mask), operator(op), o.value(v))
	}
}

// lower is the bound that the words before have set for o: with the next one it
// makes a range.
func (w *writer) lower(o operand) (from string, ok bool) {
	if len(w.words) == 0 || o.mask != nil {
		return "", false
	}
	return strings.CutPrefix(w.words[len(w.words)-1], o.words+operator(unix.NFT_CMP_GTE))
}

// match adds a condition. That on the protocol is left out where the next one,
// as `tcp dport 22`, implies it.
func (w *writer) match(o operand, format string, a ...any) {
	if last := len(w.words) - 1; last >= 0 && w.proto != "" && strings.HasPrefix(o.words, w.proto+" ") &&
		w.words[last] == "meta l4proto "+w.proto {
		w.words = w.words[:last]
	}
	w.add(format, a...)
}

func (w *writer) lookup(d []byte) {
	o, set := w.operand(u32(find(d, unix.NFTA_LOOKUP_SREG))), name(find(d, unix.NFTA_LOOKUP_SET))
	op := " "
	const inverted = 1 // NFT_LOOKUP_F_INV
	if u32(find(d, unix.NFTA_LOOKUP_FLAGS))&inverted != 0 {
		op = " != "
	}
	members := "@" + set
	if strings.HasPrefix(set, "__set") || strings.HasPrefix(set, "__map") { // written in the rule itself
		members = "{ … }"
	}
	if find(d, unix.NFTA_LOOKUP_DREG) != nil {
		members = "map " + members
	}
	w.match(o, "%s%s%s", o.words, op, members)
}

func (w *writer) immediate(d []byte) {
	data := find(d, unix.NFTA_IMMEDIATE_DATA)
	verdict := find(data, unix.NFTA_DATA_VERDICT)
	if verdict == nil {
		w.loaded[u32(find(d, unix.NFTA_IMMEDIATE_DREG))] = operand{mask: find(data, unix.NFTA_DATA_VALUE)}
		return
	}
	v := Verdict(u32(find(verdict, unix.NFTA_VERDICT_CODE))).String()
	if to := name(find(verdict, unix.NFTA_VERDICT_CHAIN)); to != "" {
		v += " " + to
	}
	w.words = append(w.words, v)
}

func (w *writer) log(d []byte) {
	if p := name(find(d, unix.NFTA_LOG_PREFIX)); p != "" {
		w.add("log prefix %q", p)
		return
	}
	w.add("log")
}

var (
	protocols = map[uint8]string{1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6", 132: "sctp"}
	icmps     = map[uint8]string{0: "echo-reply", 3: "destination-unreachable", 5: "redirect", 8: "echo-request", 11: "time-exceeded", 12: "parameter-problem"}
	icmps6    = map[uint8]string{
		1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem", 128: "echo-request", 129: "echo-reply",
		133: "nd-router-solicit", 134: "nd-router-advert", 135: "nd-neighbor-solicit", 136: "nd-neighbor-advert",
	}
	nfprotos = map[uint8]string{unix.NFPROTO_IPV4: "ipv4", unix.NFPROTO_IPV6: "ipv6"}
	ethers   = map[uint16]string{0x0800: "ip", 0x0806: "arp", 0x86dd: "ip6", 0x8100: "vlan"}
	states   = map[uint32]string{1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}
)

func protocol(p uint8) string {
	if s, ok := protocols[p]; ok {
		return s
	}
	return strconv.Itoa(int(p))
}

// value writes one value of o.
func (o operand) value(v []byte) string {
	switch {
	case o.form == asNumber && len(v) <= 8 && len(v) > 0:
		var n uint64
		for _, b := range v {
			n = n<<8 | uint64(b)
		}
		return strconv.FormatUint(n, 10)
	case o.form == asHost && len(v) == 2:
		return strconv.FormatUint(uint64(binary.NativeEndian.Uint16(v)), 10)
	case o.form == asHost && len(v) == 4:
		return strconv.FormatUint(uint64(binary.NativeEndian.Uint32(v)), 10)
	case o.form == asAddress && len(v) <= o.width:
		a, _ := netip.AddrFromSlice(append(append([]byte{}, v...), make([]byte, o.width-len(v))...))
		if len(v) < o.width {
			return fmt.Sprintf("%v/%d", a, 8*len(v))
		}
		return a.String()
	case o.form == asMAC && len(v) == 6:
		return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", v[0], v[1], v[2], v[3], v[4], v[5])
	case o.form == asName:
		s := strconv.Quote(name(v))
		if len(v) > 0 && v[len(v)-1] != 0 && len(v) < unix.IFNAMSIZ { // every name that begins so
			s = s[:len(s)-1] + `*"`
		}
		return s
	case o.form == asState && len(v) == 4:
		return stateNames(binary.NativeEndian.Uint32(v))
	case o.form == asEther && len(v) == 2:
		if s, ok := ethers[binary.BigEndian.Uint16(v)]; ok {
			return s
		}
	case len(v) == 1:
		names := map[form]map[uint8]string{asProtocol: protocols, asICMP: icmps, asICMPv6: icmps6, asFamily: nfprotos}[o.form]
		if s, ok := names[v[0]]; ok {
			return s
		}
		if names != nil {
			return strconv.Itoa(int(v[0]))
		}
	}
	return "0x" + hex.EncodeToString(v)
}

func stateNames(v uint32) string {
	var all []string
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if v&bit == 0 {
			continue
		}
		s, ok := states[bit]
		if !ok {
			s = fmt.Sprintf("%#x", bit)
		}
		all = append(all, s)
	}
	return strings.Join(all, ",")
}

// prefixLen is how many bits a mask has in front, -1 when others are set too.
func prefixLen(mask []byte) int {
	for i, b := range mask {
		if b == 0xff {
			continue
		}
		ones := bits.LeadingZeros8(^b)
		if b<<ones != 0 || strings.Trim(string(mask[i+1:]), "\x00") != "" {
			return -1
		}
		return 8*i + ones
	}
	return 8 * len(mask)
}
