package switchtest

import (
	"fmt"
	"testing"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// flows are the conversations that GSO frames are made of.
var flows = []struct {
	name     string
	src, dst Station
	udp      bool
	need     frame.Offloads
	most     int // octets of payload in a packet of 64 KiB, headers included
}{
	{"TCP4", near, away, false, frame.OffloadTSO4, 65535 - 40},
	{"TCP6", near6, away6, false, frame.OffloadTSO6, 65535 - 60},
	{"UDP4", near, away, true, frame.OffloadUSO4, 65535 - 28},
	{"UDP6", near6, away6, true, frame.OffloadUSO6, 65535 - 48},
}

var near6, away6 = Station6(0x7e), Station6(0x7f)

// gsoSize is the payload a segment: it fits every port's MTU, and no length
// below is a multiple of it.
const gsoSize = 1000

// packet is one packet of payload, complete.
func packet(src, dst Station, udp bool, payload []byte) []byte {
	if udp {
		return UDPFrame(src, dst, payload)
	}
	return TCPFrame(src, dst, Segment{Seq: 1}, payload)
}

// each runs a test for every flow and payload length.
func each(t *testing.T, run func(t *testing.T, src, dst Station, udp bool, need frame.Offloads, n int)) {
	for _, fl := range flows {
		// Linux cuts a UDP GSO frame into 64 datagrams at most (UDP_MAX_SEGMENTS
		// before 6.9).
		lengths := []int{1, gsoSize - 1, gsoSize, gsoSize + 1, 2*gsoSize + 1, 17001, 63001, fl.most}
		for _, n := range lengths {
			if fl.udp && n > 63001 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", fl.name, n), func(t *testing.T) {
				run(t, fl.src, fl.dst, fl.udp, fl.need, n)
			})
		}
	}
}

// outFrame is a packet of n octets as a sender with offloads writes it: a GSO
// frame when it needs cutting, otherwise one with a partial checksum.
func outFrame(src, dst Station, udp bool, n int) frame.Frame {
	p := packet(src, dst, udp, Pattern(n))
	if n > gsoSize {
		return Super(p, gsoSize)
	}
	return Partial(p)
}

// gather joins the payloads of frames until n octets are there, and checks
// each frame's addresses, ports, lengths and checksums on the way.
func gather(t *testing.T, src, dst Station, udp bool, n int, next func() frame.Frame) {
	t.Helper()
	var got []byte
	for len(got) < n {
		f := next()
		l4 := TCP(src.Port, dst.Port)
		if udp {
			l4 = UDP(src.Port, dst.Port)
		}
		before := len(got)
		Check(t, f, Eth(dst.MAC, src.MAC), IP(src.Addr, dst.Addr), l4, func(v *View) error {
			got = append(got, v.Rest...)
			if f.GSO.Type == frame.GSONone && len(v.Rest) > gsoSize {
				return fmt.Errorf("segment: got %d octets of payload, want at most %d", len(v.Rest), gsoSize)
			}
			if f.GSO.Type != frame.GSONone && int(f.GSO.Size) != gsoSize {
				return fmt.Errorf("GSO size: got %d, want %d", f.GSO.Size, gsoSize)
			}
			return nil
		})
		if t.Failed() {
			return
		}
		if len(got) == before {
			t.Fatalf("a segment without payload after %d of %d octets", before, n)
		}
	}
	sameBytes(t, "payload of all segments", got, Pattern(n))
}

// partialOut transmits packets with partial checksums. The far side sees them
// complete, or announced as partial.
func partialOut(t *testing.T, o *bench) {
	if !o.Queue.Offloads().Has(frame.OffloadChecksum) {
		t.Log("the port takes no partial checksums, and the switch hands it none")
		return
	}
	for _, fl := range flows {
		for _, n := range []int{1, 2, 3, 999} {
			o.transmit(t, Partial(packet(fl.src, fl.dst, fl.udp, Pattern(n))))
			gather(t, fl.src, fl.dst, fl.udp, n, func() frame.Frame { return o.arrive(t) })
		}
	}
	if !o.has(t, CapTags) {
		return
	}
	tagged := Partial(Tagged(10, 3, packet(near, away, true, Pattern(99))))
	tagged.Pop = true
	o.transmit(t, tagged)
	gather(t, near, away, true, 99, func() frame.Frame { return o.arrive(t) })
	pushed := Partial(packet(near, away, true, Pattern(99)))
	pushed.Push = frame.MakeTag(10, 3, false)
	o.transmit(t, pushed)
	Check(t, o.arrive(t), Eth(away.MAC, near.MAC), VLAN(10, 3), IP(near.Addr, away.Addr), UDP(near.Port, away.Port), Payload(Pattern(99)))
}

func gsoOut(t *testing.T, o *bench) {
	each(t, func(t *testing.T, src, dst Station, udp bool, need frame.Offloads, n int) {
		if need |= frame.OffloadChecksum; !o.Queue.Offloads().Has(need) {
			return // the switch cuts such a frame before it gets here
		}
		o.transmit(t, outFrame(src, dst, udp, n))
		gather(t, src, dst, udp, n, func() frame.Frame { return o.arrive(t) })
	})
}

func gsoIn(t *testing.T, o *bench) {
	if !o.has(t, CapFarGSO) {
		return
	}
	each(t, func(t *testing.T, src, dst Station, udp bool, _ frame.Offloads, n int) {
		o.send(t, outFrame(dst, src, udp, n))
		gather(t, dst, src, udp, n, func() frame.Frame { return o.next(t) })
	})
}
