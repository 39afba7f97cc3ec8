package tunnel

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapestry-net/tapestry/internal/offload"
	"github.com/tapestry-net/tapestry/internal/udpio"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Observer watches what never became a frame. Observe is called by the loop that
// receives, with the datagram as a frame that holds it: In is the peer that sent
// it, 0 when nobody knows the sender, and the verdict a drop with its reason. It
// must neither block nor take long, and keeps none of o's slices.
type Observer interface {
	Observe(o *frame.Observation)
}

// Observers is a set of observers, which several tunnels may share. The zero
// value is empty. Any goroutine may call its methods.
type Observers struct {
	mu   sync.Mutex
	list atomic.Pointer[[]Observer]
}

// Add adds an observer.
func (s *Observers) Add(o Observer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Observer
	if l := s.list.Load(); l != nil {
		list = append(list, *l...)
	}
	list = append(list, o)
	s.list.Store(&list)
}

// Remove takes an observer away. A loop that is receiving may still call it until
// it has finished its batch.
func (s *Observers) Remove(o Observer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.list.Load()
	if l == nil {
		return
	}
	list := slices.DeleteFunc(slices.Clone(*l), func(x Observer) bool { return x == o })
	if len(list) == 0 {
		s.list.Store(nil)
		return
	}
	s.list.Store(&list)
}

// refuse counts datagram b, a part of d that c sent, and shows it to those who
// look. c is nil when no peer has the sender's address.
//
// Hot path: no allocation while nobody looks, which costs one load.
func (r *receiver) refuse(c *carrier, d *udpio.Datagram, b []byte, vid frame.VID, why frame.Reason) {
	from := frame.PortID(0)
	if c == nil {
		r.t.strangers[why].add(1)
	} else {
		c.peer.drops[why].add(1)
		from = c.peer.id
	}
	if list := r.t.o.Observers.list.Load(); list != nil {
		r.shown = appendOuter(r.shown[:0], d, r.listen, b)
		o := frame.Observation{
			Time: time.Now(), In: from, Frame: &frame.Frame{Data: r.shown}, Verdict: frame.Verdict{Reason: why, VID: vid},
		}
		for _, w := range *list {
			w.Observe(&o)
		}
	}
}

// appendOuter appends datagram b of d with the headers that a socket doesn't
// show: what is known of them, and zero for the rest. The IPv6 checksum is
// computed anew, since none can be left out there; IPv4 says that there is none.
func appendOuter(to []byte, d *udpio.Datagram, listen netip.AddrPort, b []byte) []byte {
	const udpLen = 8
	be := binary.BigEndian
	src, dst := d.From.Addr(), listen.Addr()
	n := udpLen + len(b)
	to = append(to, make([]byte, 12)...) // both MAC addresses
	at := frame.HeaderLen                // of the IP header
	if src.Is4() {
		if !dst.Is4() {
			dst = netip.IPv4Unspecified()
		}
		to = be.AppendUint16(to, uint16(frame.EtherTypeIPv4))
		to = append(to, 0x45, d.TOS)
		to = be.AppendUint16(to, uint16(ipv4Len+n))
		to = append(to, 0, 0, 0, 0, d.TTL, protoUDP, 0, 0)
	} else {
		to = be.AppendUint16(to, uint16(frame.EtherTypeIPv6))
		to = append(to, 0x60|d.TOS>>4, d.TOS<<4, 0, 0)
		to = be.AppendUint16(to, uint16(n))
		to = append(to, protoUDP, d.TTL)
	}
	to = append(to, src.AsSlice()...)
	to = append(to, dst.AsSlice()...)
	l4 := len(to)
	to = be.AppendUint16(to, d.From.Port())
	to = be.AppendUint16(to, listen.Port())
	to = be.AppendUint16(to, uint16(n))
	to = append(append(to, 0, 0), b...)
	if src.Is4() {
		be.PutUint16(to[at+10:], ^offload.Fold(offload.Sum(to[at:l4], 0)))
		return to
	}
	sum := ^offload.Fold(offload.Sum(to[l4:], offload.Pseudo(to[at+8:l4], protoUDP, n)))
	if sum == 0 {
		sum = 0xffff // RFC 8200 clause 8.1: zero would mean none
	}
	be.PutUint16(to[l4+6:], sum)
	return to
}
