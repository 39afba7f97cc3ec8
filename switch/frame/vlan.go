package frame

import "strconv"

// VID is a VLAN identifier, 12 bits. 0 means priority-tagged only and 4095 is
// reserved for implementation use (IEEE 802.1Q clause 9.6, table 9-2).
type VID uint16

const (
	// VIDPriority marks a tag that carries a priority and no VLAN.
	VIDPriority VID = 0
	// VIDReserved is never used on the wire; frames that carry it are dropped.
	VIDReserved VID = 4095
)

// Valid reports whether v names a VLAN: 1 to 4094.
func (v VID) Valid() bool { return v >= 1 && v <= 4094 }

// String returns the decimal number.
func (v VID) String() string { return strconv.Itoa(int(v)) }

// PCP is a priority code point, 0 to 7 (IEEE 802.1Q clause 6.9.3).
type PCP uint8

// TagLen is the length of an 802.1Q tag in octets: TPID and TCI.
const TagLen = 4

// Tag is an 802.1Q tag. The zero Tag means untagged.
type Tag struct {
	TPID EtherType // EtherTypeCTag; 0 = no tag
	TCI  uint16    // PCP(3) DEI(1) VID(12)
}

// MakeTag builds a C-tag.
func MakeTag(v VID, p PCP, dei bool) Tag {
	t := Tag{TPID: EtherTypeCTag, TCI: uint16(p&7)<<13 | uint16(v)&0xfff}
	if dei {
		t.TCI |= 1 << 12
	}
	return t
}

// Present reports whether there is a tag.
func (t Tag) Present() bool { return t.TPID != 0 }

// VID returns the low 12 bits of the TCI.
func (t Tag) VID() VID { return VID(t.TCI & 0xfff) }

// PCP returns the priority code point.
func (t Tag) PCP() PCP { return PCP(t.TCI >> 13) }

// DEI returns the drop eligible indicator.
func (t Tag) DEI() bool { return t.TCI&(1<<12) != 0 }

// WithVID returns the tag with its VID replaced, priority and DEI kept. An
// absent tag becomes a C-tag of priority 0.
func (t Tag) WithVID(v VID) Tag {
	return Tag{TPID: EtherTypeCTag, TCI: t.TCI&0xf000 | uint16(v)&0xfff}
}

// EtherType is the type field of an Ethernet frame. Values below 0x0600 are
// lengths (IEEE 802.3 clause 3.2.6).
type EtherType uint16

// EtherTypes that the switch itself looks at.
const (
	EtherTypeIPv4 EtherType = 0x0800
	EtherTypeARP  EtherType = 0x0806
	EtherTypeCTag EtherType = 0x8100 // 802.1Q customer tag
	EtherTypeIPv6 EtherType = 0x86dd
	EtherTypeSTag EtherType = 0x88a8 // 802.1ad service tag: payload to this bridge
)

// PortID numbers an attachment point of one switch. It is stable for as long
// as the port's name is configured. 0 is no port.
type PortID uint16

// MaxPortID is the highest number a port can have.
const MaxPortID PortID = 16383
