package nftrace

import (
	"bytes"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Family is the address family of a table, with the kernel's numbers.
type Family uint8

// Families.
const (
	Inet   Family = unix.NFPROTO_INET
	IPv4   Family = unix.NFPROTO_IPV4
	ARP    Family = unix.NFPROTO_ARP
	Netdev Family = unix.NFPROTO_NETDEV
	Bridge Family = unix.NFPROTO_BRIDGE
	IPv6   Family = unix.NFPROTO_IPV6
)

var families = map[Family]string{Inet: "inet", IPv4: "ip", ARP: "arp", Netdev: "netdev", Bridge: "bridge", IPv6: "ip6"}

// String is nft's word for the family.
func (f Family) String() string {
	if s, ok := families[f]; ok {
		return s
	}
	return fmt.Sprintf("family %d", uint8(f))
}

// Verdict is what a rule or a policy says, with the numbers of linux/netfilter.h
// and linux/netfilter/nf_tables.h.
type Verdict int32

// Verdicts. After Drop, Stolen and Queue no other rule sees the packet.
const (
	Drop     Verdict = 0
	Accept   Verdict = 1
	Stolen   Verdict = 2 // the rule itself has dealt with the packet
	Queue    Verdict = 3 // a program decides
	Continue Verdict = unix.NFT_CONTINUE
	Break    Verdict = unix.NFT_BREAK
	Jump     Verdict = unix.NFT_JUMP
	Goto     Verdict = unix.NFT_GOTO
	Return   Verdict = unix.NFT_RETURN
)

var verdicts = map[Verdict]string{
	Drop: "drop", Accept: "accept", Stolen: "stolen", Queue: "queue",
	Continue: "continue", Break: "break", Jump: "jump", Goto: "goto", Return: "return",
}

// String is nft's word for the verdict.
func (v Verdict) String() string {
	if s, ok := verdicts[v]; ok {
		return s
	}
	if v > 0 && v&verdictMask == Queue {
		return fmt.Sprintf("queue to %d", v>>16)
	}
	return fmt.Sprintf("verdict %d", int32(v))
}

// Step is one thing that a packet met in the firewall: a rule that matched, or
// the end of a chain.
type Step struct {
	At             // Handle 0 = the end of the chain: its policy, or the return to its caller
	Packet  uint32 // the same for each step of one packet, as a rule, and not for its answer
	Reply   bool   // the packet is the probe's answer
	Verdict Verdict
	To      string // Jump, Goto: the chain
	In, Out int    // interfaces by index, 0 = none or not known yet
	Mark    uint32
}

// Final reports whether the packet ends here.
func (s Step) Final() bool {
	return s.Verdict == Drop || s.Verdict == Stolen || s.Verdict > 0 && s.Verdict&verdictMask == Queue
}

// verdictMask leaves the verdict alone: an errno or the number of a queue
// stands above it.
const verdictMask = 0xff

// String is one line as `ip filter input handle 4: drop`.
func (s Step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %q %q ", s.Family, s.Table, s.Chain)
	if s.Handle != 0 {
		fmt.Fprintf(&b, "handle %d: ", s.Handle)
	} else {
		b.WriteString("end: ")
	}
	b.WriteString(s.Verdict.String())
	if s.To != "" {
		fmt.Fprintf(&b, " %q", s.To)
	}
	return b.String()
}

// report is a step as the kernel tells it, with the packet's headers when it
// tells those.
type report struct {
	Step
	headers   bool
	network   []byte
	transport []byte
}

// parseReport reads a message of kind NFT_MSG_TRACE.
func parseReport(m message) (report, bool) {
	if m.typ != subsystem|unix.NFT_MSG_TRACE {
		return report{}, false
	}
	r := report{Step: Step{At: At{Family: m.family}}}
	kind, policy := uint32(0), uint32(0)
	for t, v := range attributes(m.body) {
		switch t {
		case unix.NFTA_TRACE_TABLE:
			r.Table = name(v)
		case unix.NFTA_TRACE_CHAIN:
			r.Chain = name(v)
		case unix.NFTA_TRACE_RULE_HANDLE:
			r.Handle = u64(v)
		case unix.NFTA_TRACE_TYPE:
			kind = u32(v)
		case unix.NFTA_TRACE_VERDICT:
			r.Verdict = Verdict(u32(find(v, unix.NFTA_VERDICT_CODE)))
			r.To = name(find(v, unix.NFTA_VERDICT_CHAIN))
		case unix.NFTA_TRACE_POLICY:
			policy = u32(v)
		case unix.NFTA_TRACE_ID:
			r.Packet = u32(v)
		case unix.NFTA_TRACE_IIF:
			r.In = int(u32(v))
		case unix.NFTA_TRACE_OIF:
			r.Out = int(u32(v))
		case unix.NFTA_TRACE_MARK:
			r.Mark = u32(v)
		case unix.NFTA_TRACE_NETWORK_HEADER:
			r.headers, r.network = true, v
		case unix.NFTA_TRACE_TRANSPORT_HEADER:
			r.transport = v
		}
	}
	if kind == unix.NFT_TRACETYPE_POLICY {
		r.Verdict = Verdict(policy)
	}
	return r, r.Table != "" && r.Chain != "" && kind >= unix.NFT_TRACETYPE_POLICY && kind <= unix.NFT_TRACETYPE_RULE
}

// silent reports whether the packet has met nothing: it has come to the end of a
// chain, and what follows there is reported next.
func (r *report) silent() bool { return r.Handle == 0 && r.Verdict == Continue }

// is reports whether the headers are those of p, or of its answer.
func (r *report) is(p Probe, reply bool) bool {
	if len(r.network) == 0 || r.network[0]>>4 == 4 != p.Src.Is4() {
		return false
	}
	if p.Src.Is4() && (len(r.network) <= proto4 || r.network[proto4] != p.Protocol) {
		return false
	}
	for _, f := range p.fields(reply) {
		h := r.network
		if f.base == unix.NFT_PAYLOAD_TRANSPORT_HEADER {
			h = r.transport
		}
		if end := int(f.offset) + len(f.value); end > len(h) || !bytes.Equal(h[f.offset:end], f.value) {
			return false
		}
	}
	return true
}
