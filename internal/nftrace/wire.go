package nftrace

import (
	"encoding/binary"
	"errors"
	"iter"

	"golang.org/x/sys/unix"
)

// errShort means that a message is cut short or no message of this kind.
var errShort = errors.New("malformed netlink message")

const (
	align       = 4 // NLMSG_ALIGNTO, NLA_ALIGNTO
	nlaHdrLen   = unix.SizeofNlAttr
	nlaTypeMask = 1<<14 - 1 // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	genLen      = 4         // struct nfgenmsg
)

func padded(n int) int { return (n + align - 1) &^ (align - 1) }

// appendMessage appends one message of nftables: header, struct nfgenmsg and
// attributes.
func appendMessage(b []byte, typ, flags uint16, seq uint32, family Family, resource uint16, attrs []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+genLen+len(attrs)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)     // port: the kernel knows it
	b = append(b, byte(family), unix.NFNETLINK_V0) // struct nfgenmsg
	b = binary.BigEndian.AppendUint16(b, resource)
	return append(b, attrs...)
}

// attr is one attribute with its padding.
func attr(typ uint16, value ...byte) []byte {
	b := make([]byte, 0, padded(nlaHdrLen+len(value)))
	b = binary.NativeEndian.AppendUint16(b, uint16(nlaHdrLen+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, padded(len(b))-len(b))...)
}

func attr32(typ uint16, v uint32) []byte { return attr(typ, binary.BigEndian.AppendUint32(nil, v)...) }
func attr64(typ uint16, v uint64) []byte { return attr(typ, binary.BigEndian.AppendUint64(nil, v)...) }

// text is an attribute with a string that NUL ends.
func text(typ uint16, s string) []byte { return attr(typ, append([]byte(s), 0)...) }

func nested(typ uint16, attrs ...[]byte) []byte {
	var b []byte
	for _, a := range attrs {
		b = append(b, a...)
	}
	return attr(typ|unix.NLA_F_NESTED, b...)
}

// attributes yields type and value of each attribute in b, until one doesn't
// fit into what is left.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= nlaHdrLen {
			n := int(binary.NativeEndian.Uint16(b))
			if n < nlaHdrLen || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&nlaTypeMask, b[nlaHdrLen:n]) {
				return
			}
			b = b[min(padded(n), len(b)):]
		}
	}
}

// find is the value of the first attribute of that type, nil when there is none.
func find(b []byte, typ uint16) []byte {
	for t, v := range attributes(b) {
		if t == typ {
			return v
		}
	}
	return nil
}

// u32 and u64 read a number that is 0 when its attribute is absent or has
// another length.
func u32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func u64(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// maxName bounds a name in octets (NFT_NAME_MAXLEN).
const maxName = 256

// name reads a string up to its NUL.
func name(b []byte) string {
	b = b[:min(len(b), maxName)]
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// message is one netlink message, its body behind struct nfgenmsg for those of
// nftables.
type message struct {
	typ    uint16
	seq    uint32
	family Family
	body   []byte
}

const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8

// messages yields the messages of one datagram, until one doesn't fit.
func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			n := uint64(binary.NativeEndian.Uint32(b))
			if n < unix.SizeofNlMsghdr || n > uint64(len(b)) {
				return
			}
			m := message{
				typ: binary.NativeEndian.Uint16(b[4:]), seq: binary.NativeEndian.Uint32(b[8:]), body: b[unix.SizeofNlMsghdr:n],
			}
			if m.typ&0xff00 == subsystem {
				if len(m.body) < genLen {
					return
				}
				m.family, m.body = Family(m.body[0]), m.body[genLen:]
			}
			if !yield(m) {
				return
			}
			b = b[min(padded(int(n)), len(b)):]
		}
	}
}
