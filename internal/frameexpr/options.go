package frameexpr

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// maxTags is how many tags a frame in words may have.
const maxTags = 2

const options = "from, to, vlan, len, packet, ttl, tos, nodf, flags, gso, vni or outer-tos"

// option reads one option into r.
func (p *parser) option(r *request) error {
	w, err := p.next("an option")
	if err != nil {
		return err
	}
	if err := fits(r, w.text); err != "" {
		return p.at(w.pos, err)
	}
	switch w.text {
	case "from":
		r.hasFrom = true
		r.from, err = p.mac()
	case "to":
		r.hasTo = true
		r.to, err = p.mac()
	case "vlan":
		err = p.vlan(r, w)
	case "len", "packet":
		if r.length != 0 || r.packet != 0 {
			return p.at(w.pos, "the length is given twice")
		}
		if len(p.rest) > 0 {
			r.lengthPos = p.rest[0].pos
		}
		into := &r.length
		if w.text == "packet" {
			into = &r.packet
		}
		*into, err = p.number(fmt.Sprintf("a length from 1 to %d", frame.MaxLen), 1, frame.MaxLen)
	case "ttl":
		r.ttl, err = p.octet("a TTL or hop limit from 0 to 255")
	case "tos":
		r.tos, err = p.octet("a TOS or traffic class from 0 to 255, or 0x00 to 0xff")
	case "nodf":
		r.mayFragment = true
	case "flags":
		err = p.tcpFlags(r)
	case "gso":
		r.Segment, err = p.number("a segment's payload from 1 to 65535 octets", 1, 65535)
	case "vni":
		var n int
		n, err = p.number("a VNI from 1 to 16777215", 1, 1<<24-1)
		r.VNI = uint32(n)
	case "outer-tos":
		r.OuterTOS, err = p.octet("a TOS or traffic class from 0 to 255, or 0x00 to 0xff")
	default:
		return p.at(w.pos, fmt.Sprintf("got %q, want %s", w.text, options))
	}
	return err
}

// fits says why an option has no meaning for r; empty when it has.
func fits(r *request, option string) string {
	transport := r.kind == "tcp" || r.kind == "udp"
	switch option {
	case "from", "to", "vlan", "len", "packet":
		if r.kind == "" {
			return option + " is for frames in words: octets are taken as they are"
		}
		if option == "from" && r.reply {
			return "is-at says which MAC address it is from"
		}
	case "ttl", "tos":
		if !r.isIP() {
			return option + " is for IP packets"
		}
	case "nodf":
		if !r.isIP() || !r.dst.Is4() {
			return "nodf is for IPv4 packets"
		}
	case "flags":
		if r.kind != "tcp" {
			return "flags are TCP's"
		}
	case "gso":
		if !transport && r.kind != "" || r.Datagram {
			return "gso is for tcp and udp"
		}
	case "vni":
		if r.Datagram {
			return "the datagram's header says the VNI"
		}
	}
	return ""
}

// vlan reads a tag; the first is the outer one.
func (p *parser) vlan(r *request, w word) error {
	if len(r.tags) == maxTags {
		return p.at(w.pos, fmt.Sprintf("more than %d tags", maxTags))
	}
	n, err := p.number("a VLAN from 0 to 4095", 0, 4095)
	if err != nil {
		return err
	}
	pcp := 0
	if len(p.rest) > 0 && p.rest[0].text == "pcp" {
		p.rest = p.rest[1:]
		if pcp, err = p.number("a priority from 0 to 7", 0, 7); err != nil {
			return err
		}
	}
	r.tags = append(r.tags, frame.MakeTag(frame.VID(n), frame.PCP(pcp), false))
	return nil
}

// tcpFlags reads flags as tcpdump shows them.
func (p *parser) tcpFlags(r *request) error {
	const letters = "SFRPUEW."
	want := "some of " + letters + " as SYN FIN RST PSH URG ECE CWR ACK"
	w, err := p.next(want)
	if err != nil {
		return err
	}
	if strings.Trim(w.text, letters) != "" {
		return p.at(w.pos, fmt.Sprintf("got %q, want %s", w.text, want))
	}
	r.flags = w.text
	return nil
}

func (p *parser) mac() (frame.MAC, error) {
	w, err := p.next("a MAC address")
	if err != nil {
		return frame.MAC{}, err
	}
	m, err := frame.ParseMAC(w.text)
	if err != nil {
		return m, p.at(w.pos, err.Error())
	}
	return m, nil
}

func (p *parser) number(want string, least, most int) (int, error) {
	w, err := p.next(want)
	if err != nil {
		return 0, err
	}
	digits, base := w.text, 10
	if d, ok := strings.CutPrefix(digits, "0x"); ok {
		digits, base = d, 16
	}
	n, err := strconv.ParseUint(digits, base, 31)
	if err != nil || int(n) < least || int(n) > most {
		return 0, p.at(w.pos, fmt.Sprintf("got %q, want %s", w.text, want))
	}
	return int(n), nil
}

// octet reads a number that fits one, decimal or as 0x….
func (p *parser) octet(want string) (uint8, error) {
	n, err := p.number(want, 0, 255)
	return uint8(n), err
}
