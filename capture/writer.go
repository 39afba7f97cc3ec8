package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"time"
)

// Interface is what a pcapng says about one port.
type Interface struct {
	Name        string // HOST/PORT
	Description string
	Filter      string
	Snap        int // 0 = whole frames
}

// Writer writes one pcapng section. The section's start is written with the
// first interface.
type Writer struct {
	to      io.Writer
	ng      *pcapgo.NgWriter
	program string
	comment string
	count   int
	buf     []byte
}

// NewWriter returns a Writer to w. program and comment are noted in the section
// header.
func NewWriter(w io.Writer, program, comment string) *Writer {
	return &Writer{to: w, program: program, comment: comment}
}

// Interface adds an interface and returns its number.
func (w *Writer) Interface(i Interface) (int, error) {
	ng := pcapgo.NgInterface{
		Name: i.Name, Description: i.Description, Filter: i.Filter, OS: runtime.GOOS,
		LinkType: layers.LinkTypeEthernet, SnapLength: uint32(i.Snap),
	}
	id := w.count
	w.count++
	if w.ng != nil {
		_, err := w.ng.AddInterface(ng)
		if err == nil {
			err = w.ng.Flush()
		}
		return id, err
	}
	var err error
	w.ng, err = pcapgo.NewNgWriterInterface(w.to, ng, pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{
		Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: w.program, Comment: w.comment,
	}})
	if err != nil {
		return id, err
	}
	return id, w.ng.Flush()
}

// Blocks and options of draft-ietf-opsawg-pcapng section 4.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockStats     = 5
	blockPacket    = 6
	blockSecrets   = 10

	secretsTLS = 0x544c534b // "TLSK": the NSS key log, of DTLS too

	optEnd       = 0
	optComment   = 1
	optFlags     = 2
	optDropCount = 4

	flagInbound  = 1
	flagOutbound = 2
	flagUnicast  = 1 << 2
	flagMulti    = 2 << 2
	flagBroad    = 3 << 2

	maxComment = 4096 // octets
)

// Packet writes p as received or sent by interface id, lost packets of which
// were lost since the one before. gopacket's writer has no options of packets,
// so the block is made here.
func (w *Writer) Packet(id int, p *Packet, lost uint64) error {
	b := w.buf[:0]
	ns := uint64(p.Time.UnixNano())
	le := binary.LittleEndian
	b = le.AppendUint32(b, blockPacket)
	b = le.AppendUint32(b, 0) // the length, when it is known
	b = le.AppendUint32(b, uint32(id))
	b = le.AppendUint32(b, uint32(ns>>32))
	b = le.AppendUint32(b, uint32(ns))
	b = le.AppendUint32(b, uint32(len(p.Data)))
	b = le.AppendUint32(b, uint32(p.Len))
	b = pad(append(b, p.Data...))
	if c := comment(p); c != "" {
		b = option(b, optComment, []byte(c))
	}
	b = option(b, optFlags, le.AppendUint32(nil, epbFlags(p)))
	if lost > 0 {
		b = option(b, optDropCount, le.AppendUint64(nil, lost))
	}
	b = option(b, optEnd, nil)
	b = le.AppendUint32(b, uint32(len(b)+4))
	le.PutUint32(b[4:], uint32(len(b)))
	w.buf = b
	_, err := w.to.Write(b)
	return err
}

// Secrets writes lines of a TLS key log, which are about packets that follow.
func (w *Writer) Secrets(lines []byte) error {
	if w.ng == nil {
		return errors.New("write secrets: no interface comes first")
	}
	le := binary.LittleEndian
	b := le.AppendUint32(w.buf[:0], blockSecrets)
	b = le.AppendUint32(b, 0) // the length, when it is known
	b = le.AppendUint32(b, secretsTLS)
	b = le.AppendUint32(b, uint32(len(lines)))
	b = pad(append(b, lines...))
	b = le.AppendUint32(b, uint32(len(b)+4))
	le.PutUint32(b[4:], uint32(len(b)))
	_, err := w.to.Write(b)
	clear(b)
	w.buf = b[:0]
	return err
}

func comment(p *Packet) string {
	s := p.Decision
	if s != "" && p.Note != "" {
		s += "; "
	}
	s += p.Note
	if len(s) > maxComment {
		s = strings.ToValidUTF8(s[:maxComment], "") // without the part of a letter
	}
	return s
}

func epbFlags(p *Packet) uint32 {
	flags := uint32(flagInbound)
	if p.Direction == Out {
		flags = flagOutbound
	}
	switch {
	case len(p.Data) < 6:
	case p.Data[0]&1 == 0:
		flags |= flagUnicast
	case string(p.Data[:6]) == "\xff\xff\xff\xff\xff\xff":
		flags |= flagBroad
	default:
		flags |= flagMulti
	}
	return flags
}

func option(b []byte, code uint16, v []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(v)))
	return pad(append(b, v...))
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Stats writes how many packets of interface id were written and lost.
func (w *Writer) Stats(id int, written, lost uint64, at time.Time) error {
	if w.ng == nil {
		return fmt.Errorf("write statistics of interface %d: there are none", id)
	}
	err := w.ng.WriteInterfaceStats(id, pcapgo.NgInterfaceStatistics{
		LastUpdate: at, PacketsReceived: written + lost, PacketsDropped: lost,
	})
	if err != nil {
		return err
	}
	return w.ng.Flush()
}
