package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Recorded is one packet of a capture file.
type Recorded struct {
	Interface string // its name; empty where the file tells none
	Outbound  bool   // the interface sent it
	Data      []byte // the octets kept, at most frame.MaxLen
	Len       int    // octets it had
}

// ErrNoPacket is wrapped by the error for a number beyond a file's last packet.
var ErrNoPacket = errors.New("no such packet")

const (
	// maxKept is the most octets that any program keeps of a packet
	// (MAXIMUM_SNAPLEN of libpcap), and maxRead the longest pcapng block that
	// Wireshark reads.
	maxKept = 256 << 10
	maxRead = 16 << 20
	// maxInterfaces bounds the interfaces of a section.
	maxInterfaces = 1 << 16

	linkEthernet = 1

	blockOldPacket    = 2
	blockSimplePacket = 3
	optIfName         = 2
	byteOrderMagic    = 0x1a2b3c4d
	pcapMicroseconds  = 0xa1b2c3d4
	pcapNanoseconds   = 0xa1b23c4d
)

// ReadPacket returns packet n, counted from 1, of the pcap or pcapng file that r
// reads. It takes memory for one packet and for the names of the interfaces,
// whatever the file says. A packet of another link type than Ethernet is an error
// only when it is the one asked for.
func ReadPacket(r io.Reader, n int) (Recorded, error) {
	if n < 1 {
		return Recorded{}, fmt.Errorf("packet %d: they are counted from 1", n)
	}
	f := file{r: bufio.NewReaderSize(r, 64<<10)}
	if err := f.open(); err != nil {
		return Recorded{}, fmt.Errorf("read capture: %w", err)
	}
	for i := 1; ; i++ {
		p, err := f.next(i == n)
		switch {
		case err == io.EOF:
			return Recorded{}, fmt.Errorf("packet %d: %w, the capture has %d", n, ErrNoPacket, i-1)
		case err != nil:
			return Recorded{}, fmt.Errorf("read capture: packet %d: %w", i, err)
		case i == n:
			return p.Recorded, p.check(n)
		}
	}
}

// file is a capture file being read.
type file struct {
	r     *bufio.Reader
	order binary.ByteOrder
	ng    bool
	link  int     // of a pcap
	ifs   []iface // of the section of a pcapng
}

type iface struct {
	name string
	link int
	snap int
}

// packet is a packet as it was found.
type packet struct {
	Recorded
	link int
}

// check says why p can't be taken for an Ethernet frame.
func (p *packet) check(n int) error {
	switch {
	case p.link != linkEthernet:
		return fmt.Errorf("packet %d: its link type is %d, want 1 (Ethernet): capture on one interface, not on any", n, p.link)
	case p.Len < 0 || max(len(p.Data), p.Len) > frame.MaxLen:
		return fmt.Errorf("packet %d: %d octets, a frame has at most %d", n, max(len(p.Data), p.Len), frame.MaxLen)
	}
	return nil
}

var errNoCapture = errors.New("neither pcap nor pcapng")

// open reads what stands before the first packet or block.
func (f *file) open() error {
	magic, err := f.r.Peek(4)
	if err != nil {
		return errNoCapture
	}
	if binary.LittleEndian.Uint32(magic) == blockSection {
		f.ng = true
		return nil
	}
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if m := o.Uint32(magic); m == pcapMicroseconds || m == pcapNanoseconds {
			f.order = o
		}
	}
	if f.order == nil {
		return errNoCapture
	}
	var h [24]byte
	if _, err := io.ReadFull(f.r, h[:]); err != nil {
		return errCut
	}
	f.link = int(f.order.Uint32(h[20:]) & 0xffff) // above: how long the FCS is
	return nil
}

var errCut = errors.New("the file ends in the middle of it")

// next returns the next packet, with its octets if they are wanted, or io.EOF.
func (f *file) next(wanted bool) (packet, error) {
	if f.ng {
		for {
			p, ok, err := f.block(wanted)
			if ok || err != nil {
				return p, err
			}
		}
	}
	var h [16]byte
	if err := f.head(h[:]); err != nil {
		return packet{}, err
	}
	kept, length := f.order.Uint32(h[8:]), f.order.Uint32(h[12:])
	p := packet{Recorded{Len: int(length)}, f.link}
	if kept > maxKept {
		return p, fmt.Errorf("it says that %d octets follow, %d are the most", kept, maxKept)
	}
	var err error
	p.Data, err = f.take(int(kept), wanted)
	return p, err
}

// head fills h, or reports io.EOF when nothing is left.
func (f *file) head(h []byte) error {
	if _, err := io.ReadFull(f.r, h); err == io.EOF {
		return io.EOF
	} else if err != nil {
		return errCut
	}
	return nil
}

// take reads n octets, or skips them.
func (f *file) take(n int, wanted bool) (b []byte, err error) {
	if !wanted {
		_, err = f.r.Discard(n)
	} else {
		b = make([]byte, n)
		_, err = io.ReadFull(f.r, b)
	}
	if err != nil {
		return nil, errCut
	}
	return b, nil
}

// block reads one block of a pcapng; ok is whether it was a packet's.
func (f *file) block(wanted bool) (p packet, ok bool, err error) {
	var h [8]byte
	if err := f.head(h[:]); err != nil {
		return p, false, err
	}
	if binary.LittleEndian.Uint32(h[:]) == blockSection { // the same in either order
		return p, false, f.section(h[4:])
	}
	if f.order == nil {
		return p, false, errNoCapture
	}
	kind, length := f.order.Uint32(h[:]), f.order.Uint32(h[4:])
	if length < 12 || length%4 != 0 || length > maxRead {
		return p, false, fmt.Errorf("a block says that it has %d octets", length)
	}
	isPacket := kind == blockPacket || kind == blockSimplePacket || kind == blockOldPacket
	body, err := f.take(int(length)-12, kind == blockInterface || isPacket && wanted)
	if err == nil {
		_, err = f.take(4, false)
	}
	switch {
	case err != nil:
		return p, false, err
	case kind == blockInterface:
		return p, false, f.addInterface(body)
	case isPacket && wanted:
		p, err = f.parse(kind, body)
	}
	return p, isPacket, err
}

