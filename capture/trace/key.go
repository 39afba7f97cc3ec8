package trace

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
)

// ID names one probe. It travels inside it.
type ID uint64

// String returns 16 hexadecimal digits.
func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText implements encoding.TextMarshaler with String's form.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) error {
	var raw [8]byte
	if n, err := hex.Decode(raw[:], b[:min(len(b), 16)]); err != nil || n != 8 || len(b) != 16 {
		return errors.New("trace ID: want 16 hexadecimal digits")
	}
	*id = 0
	for _, o := range raw {
		*id = *id<<8 | ID(o)
	}
	return nil
}

// Proto is what kind of packet a probe is.
type Proto string

// Probes.
const (
	ICMP Proto = "icmp" // echo request, of ICMP or ICMPv6 by the addresses' family
	UDP  Proto = "udp"
	TCP  Proto = "tcp" // SYN
)

// DefaultPort is the destination port of a probe whose user named none: for UDP
// the first of those that traceroute made known, where nobody listens; for TCP
// the web's.
func (p Proto) DefaultPort() uint16 {
	switch p {
	case UDP:
		return 33434
	case TCP:
		return 80
	}
	return 0
}

// IP protocol numbers.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// Key is what a probe and its answer are known by.
type Key struct {
	ID    ID         `json:"id"`
	Proto Proto      `json:"proto"`
	Src   netip.Addr `json:"src"`
	Dst   netip.Addr `json:"dst"`            // of the same family; neither has a zone
	Port  uint16     `json:"port,omitempty"` // destination port of UDP and TCP
}

// Check says what is wrong with k.
func (k *Key) Check() error {
	switch {
	case k.Proto != ICMP && k.Proto != UDP && k.Proto != TCP:
		return fmt.Errorf("protocol %q: want icmp, udp or tcp", k.Proto)
	case !k.Src.IsValid() || !k.Dst.IsValid() || k.Src.Is4() != k.Dst.Is4() || k.Src.Is4In6() || k.Dst.Is4In6():
		return fmt.Errorf("addresses %v and %v: want two of one family", k.Src, k.Dst)
	case k.Src.Zone() != "" || k.Dst.Zone() != "":
		return fmt.Errorf("addresses %v and %v: want none with a zone", k.Src, k.Dst)
	case k.Proto == ICMP && k.Port != 0:
		return errors.New("port: ICMP has none")
	case k.Proto != ICMP && k.Port == 0:
		return errors.New("port: want 1 to 65535")
	}
	return nil
}

// IPID is the probe's IPv4 identification. 0 would let a kernel choose.
func (k *Key) IPID() uint16 { return max(uint16(k.ID), 1) }

// FlowLabel is the probe's IPv6 flow label, 20 bits.
func (k *Key) FlowLabel() uint32 { return uint32(k.ID) & 0xfffff }

// SourcePort is the probe's UDP or TCP source port, one of the dynamic ones (RFC
// 6335 clause 6).
func (k *Key) SourcePort() uint16 { return 0xc000 | uint16(k.ID>>16)&0x3fff }

// Echo is the probe's ICMP identifier and sequence number.
func (k *Key) Echo() (id, seq uint16) { return uint16(k.ID >> 32), uint16(k.ID >> 16) }

// Sequence is the probe's TCP sequence number.
func (k *Key) Sequence() uint32 { return uint32(k.ID >> 24) }

// Protocol is the IP protocol number.
func (k *Key) Protocol() uint8 {
	switch {
	case k.Proto == UDP:
		return protoUDP
	case k.Proto == TCP:
		return protoTCP
	case k.Src.Is4():
		return protoICMP
	}
	return protoICMPv6
}
