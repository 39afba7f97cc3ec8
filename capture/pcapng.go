package capture

import (
	"bufio"
	"io"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Pcapng is a Sink that writes a pcapng.
type Pcapng struct {
	out      *bufio.Writer
	flush    func() error
	w        *Writer
	describe func(frame.PortID) Interface
	numbers  map[frame.PortID]int

	// Secrets returns what is new of a TLS key log, nil for nothing. It is asked
	// before each packet. nil = there is none.
	Secrets func() []byte
}

// NewPcapng returns a Sink that writes to w and calls flush after what it has
// written belongs together; flush may be nil. describe names a port.
func NewPcapng(w io.Writer, flush func() error, program, comment string, describe func(frame.PortID) Interface) *Pcapng {
	out := bufio.NewWriterSize(w, 64<<10)
	return &Pcapng{out: out, flush: flush, w: NewWriter(out, program, comment), describe: describe,
		numbers: map[frame.PortID]int{}}
}

// Port implements Sink.
func (p *Pcapng) Port(id frame.PortID) error {
	n, err := p.w.Interface(p.describe(id))
	p.numbers[id] = n
	return err
}

// Packet implements Sink.
func (p *Pcapng) Packet(pkt *Packet, lost uint64) error {
	if err := p.secrets(); err != nil {
		return err
	}
	return p.w.Packet(p.numbers[pkt.Port], pkt, lost)
}

// Lost implements Sink.
func (p *Pcapng) Lost(id frame.PortID, delivered, lost uint64) error {
	return p.w.Stats(p.numbers[id], delivered, lost, time.Now())
}

// secrets writes what is new of the key log.
func (p *Pcapng) secrets() error {
	if p.Secrets == nil {
		return nil
	}
	if lines := p.Secrets(); len(lines) > 0 {
		return p.w.Secrets(lines)
	}
	return nil
}

// Flush implements Sink.
func (p *Pcapng) Flush() error {
	if len(p.numbers) > 0 {
		if err := p.secrets(); err != nil {
			return err
		}
	}
	if err := p.out.Flush(); err != nil || p.flush == nil {
		return err
	}
	return p.flush()
}