// section begins a section: interfaces count anew, and the order of octets may be
// another.
func (f *file) section(length []byte) error {
	magic, err := f.take(4, true)
	if err != nil {
		return err
	}
	f.order = nil
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if o.Uint32(magic) == byteOrderMagic {
			f.order = o
		}
	}
	if f.order == nil {
		return errNoCapture
	}
	n := f.order.Uint32(length)
	if n < 28 || n%4 != 0 || n > maxRead {
		return fmt.Errorf("a section header says that it has %d octets", n)
	}
	f.ifs = f.ifs[:0]
	_, err = f.take(int(n)-12, false)
	return err
}

func (f *file) addInterface(b []byte) error {
	if len(b) < 8 {
		return errors.New("an interface's block is too short")
	}
	if len(f.ifs) == maxInterfaces {
		return fmt.Errorf("more than %d interfaces", maxInterfaces)
	}
	i := iface{link: int(f.order.Uint16(b)), snap: int(f.order.Uint32(b[4:]))}
	if name, ok := f.option(b[8:], optIfName); ok {
		i.name = string(name[:min(len(name), 256)])
	}
	f.ifs = append(f.ifs, i)
	return nil
}

// option returns the first option of that code.
func (f *file) option(b []byte, code uint16) ([]byte, bool) {
	for len(b) >= 4 {
		c, n := f.order.Uint16(b), int(f.order.Uint16(b[2:]))
		if c == optEnd || n > len(b)-4 {
			break
		}
		if c == code {
			return b[4 : 4+n], true
		}
		b = b[min(len(b), 4+(n+3)&^3):]
	}
	return nil, false
}

// parse reads the body of a packet's block.
func (f *file) parse(kind uint32, b []byte) (p packet, err error) {
	fixed := map[uint32]int{blockPacket: 20, blockOldPacket: 20, blockSimplePacket: 4}[kind]
	if len(b) < fixed {
		return p, errors.New("its block is too short")
	}
	at, kept := 0, 0
	switch kind {
	case blockPacket:
		at, kept, p.Len = int(f.order.Uint32(b)), int(f.order.Uint32(b[12:])), int(f.order.Uint32(b[16:]))
	case blockOldPacket:
		at, kept, p.Len = int(f.order.Uint16(b)), int(f.order.Uint32(b[12:])), int(f.order.Uint32(b[16:]))
	case blockSimplePacket:
		p.Len = int(f.order.Uint32(b))
		kept = min(p.Len, len(b)-fixed)
	}
	if at < 0 || at >= len(f.ifs) {
		return p, fmt.Errorf("it names interface %d of %d", at, len(f.ifs))
	}
	i := &f.ifs[at]
	if kind == blockSimplePacket && i.snap > 0 {
		kept = min(kept, i.snap)
	}
	if kept < 0 || kept > len(b)-fixed {
		return p, fmt.Errorf("it says that %d octets follow, its block has %d", kept, len(b)-fixed)
	}
	p.Interface, p.link, p.Data = i.name, i.link, b[fixed:fixed+kept]
	if kind == blockSimplePacket {
		return p, nil
	}
	if flags, ok := f.option(b[min(len(b), fixed+(kept+3)&^3):], optFlags); ok && len(flags) == 4 {
		p.Outbound = f.order.Uint32(flags)&3 == flagOutbound
	}
	return p, nil
}

// Datagram is what a frame of an underlay carries.
type Datagram struct {
	From    netip.Addr
	TOS     uint8 // or traffic class
	Payload []byte
}

// DatagramOf takes the UDP datagram out of an Ethernet frame of an underlay; ok is
// false when there is none, whole and unfragmented.
func DatagramOf(b []byte) (d Datagram, ok bool) {
	const ipv4Len, ipv6Len, udpLen, protoUDP = 20, 40, 8, 17
	h, ok := frame.Parse(b)
	if !ok {
		return d, false
	}
	p := b[h.Len:]
	switch {
	case h.EtherType == frame.EtherTypeIPv4 && len(p) >= ipv4Len && p[0]>>4 == 4 && p[9] == protoUDP:
		l4, end := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
		if l4 < ipv4Len || end > len(p) || l4 > end || binary.BigEndian.Uint16(p[6:])&0x3fff != 0 { // MF and offset
			return d, false
		}
		d.From, d.TOS, p = netip.AddrFrom4([4]byte(p[12:])), p[1], p[l4:end]
	case h.EtherType == frame.EtherTypeIPv6 && len(p) >= ipv6Len && p[0]>>4 == 6 && p[6] == protoUDP:
		end := ipv6Len + int(binary.BigEndian.Uint16(p[4:]))
		if end > len(p) {
			return d, false
		}
		d.From, d.TOS, p = netip.AddrFrom16([16]byte(p[8:])), p[0]<<4|p[1]>>4, p[ipv6Len:end]
	default:
		return d, false
	}
	if len(p) < udpLen {
		return d, false
	}
	length := int(binary.BigEndian.Uint16(p[4:]))
	if length < udpLen || length > len(p) {
		return d, false
	}
	d.Payload = p[udpLen:length]
	return d, true
}
